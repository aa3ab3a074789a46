"""Importing trace files: the upload is recorded at once, its rows are read by a job."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import PurePath

from django.conf import settings
from django.core.files import File
from django.db import connection, transaction
from django.utils import timezone

from pld_app.audit import Json, audit_record
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, job_enqueue, job_execute
from pld_app.models import Job, JobState, User
from rules.limits import MAX_STORED_REJECTS
from rules.models import ImportReject, ImportState, Task, Trace, TraceImport
from rules.schemas import TraceRow
from rules.trace_files import Accepted, Outcome, Rejected, UnreadableFile, read_trace_file

BATCH = 500
BATCH_CHARS = 4 * 1024 * 1024  # what a batch of long rows may hold in memory
JOB_KIND = "trace_import"
POLL_S = 0.5  # how often a command looks whether the worker it waits for is done

type Watch = Callable[[TraceImport], None]


def import_create(*, task: Task, upload: "File[bytes]", file_name: str, user: User | None) -> TraceImport:
    """Keep the uploaded file and queue its reading. Raises InvalidInput for an empty or too large file."""
    size = upload.size
    if not size:
        raise InvalidInput("The file is empty. Choose a JSON Lines or CSV file with one trace a row.")
    if size > settings.IMPORT_MAX_BYTES:
        limit = settings.IMPORT_MAX_BYTES // (1024 * 1024)
        raise InvalidInput(f"The file is larger than {limit} MiB. Compress it with gzip or split it.")
    digest = hashlib.sha256()
    for chunk in upload.chunks():
        digest.update(chunk)
    upload.seek(0)
    with transaction.atomic():
        trace_import = TraceImport(
            task=task,
            file_name=PurePath(file_name).name[:200],
            file_sha256=digest.hexdigest(),
            file_bytes=size,
            created_by=user,
        )
        trace_import.file.save(f"{digest.hexdigest()[:16]}.traces", upload, save=False)
        trace_import.save()
        data: dict[str, Json] = {"file": trace_import.file_name, "sha256": trace_import.file_sha256, "bytes": size}
        audit_record("import.created", actor=user, subject=trace_import, task_slug=task.slug, data=data)
        job_enqueue(kind=JOB_KIND, subject_id=trace_import.pk, key=f"{JOB_KIND}:{trace_import.pk}", created_by=user)
    return trace_import


def import_execute(import_id: int, lease: Lease, watch: Watch | None = None) -> JobResult:
    """Read the file from its start; rows taken before a crash are recognised by their content.

    `watch` is told after each batch.
    """
    trace_import = TraceImport.objects.select_related("task").get(pk=import_id)
    if trace_import.is_finished:
        return JobResult.DONE
    _import_restart(trace_import, lease)
    state, error = ImportState.FAILED, ""
    try:
        _import_read(trace_import, lease, watch)
        state = ImportState.SUCCEEDED
    except UnreadableFile as unreadable:
        error = str(unreadable)
    except FileNotFoundError:
        error = "The uploaded file is gone. Upload it again."
    with transaction.atomic():
        lease.check()
        _import_finish(trace_import, state, error)
    return JobResult.DONE


def import_read_now(trace_import: TraceImport, *, watch: Watch) -> TraceImport:
    """Read a queued import in this process, as a command does; a worker that was faster is waited for.

    Ends at once when the reading failed in a way that a worker will try again.
    """
    job = Job.objects.get(kind=JOB_KIND, subject_id=trace_import.pk)
    read = partial(job_execute, job_id=job.pk, run=partial(import_execute, watch=watch))
    read()
    while Job.objects.filter(pk=job.pk, state=JobState.RUNNING).exists():
        time.sleep(POLL_S)
        trace_import.refresh_from_db()
        watch(trace_import)
        read()  # claims nothing, unless the worker died and its lease has lapsed
    trace_import.refresh_from_db()
    return trace_import


def import_failed(import_id: int, error: str) -> None:
    """The job was given up: say so on the import, unless it had come to its end before its worker did."""
    with transaction.atomic():
        trace_import = TraceImport.objects.select_for_update(of=("self",)).select_related("task").get(pk=import_id)
        if not trace_import.is_finished:
            _import_finish(trace_import, ImportState.FAILED, f"Reading stopped: {error}")


def _import_restart(trace_import: TraceImport, lease: Lease) -> None:
    with transaction.atomic():
        lease.check()
        trace_import.rejects.all().delete()
        trace_import.state = ImportState.RUNNING
        trace_import.bytes_read = trace_import.rows_new = trace_import.rows_unchanged = trace_import.rows_rejected = 0
        trace_import.save(update_fields=["state", "bytes_read", "rows_new", "rows_unchanged", "rows_rejected"])


def _import_read(trace_import: TraceImport, lease: Lease, watch: Watch | None) -> None:
    task, rows = trace_import.task, 0
    with trace_import.file.open("rb") as stream:
        outcomes = read_trace_file(
            stream, labels=task.labels, input_fields=task.input_fields, max_bytes=4 * settings.IMPORT_MAX_BYTES
        )
        for batch in _batches(outcomes):
            rows += len(batch)
            if rows > settings.IMPORT_MAX_ROWS:
                raise UnreadableFile(f"The file has more than {settings.IMPORT_MAX_ROWS} rows. Split it.")
            _batch_write(trace_import, batch, position=min(stream.tell(), trace_import.file_bytes), lease=lease)
            if watch is not None:
                watch(trace_import)


def _batches(outcomes: Iterable[Outcome]) -> Iterator[list[Outcome]]:
    """Outcomes in batches of bounded size; when the file breaks off, those before the break come first."""
    batch: list[Outcome] = []
    chars = 0
    try:
        for outcome in outcomes:
            batch.append(outcome)
            chars += _chars(outcome)
            if len(batch) >= BATCH or chars >= BATCH_CHARS:
                yield batch
                batch, chars = [], 0
    except UnreadableFile:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _chars(outcome: Outcome) -> int:
    if isinstance(outcome, Rejected):
        return len(outcome.excerpt)
    row = outcome.row
    texts = (*row.input.values(), row.rationale, row.instruction, *(str(value) for value in row.metadata.values()))
    return sum(len(text) for text in texts)


def _batch_write(trace_import: TraceImport, batch: Sequence[Outcome], *, position: int, lease: Lease) -> None:
    accepted = [outcome for outcome in batch if isinstance(outcome, Accepted)]
    rejected = [outcome for outcome in batch if isinstance(outcome, Rejected)]
    with transaction.atomic():
        lease.check()
        # Two imports into one task take turns, so that an id is judged against what is really there.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('trace_import'), %s)", [trace_import.task_id])
        clashes = _rows_write(trace_import, accepted)
        rejected += clashes
        _rejects_write(trace_import, rejected)
        trace_import.rows_rejected += len(rejected)
        trace_import.bytes_read = position
        trace_import.save(update_fields=["bytes_read", "rows_new", "rows_unchanged", "rows_rejected"])
    lease.progressed()


def _rows_write(trace_import: TraceImport, accepted: Sequence[Accepted]) -> list[Rejected]:
    """Insert what is new, count what is known, and return the rows whose id stands for other content."""
    hashes = {outcome.row.id: content_hash(outcome.row) for outcome in accepted}
    known = {
        external_id: (hash_, import_id)
        for external_id, hash_, import_id in Trace.objects.filter(
            task_id=trace_import.task_id, external_id__in=hashes
        ).values_list("external_id", "content_hash", "first_import_id")
    }
    fresh = [outcome.row for outcome in accepted if outcome.row.id not in known]
    Trace.objects.bulk_create([_trace(trace_import, row, hashes[row.id]) for row in fresh])
    clashes = []
    for outcome in accepted:
        hash_, import_id = known.get(outcome.row.id, (hashes[outcome.row.id], trace_import.pk))
        if hash_ != hashes[outcome.row.id]:
            message = "A trace with this id but other content is there already. Give the new one its own id."
            clashes.append(Rejected(outcome.line, "id taken", message, outcome.row.id[:200]))
        elif import_id == trace_import.pk:
            trace_import.rows_new += 1
        else:
            trace_import.rows_unchanged += 1
    return clashes


def content_hash(row: TraceRow) -> str:
    """SHA-256 of the canonical row: the same trace imported twice has the same hash."""
    return sha256_hex(canonical_json(row.model_dump()))


def _trace(trace_import: TraceImport, row: TraceRow, hash_: str) -> Trace:
    return Trace(
        task_id=trace_import.task_id,
        external_id=row.id,
        input=row.input,
        label=row.label,
        rationale=row.rationale,
        instruction=row.instruction,
        teacher=row.teacher,
        split=row.split,
        metadata=row.metadata,
        content_hash=hash_,
        first_import=trace_import,
    )


def _rejects_write(trace_import: TraceImport, rejected: Iterable[Rejected]) -> None:
    room = MAX_STORED_REJECTS - trace_import.rows_rejected
    rows = [
        ImportReject(
            trace_import=trace_import, line=one.line, reason=one.reason, message=one.message, excerpt=one.excerpt
        )
        for one in list(rejected)[: max(room, 0)]
    ]
    ImportReject.objects.bulk_create(rows)


def _import_finish(trace_import: TraceImport, state: ImportState, error: str) -> None:
    """Set the outcome, in the caller's transaction."""
    trace_import.state = state
    trace_import.error = error
    trace_import.finished_at = timezone.now()
    fields = ["state", "error", "finished_at"]
    if state == ImportState.SUCCEEDED:
        trace_import.bytes_read = trace_import.file_bytes
        fields.append("bytes_read")
    trace_import.save(update_fields=fields)
    data: dict[str, Json] = {
        "state": state,
        "new": trace_import.rows_new,
        "unchanged": trace_import.rows_unchanged,
        "rejected": trace_import.rows_rejected,
        "error": error,
    }
    audit_record("import.finished", actor=None, subject=trace_import, task_slug=trace_import.task.slug, data=data)
