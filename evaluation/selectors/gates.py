"""What evaluation tells `rules` about gates: datasets they can be about, verdicts with a link, and changed evidence."""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from evaluation.models import DatasetState, EvaluationRun, PromptKind
from pld_app.models import AuditEvent
from rules.hooks import Change, DatasetOffer, Verdict
from rules.models import Ruleset, RunState, Task
from rules.selectors.gates import standing


def datasets_for_gates(task: Task) -> Iterator[DatasetOffer]:
    """Frozen datasets with examples held out, newest first."""
    for dataset in task.datasets.filter(state=DatasetState.FROZEN).order_by("-pk"):
        if dataset.size("validation") or dataset.size("test"):
            yield DatasetOffer(str(dataset), dataset.sha256, dataset.counts)


def ruleset_verdicts(ruleset: Ruleset) -> Iterator[Verdict]:
    """Each gate in force with what the newest verdict says, and a link to its run."""
    how = standing(ruleset)
    if how is None:
        return
    found = how.verdict
    url = reverse("evaluation-detail", args=[ruleset.task.slug, found.run_number]) if found else ""
    for row in how.rows:
        yield Verdict(
            gate=row.words,
            passed=row.outcome == "passed",
            why=row.why,
            url=url,
            is_shown=row.outcome != "not_shown",
            threshold=row.threshold,
            value=row.value,
            low=row.low,
            high=row.high,
            student=(found.models_returned or found.student_model) if found else "",
            split=found.get_split_display() if found else "",
            n=found.n if found else 0,
        )


def changes_since(ruleset: Ruleset, since: datetime) -> Iterator[Change]:
    """New evaluations of the ruleset, new datasets, and another model at the student's or the teacher's endpoint."""
    yield from _new_runs(ruleset, since)
    for dataset in ruleset.task.datasets.filter(state=DatasetState.FROZEN, frozen_at__gt=since):
        url = reverse("evaluation-dataset", args=[ruleset.task.slug, dataset.number])
        words = _("Dataset %(n)d (%(name)s) was frozen.") % {"n": dataset.number, "name": dataset}
        assert dataset.frozen_at is not None
        yield Change(f"dataset:{dataset.number}", words, dataset.frozen_at, url)
    yield from _new_models(ruleset, since)


def _new_runs(ruleset: Ruleset, since: datetime) -> Iterator[Change]:
    runs = EvaluationRun.objects.filter(
        Q(kind=PromptKind.RELEASE, release__ruleset=ruleset) | Q(kind=PromptKind.DRAFT, ruleset=ruleset),
        state=RunState.SUCCEEDED,
        finished_at__gt=since,
    )
    found = list(runs.order_by("finished_at").values_list("number", "finished_at"))
    if found:
        number, finished_at = found[-1]
        assert finished_at is not None
        url = reverse("evaluation-detail", args=[ruleset.task.slug, number])
        words = ngettext(
            "Evaluated again as evaluation %(number)d.",
            "Evaluated again %(n)d times, last as evaluation %(number)d.",
            len(found),
        )
        yield Change("evaluated", words % {"n": len(found), "number": number}, finished_at, url)


def _new_models(ruleset: Ruleset, since: datetime) -> Iterator[Change]:
    """From the audit log, which knows when an endpoint's model, or a task's endpoint, became another one."""
    task = ruleset.task
    roles = {str(task.student_id): _("student"), str(task.teacher_id): _("teacher")}
    other_model = Q(
        object_type="modelendpoint",
        object_id__in=[key for key in roles if key != "None"],
        action="endpoint.changed",
        data__fields__contains=["model"],
    )
    other_endpoint = Q(object_type="task", object_id=str(task.pk), action="task.changed") & (
        Q(data__fields__contains=["student"]) | Q(data__fields__contains=["teacher"])
    )
    for event in AuditEvent.objects.filter(other_model | other_endpoint, at__gt=since).order_by("pk"):
        if event.object_type == "task":
            words = _("The task was given another endpoint for its student or teacher.")
        else:
            names = {"role": roles[event.object_id], "model": event.data.get("model") or "?"}
            words = _("The model of the %(role)s became %(model)s.") % names
        yield Change(f"model:{event.pk}", words, event.at, "")
