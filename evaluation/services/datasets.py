"""Datasets: frozen from the imported traces, or read from a file of examples; never changed afterwards."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import batched
from pathlib import PurePath
from typing import Any

from django.conf import settings
from django.core.files import File
from django.db import connection, transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext as _

from evaluation.models import Dataset, DatasetSource, DatasetState, Example
from evaluation.sampling import DatasetRow, dataset_hash, input_hash
from evaluation.services.input_templates import require_admin
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, job_enqueue
from pld_app.models import User
from rules.hidden_text import hidden_in
from rules.models import Split, Task, Trace
from rules.trace_files import Accepted, Rejected, UnreadableFile, read_trace_file

READ_JOB = "dataset_read"
CHECK_JOB = "dataset_check"
BATCH = 1_000
SHOWN_PROBLEMS = 100
MAX_NAME = 120
TEACHER_LABEL = "teacher_label"
"""Metadata key under which a trace or an example carries the label the teacher itself gave."""

_COPY = """
INSERT INTO evaluation_example
  (dataset_id, position, external_id, split, input, label, teacher_label, input_sha256, trace_id)
SELECT %s, u.position, t.external_id, t.split, t.input, t.label, u.teacher_label, u.input_sha256, t.id
  FROM unnest(%s::int[], %s::bigint[], %s::text[], %s::text[]) AS u(position, trace_id, input_sha256, teacher_label)
  JOIN rules_trace t ON t.id = u.trace_id ORDER BY u.position
