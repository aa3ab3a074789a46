"""Figures of a ruleset for whoever signs it; registered with `rules.hooks`, since rules never imports evaluation."""

from collections.abc import Iterator

from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from evaluation.models import EvaluationRun
from evaluation.schemas import RunFigures
from rules.hooks import Figure
from rules.models import Ruleset, RunState


def ruleset_figures(ruleset: Ruleset) -> Iterator[Figure]:
    """The macro-F1 of the latest finished run for each student and split, of the ruleset as a draft or as its release.

    A run of another prompt than the frozen one (an earlier draft) is marked as older. One query.
    """
    runs = EvaluationRun.objects.filter(
        Q(ruleset=ruleset) | Q(release__ruleset=ruleset), state=RunState.SUCCEEDED
    ).select_related("task")
    seen: set[tuple[str, str]] = set()
    for run in runs.defer("prompt").order_by("-pk"):
        key = (run.student_name, run.split)
        if key in seen:
            continue
        seen.add(key)
        metrics = RunFigures.model_validate(run.figures).metrics
        yield Figure(
            name=_("Macro-F1"),
            value=metrics.macro_f1,
            low=metrics.macro_f1_interval.low,
            high=metrics.macro_f1_interval.high,
            student=run.student_name,
            split=run.split,
            n=run.n,
            url=reverse("evaluation-detail", args=[run.task.slug, run.number]),
            is_older=run.prompt_sha256 != ruleset.prompt_sha256,
        )
