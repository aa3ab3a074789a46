"""A comparison as a page shows it: which student does how well with which prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import QuerySet
from django.http import Http404

from evaluation.comparison import ComparedRun, bars_of
from evaluation.figures import BarsFigure
from evaluation.figures_series import LinePoint, LinesFigure, lines_figure
from evaluation.models import EvaluationRun, PromptKind, RunGroup
from evaluation.schemas import RunFigures
from evaluation.selectors.runs import figures_of, run_list, source_of
from rules.models import Task


@dataclass(frozen=True)
class Cell:
    """One prompt with one student; None where this pair is not in the comparison."""

    run: EvaluationRun
    figures: RunFigures | None


@dataclass(frozen=True)
class PromptRow:
    """One prompt with every student, in the order of the columns."""

    name: str
    is_baseline: bool
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class GroupTable:
    """Prompts as rows, students as columns. `alone` are runs that asked no student: they hold for every column."""

    students: tuple[str, ...]
    rows: tuple[PromptRow, ...]
    alone: tuple[Cell, ...]
    bars: BarsFigure | None
    runs: tuple[EvaluationRun, ...]

    @property
    def open_runs(self) -> int:
        return sum(not run.is_final for run in self.runs)

    @property
    def done(self) -> int:
        return sum(run.done for run in self.runs)

    @property
    def total(self) -> int:
        return sum(run.total for run in self.runs)


def group_list(task: Task) -> QuerySet[RunGroup]:
    """The comparisons of a task, newest first."""
    return task.run_groups.select_related("created_by", "dataset", "release").defer("release__prompt")


def group_get(slug: str, number: int) -> RunGroup:
    related = ("task", "dataset", "release", "created_by")
    group = RunGroup.objects.select_related(*related).filter(task__slug=slug, number=number).first()
    if group is None:
        raise Http404
    return group


def group_table(group: RunGroup) -> GroupTable:
    """Every run of the comparison; of repeated pairs the newest."""
    runs = list(run_list(group.task).filter(group=group).order_by("number"))
    cells = [Cell(run, figures_of(run)) for run in runs]
    asked = [cell for cell in cells if cell.run.student_id is not None]
    students = tuple(dict.fromkeys(cell.run.student_model for cell in asked))
    by_pair = {(cell.run.prompt_sha256, cell.run.student_model): cell for cell in asked}
    rows = []
    for sha256 in dict.fromkeys(cell.run.prompt_sha256 for cell in asked):
        of_prompt = tuple(by_pair.get((sha256, student)) for student in students)
        first = next(cell for cell in of_prompt if cell is not None)
        rows.append(PromptRow(first.run.prompt_name, first.run.is_baseline, of_prompt))
    alone = tuple(cell for cell in cells if cell.run.student_id is None)
    return GroupTable(students, tuple(rows), alone, _bars(cells), tuple(runs))


def _bars(cells: Sequence[Cell]) -> BarsFigure | None:
    compared = [ComparedRun(cell.run, cell.figures) for cell in cells if cell.figures is not None]
    return bars_of(compared) if compared else None


@dataclass(frozen=True)
class ReleasePoint:
    """The newest finished run of one release, with its figures."""

    run: EvaluationRun
    figures: RunFigures


@dataclass(frozen=True)
class ReleaseSeries:
    """One student over one set of examples: its releases in order. Points of other examples do not belong together."""

    student: str
    split: str
    n: int
    points: tuple[ReleasePoint, ...]
    figure: LinesFigure


def release_series(task: Task) -> list[ReleaseSeries]:
    """Macro-F1 over releases: for each student and set of examples the newest run of each release, longest first."""
    runs = run_list(task).filter(kind=PromptKind.RELEASE, state="succeeded").order_by("pk")
    found: dict[tuple[str, str], dict[int, ReleasePoint]] = {}
    for run in runs:
        figures = figures_of(run)
        assert run.release is not None
        if figures is not None:
            series = found.setdefault((run.student_model, run.examples_sha256), {})
            series[run.release.version] = ReleasePoint(run, figures)
    made = []
    for place, points in enumerate(found.values()):
        ordered = tuple(points[version] for version in sorted(points))
        last = ordered[-1].run
        figure = lines_figure([_line_point(point) for point in ordered], figure_id=f"releases-{place}")
        made.append(ReleaseSeries(last.student_name, last.split, last.n, ordered, figure))
    return sorted(made, key=lambda one: (-len(one.points), -one.points[-1].run.pk))


def _line_point(point: ReleasePoint) -> LinePoint:
    metrics = point.figures.metrics
    return LinePoint(str(point.run.release), metrics.macro_f1, metrics.macro_f1_interval, source_of(point.run))
