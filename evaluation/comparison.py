"""Runs side by side: figures as they are, and answer by answer where two runs asked about the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from evaluation.figures import BarRun, BarsFigure, bars_figure
from evaluation.figures_series import LabelScores, LabelsFigure, labels_figure
from evaluation.metrics import LabelScore, PairedComparison, compare_runs
from evaluation.models import EvaluationRun, Example, Prediction
from evaluation.schemas import RunFigures
from evaluation.selectors.runs import figures_of, source_of
from rules.models import Task

MOST_RUNS = 4
EXAMPLES_SHOWN = 25


@dataclass(frozen=True)
class ComparedRun:
    run: EvaluationRun
    figures: RunFigures


@dataclass(frozen=True)
class LabelRow:
    """One label's scores: for each run in order, the run and its score."""

    label: str
    index: int
    by_run: tuple[tuple[ComparedRun, LabelScore], ...]


@dataclass(frozen=True)
class Changed:
    """An example that one run got right and the other wrong; an empty answer was not usable."""

    example: Example
    gold: str
    before: str
    after: str


@dataclass(frozen=True)
class Pair:
    """A run against the reference: `paired` None with the reason in `why_not` when their examples differ."""

    before: EvaluationRun
    after: EvaluationRun
    paired: PairedComparison | None
    why_not: str
    fixed: tuple[Changed, ...]
    broken: tuple[Changed, ...]


@dataclass(frozen=True)
class Comparison:
    """`runs` in the order asked for; the first one is the reference of every pair."""

    runs: tuple[ComparedRun, ...]
    bars: BarsFigure
    by_label: LabelsFigure
    labels: tuple[LabelRow, ...]
    pairs: tuple[Pair, ...]


def comparison(task: Task, runs: Sequence[EvaluationRun]) -> Comparison | None:
    """Compare runs that have figures; None when there are none. Reads the predictions of each run once."""
    compared = [ComparedRun(run, figures) for run in runs if (figures := figures_of(run)) is not None]
    if not compared:
        return None
    rows = tuple(_label_row(index, label, compared) for index, label in enumerate(task.labels))
    return Comparison(
        runs=tuple(compared),
        bars=bars_of(compared),
        by_label=_by_label(rows, compared),
        labels=rows,
        pairs=_pairs([one.run for one in compared]),
    )


def bars_of(compared: Sequence[ComparedRun]) -> BarsFigure:
    """The macro-F1 of each run as a bar; ValueError without runs."""
    bars = [
        BarRun(
            source=source_of(one.run),
            macro_f1=one.figures.metrics.macro_f1,
            interval=one.figures.metrics.macro_f1_interval,
            is_baseline=one.run.is_baseline,
        )
        for one in compared
    ]
    return bars_figure(bars, figure_id="bars")


def _by_label(rows: Sequence[LabelRow], compared: Sequence[ComparedRun]) -> LabelsFigure:
    runs = [
        LabelScores(
            name=_("Run %(n)d") % {"n": one.run.number},
            source=source_of(one.run),
            f1=tuple(row.by_run[place][1].f1 for row in rows),
            is_baseline=one.run.is_baseline,
        )
        for place, one in enumerate(compared)
    ]
    supports = [row.by_run[0][1].support for row in rows]
    return labels_figure([row.label for row in rows], supports, runs, figure_id="by-label")


def _label_row(index: int, label: str, compared: Sequence[ComparedRun]) -> LabelRow:
    absent = LabelScore(label=label, precision=0.0, recall=0.0, f1=None, support=0)
    scores = [{score.label: score for score in one.figures.metrics.by_label}.get(label, absent) for one in compared]
    return LabelRow(label, index, tuple(zip(compared, scores, strict=True)))


def _pairs(runs: Sequence[EvaluationRun]) -> tuple[Pair, ...]:
    reference, *others = runs
    comparable = [run for run in others if _why_not(reference, run) == ""]
    answers = _answers([reference, *comparable]) if comparable else {}
    return tuple(_pair(reference, run, answers) for run in others)


def _why_not(before: EvaluationRun, after: EvaluationRun) -> str:
    if before.split != after.split:
        return _("The two runs are over different splits, so their answers cannot be paired.")
    if before.examples_sha256 != after.examples_sha256:
        return _("The two runs asked about different examples, so their answers cannot be paired.")
    return ""


@dataclass(frozen=True)
class _Answers:
    """Gold and predicted labels of one run's first repetition, in the order of the examples, and their keys."""

    keys: tuple[int, ...]
    gold: tuple[str, ...]
    said: tuple[str, ...]


def _answers(runs: Sequence[EvaluationRun]) -> dict[int, _Answers]:
    """By run. Equal `examples_sha256` means equal examples in equal order, also when two datasets hold them."""
    rows: dict[int, list[tuple[int, str, str]]] = {run.pk: [] for run in runs}
    found = Prediction.objects.filter(run__in=[run.pk for run in runs], repeat=0).order_by("example_id")
    for run, example, gold, label in found.values_list("run_id", "example_id", "gold", "label"):
        rows[run].append((example, gold, label))
    return {run: _Answers(*(tuple(column) for column in zip(*of_run, strict=True))) for run, of_run in rows.items()}


def _pair(before: EvaluationRun, after: EvaluationRun, answers: dict[int, _Answers]) -> Pair:
    why_not = _why_not(before, after)
    if why_not:
        return Pair(before, after, None, why_not, (), ())
    old, new = answers[before.pk], answers[after.pk]
    paired = compare_runs(
        old.gold, [label or None for label in old.said], [label or None for label in new.said], seed=before.seed
    )
    rows = list(zip(old.keys, old.gold, old.said, new.said, strict=True))
    fixed = [row for row in rows if row[2] != row[1] == row[3]]
    broken = [row for row in rows if row[2] == row[1] != row[3]]
    return Pair(before, after, paired, "", _changed(fixed), _changed(broken))


def _changed(rows: Sequence[tuple[int, str, str, str]]) -> tuple[Changed, ...]:
    """The first examples, with their text."""
    shown = rows[:EXAMPLES_SHOWN]
    examples = Example.objects.only("external_id", "input", "label").in_bulk([row[0] for row in shown]) if shown else {}
    return tuple(Changed(examples[key], gold, before, after) for key, gold, before, after in shown)