"""
# Of copies in two splits the one in the later split is kept: what was held out longest stays held out.
_KEPT_APART = (Split.TEST, Split.VALIDATION, Split.TRAIN)


@dataclass(frozen=True, slots=True)
class _Taken:
    trace_id: int
    row: DatasetRow
    teacher_label: str


@dataclass
class TracePlan:
    """What a dataset of the present traces would hold: rows in order, and pairs of ids that stand in two splits."""

    last_trace_id: int
    rows: list[_Taken] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def of_split(self, split: str) -> list[_Taken]:
        return [taken for taken in self.rows if taken.row.split == split]


def trace_plan(task: Task) -> TracePlan:
    """Look at every trace of the task once; an input that stands in two splits is taken for the later split alone."""
    plan = TracePlan(last_trace_id=newest_trace(task))
    split_of: dict[str, tuple[Split, str]] = {}
    seen: list[_Taken] = []
    traces = Trace.objects.filter(task=task, pk__lte=plan.last_trace_id).order_by("pk")
    fields = ("pk", "external_id", "split", "label", "input", "metadata")
    for pk, external_id, split, label, values, metadata in traces.values_list(*fields).iterator(chunk_size=BATCH):
        row = DatasetRow(external_id, split, label, input_hash(values))
        seen.append(_Taken(pk, row, _teacher_label(task, metadata)))
        held = split_of.get(row.input_sha256)
        if held is None or _KEPT_APART.index(Split(split)) < _KEPT_APART.index(held[0]):
            split_of[row.input_sha256] = (Split(split), external_id)
    for taken in seen:
        held_split, held_id = split_of[taken.row.input_sha256]
        if taken.row.split == held_split:
            plan.rows.append(taken)
        else:
            plan.left_out.append((taken.row.external_id, held_id))
    return plan


def newest_trace(task: Task) -> int:
    return Trace.objects.filter(task=task).aggregate(newest=Max("pk"))["newest"] or 0


@transaction.atomic
def dataset_from_traces(*, task: Task, user: User | None, name: str = "", leave_out_copies: bool = True) -> Dataset:
    """Freeze the task's traces of all three splits as they are now.

    An input that stands in two splits is left out of the earlier one (test keeps it before validation, validation
    before train), or with `leave_out_copies` False the whole is refused with the ids. Raises InvalidInput.
    """
    require_admin(user)
    plan = trace_plan(task)
    if not plan.rows:
        raise InvalidInput(_("This task has no traces yet. Import some first."))
    if plan.left_out and not leave_out_copies:
        raise InvalidInput(_overlap_words(plan.left_out))
    dataset = _dataset_new(task, user, name or _("Traces up to %(n)d") % {"n": plan.last_trace_id})
    dataset.source = DatasetSource.TRACES
    dataset.last_trace_id = plan.last_trace_id
    dataset.left_out = len(plan.left_out)
    dataset.save()
    _copy_traces(dataset, plan.rows)
    _dataset_freeze(dataset, (taken.row for taken in plan.rows), user)
    return dataset


def dataset_current(task: Task, user: User | None) -> Dataset:
    """The dataset of the traces as they are now, frozen here if there is none yet; without traces the newest one.

    In the caller's transaction. Raises InvalidInput when the task has neither.
    """
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    found = dataset_standing(task)
    return found or dataset_from_traces(task=task, user=user)


def dataset_standing(task: Task) -> Dataset | None:
    """What `dataset_current` would give, if it exists already."""
    frozen = task.datasets.filter(state=DatasetState.FROZEN)
    newest = newest_trace(task)
    if not newest:
        return frozen.first()
    return frozen.filter(source=DatasetSource.TRACES, last_trace_id=newest).first()


def dataset_upload(*, task: Task, user: User | None, name: str, upload: "File[bytes]", file_name: str) -> Dataset:
    """Keep a file of labelled examples (`example.v1`) and queue its reading. Raises InvalidInput."""
    require_admin(user)
    size = upload.size
    if not size:
        raise InvalidInput(_("The file is empty. Choose a JSON Lines or CSV file with one example a row."))
    if size > settings.IMPORT_MAX_BYTES:
        limit = settings.IMPORT_MAX_BYTES // (1024 * 1024)
        raise InvalidInput(_("The file is larger than %(n)d MiB. Compress it with gzip or split it.") % {"n": limit})
    digest = hashlib.sha256()
    for chunk in upload.chunks():
        digest.update(chunk)
    upload.seek(0)
    with transaction.atomic():
        dataset = _dataset_new(task, user, name)
        dataset.source = DatasetSource.FILE
        dataset.file_name = PurePath(file_name).name[:200]
        dataset.file_sha256 = digest.hexdigest()
        dataset.file.save(f"{dataset.file_sha256[:16]}.examples", upload, save=False)
        dataset.save()
        data: dict[str, Json] = {"file": dataset.file_name, "sha256": dataset.file_sha256, "bytes": size}
        audit_record("dataset.uploaded", actor=user, subject=dataset, task_slug=task.slug, data=data)
        job_enqueue(kind=READ_JOB, subject_id=dataset.pk, key=f"{READ_JOB}:{dataset.pk}", created_by=user)
    return dataset


def dataset_read(dataset_id: int, lease: Lease) -> JobResult:
    """Read an uploaded file as a whole: it is frozen, or refused with every line that stands in the way."""
    dataset = Dataset.objects.select_related("task").get(pk=dataset_id)
    if dataset.is_finished:
        return JobResult.DONE
    try:
        problems = _Reading(dataset, lease).run()
    except FileNotFoundError:
        problems = [{"line": 0, "reason": "file gone", "message": "The uploaded file is gone. Upload it again."}]
    if problems:
        dataset_refuse(dataset_id, problems)
    return JobResult.DONE


@transaction.atomic
def dataset_refuse(dataset_id: int, problems: list[dict[str, Any]]) -> None:
    """Close a dataset that cannot be used, with what stands in the way of it."""
    dataset = Dataset.objects.select_for_update(of=("self",)).select_related("task").get(pk=dataset_id)
    if dataset.is_finished:
        return
    dataset.state = DatasetState.REFUSED
    dataset.problems = problems[:SHOWN_PROBLEMS]
    dataset.save(update_fields=["state", "problems"])
    first = str(problems[0]["message"]) if problems else ""
    data: dict[str, Json] = {"problems": len(problems), "first": first}
    audit_record("dataset.refused", actor=None, subject=dataset, task_slug=dataset.task.slug, data=data)


def dataset_read_failed(dataset_id: int, error: str) -> None:
    """The job was given up: say so on the dataset."""
    dataset_refuse(dataset_id, [{"line": 0, "reason": "stopped", "message": f"Reading stopped: {error}"[:300]}])


class _Refused(Exception):
    """Undoes what was written of a file that is refused."""


class _Reading:
    """One pass over a file: examples are written in the one transaction that also freezes them, or none are."""

    def __init__(self, dataset: Dataset, lease: Lease) -> None:
        self.dataset = dataset
        self.lease = lease
        self.rows: list[DatasetRow] = []
        self.problems: list[dict[str, Any]] = []
        self.place_of: dict[str, tuple[str, int]] = {}

    def run(self) -> list[dict[str, Any]]:
        """What stands in the way; empty when the dataset is frozen."""
        try:
            with transaction.atomic():
                for batch in batched(self._examples(), BATCH):
                    Example.objects.bulk_create(batch)
                if not self.problems and not self.rows:
                    self._problem(0, "no rows", "The file has no rows.")
                if self.problems:
                    raise _Refused
                self.lease.check()
                dataset = Dataset.objects.select_for_update(of=("self",)).get(pk=self.dataset.pk)
                _dataset_freeze(dataset, self.rows, dataset.created_by)
        except _Refused:
            pass
        return self.problems

    def _examples(self) -> Iterator[Example]:
        task = self.dataset.task
        with self.dataset.file.open("rb") as stream:
            try:
                outcomes = read_trace_file(
                    stream,
                    labels=task.labels,
                    input_fields=task.input_fields,
                    max_bytes=4 * settings.IMPORT_MAX_BYTES,
                )
                for outcome in outcomes:
                    if isinstance(outcome, Rejected):
                        self._problem(outcome.line, outcome.reason, outcome.message)
                    elif (example := self._example(outcome)) is not None:
                        yield example
            except UnreadableFile as unreadable:
                self._problem(0, "unreadable file", str(unreadable))

    def _example(self, accepted: Accepted) -> Example | None:
        row = accepted.row
        if "split" not in row.model_fields_set:
            self._problem(accepted.line, "no split", "Say train, validation or test in split.")
            return None
        if len(self.rows) >= settings.IMPORT_MAX_ROWS:
            if len(self.rows) == settings.IMPORT_MAX_ROWS:
                self._problem(accepted.line, "too many", f"The file has more than {settings.IMPORT_MAX_ROWS} rows.")
            return None
        hashed = DatasetRow(row.id, row.split, row.label, input_hash(row.input))
        split, line = self.place_of.setdefault(hashed.input_sha256, (row.split, accepted.line))
        if split != row.split:
            text = f"The same input stands on line {line} in {split}. An example belongs to one split: take one out."
            self._problem(accepted.line, "in two splits", text)
            return None
        self.rows.append(hashed)
        return Example(
            dataset=self.dataset,
            position=len(self.rows),
            external_id=row.id,
            split=row.split,
            input=row.input,
            label=row.label,
            teacher_label=_teacher_label(self.dataset.task, row.metadata),
            input_sha256=hashed.input_sha256,
        )

    def _problem(self, line: int, reason: str, message: str) -> None:
        self.problems.append({"line": line, "reason": reason, "message": message[:300]})


def _dataset_new(task: Task, user: User | None, name: str) -> Dataset:
    # Numbers have no gaps and no doubles: one dataset at a time is numbered.
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    number = 1 + (task.datasets.aggregate(last=Max("number"))["last"] or 0)
    name = name.strip()
    if not name or len(name) > MAX_NAME or hidden_in(name):
        text = _("Give the dataset a name of at most %(n)d characters, without invisible ones.")
        raise InvalidInput(text % {"n": MAX_NAME})
    if task.datasets.filter(name=name).exists():
        raise InvalidInput(_("This task has a dataset of that name already. Choose another name."))
    return Dataset(task=task, number=number, name=name, created_by=user)


def _copy_traces(dataset: Dataset, rows: list[_Taken]) -> None:
    with connection.cursor() as cursor:
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            positions = list(range(start + 1, start + len(part) + 1))
            columns: list[list[Any]] = [
                [taken.trace_id for taken in part],
                [taken.row.input_sha256 for taken in part],
                [taken.teacher_label for taken in part],
            ]
            cursor.execute(_COPY, [dataset.pk, positions, *columns])


def _dataset_freeze(dataset: Dataset, rows: Iterable[DatasetRow], user: User | None) -> None:
    counts: dict[str, Counter[str]] = {}

    def counted() -> Iterator[DatasetRow]:
        for row in rows:
            counts.setdefault(row.split, Counter())[row.label] += 1
            yield row

    dataset.sha256 = dataset_hash(counted())
    dataset.counts = {split: dict(sorted(counter.items())) for split, counter in sorted(counts.items())}
    dataset.state = DatasetState.FROZEN
    dataset.frozen_at = timezone.now()
    dataset.save(update_fields=["sha256", "counts", "state", "frozen_at"])
    sizes: dict[str, Json] = {split: sum(counter.values()) for split, counter in counts.items()}
    data: dict[str, Json] = {"name": dataset.name, "sha256": dataset.sha256, "left_out": dataset.left_out, "n": sizes}
    audit_record("dataset.frozen", actor=user, subject=dataset, task_slug=dataset.task.slug, data=data)
    job_enqueue(kind=CHECK_JOB, subject_id=dataset.pk, key=f"{CHECK_JOB}:{dataset.pk}", created_by=user)


def _teacher_label(task: Task, metadata: dict[str, Any]) -> str:
    said = metadata.get(TEACHER_LABEL)
    return said if isinstance(said, str) and said in task.labels else ""


def _overlap_words(pairs: list[tuple[str, str]]) -> str:
    text = _("The same input stands in two splits %(n)d times. The first: %(pairs)s.")
    return text % {"n": len(pairs), "pairs": "; ".join(f"{one} and {other}" for one, other in pairs[:5])}
