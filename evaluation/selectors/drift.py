"""How a task's releases do over time, as the page Drift shows it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.db.models import QuerySet
from django.utils.translation import gettext as _

from evaluation.figures_series import LinePoint, LinesFigure, lines_figure
from evaluation.models import EvaluationRun, PromptKind, Reevaluation
from evaluation.schemas import RunFigures
from evaluation.selectors.runs import figures_of, run_list, source_of
from rules.models import RunState, Task

POINTS_SHOWN = 40


@dataclass(frozen=True)
class DriftPoint:
    """One finished run of a release over the whole split; `changed` names what is another than at the point before."""

    run: EvaluationRun
    figures: RunFigures
    cause: str
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Mark:
    """A dashed line before a point, where something became another one."""

    x: int
    number: int


@dataclass(frozen=True)
class DriftSeries:
    """One student endpoint and split, in the order of time. The line breaks where the examples are others."""

    student: str
    split: str
    points: tuple[DriftPoint, ...]
    figure: LinesFigure
    marks: tuple[Mark, ...]
    left_out: int


def drift_series(task: Task) -> list[DriftSeries]:
    """Every student and split that releases were evaluated with, the newest first; at most 40 points each."""
    runs = run_list(task).filter(kind=PromptKind.RELEASE, state=RunState.SUCCEEDED, sample_size=None)
    found: dict[tuple[int | None, str], list[EvaluationRun]] = {}
    for run in runs.select_related("student", "dataset", "release", "reevaluation").order_by("finished_at", "pk"):
        found.setdefault((run.student_id, run.split), []).append(run)
    newest_last = sorted(found.values(), key=lambda of_one: of_one[-1].pk, reverse=True)
    return [_series(place, of_one) for place, of_one in enumerate(newest_last)]


def _series(place: int, runs: Sequence[EvaluationRun]) -> DriftSeries:
    shown = runs[-POINTS_SHOWN:]
    points = tuple(_point(before, run) for before, run in zip([None, *shown], shown, strict=False))
    figure = lines_figure([_line_point(one) for one in points], figure_id=f"drift-{place}")
    figure = replace(figure, path=_path(figure, points))
    last = shown[-1]
    return DriftSeries(
        student=str(last.student or last.student_model),
        split=last.get_split_display(),
        points=points,
        figure=figure,
        marks=_marks(figure, points),
        left_out=len(runs) - len(shown),
    )


def _point(before: EvaluationRun | None, run: EvaluationRun) -> DriftPoint:
    figures = figures_of(run)
    assert figures is not None
    asked: Reevaluation | None = getattr(run, "reevaluation", None)
    cause = asked.get_cause_display() if asked else _("Evaluated by hand")
    return DriftPoint(run, figures, str(cause), tuple(_changed(before, run)) if before else ())


def _changed(before: EvaluationRun, run: EvaluationRun) -> list[str]:
    words = []
    if before.release_id != run.release_id:
        words.append(_("release %(old)s to %(new)s") % {"old": before.release, "new": run.release})
    if before.examples_sha256 != run.examples_sha256:
        words.append(_("dataset %(old)d to %(new)d") % {"old": before.dataset.number, "new": run.dataset.number})
    if before.student_name != run.student_name:
        words.append(_("model %(old)s to %(new)s") % {"old": before.student_name, "new": run.student_name})
    return words


def _line_point(point: DriftPoint) -> LinePoint:
    metrics = point.figures.metrics
    finished = point.run.finished_at
    name = f"{finished:%m-%d} {point.run.release}" if finished else str(point.run.release)
    return LinePoint(name, metrics.macro_f1, metrics.macro_f1_interval, source_of(point.run))


def _path(figure: LinesFigure, points: Sequence[DriftPoint]) -> str:
    """The line through the points, broken before one whose examples are others than those before."""
    if len(points) < 2:
        return ""
    steps = []
    for place, drawn in enumerate(figure.points):
        same = place and points[place].run.examples_sha256 == points[place - 1].run.examples_sha256
        steps.append(f"{'L' if same else 'M'}{drawn.x} {drawn.y}")
    return "".join(steps)


def _marks(figure: LinesFigure, points: Sequence[DriftPoint]) -> tuple[Mark, ...]:
    drawn = figure.points
    return tuple(
        Mark((drawn[place - 1].x + drawn[place].x) // 2, place + 1)
        for place, point in enumerate(points)
        if place and point.changed
    )


def reevaluations(task: Task) -> QuerySet[Reevaluation]:
    """Newest first, with run and release."""
    related = ("release", "run", "dataset", "created_by", "student")
    found = Reevaluation.objects.filter(release__task=task).select_related(*related)
    return found.defer("release__prompt", "run__prompt").order_by("-pk")
