"""Runs side by side: figures as they are, and answer by answer where two runs asked about the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from evaluation.figures import BarRun, BarsFigure, bars_figure
from evaluation.metrics import LabelScore, PairedComparison, compare_runs
from evaluation.models import EvaluationRun, Prediction, PromptKind
from evaluation.schemas import RunFigures
from evaluation.selectors import figures_of, source_of
from rules.models import Task, Trace

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

    trace: Trace
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
    labels: tuple[LabelRow, ...]
    pairs: tuple[Pair, ...]


def comparison(task: Task, runs: Sequence[EvaluationRun]) -> Comparison | None:
    """Compare runs that have figures; None when there are none. Reads the predictions of each run once."""
    compared = [ComparedRun(run, figures) for run in runs if (figures := figures_of(run)) is not None]
    if not compared:
        return None
    return Comparison(
        runs=tuple(compared),
        bars=_bars(compared),
        labels=tuple(_label_row(index, label, compared) for index, label in enumerate(task.labels)),
        pairs=_pairs([one.run for one in compared]),
    )


def _bars(compared: Sequence[ComparedRun]) -> BarsFigure:
    bars = [
        BarRun(
            source=source_of(one.run),
            macro_f1=one.figures.metrics.macro_f1,
            interval=one.figures.metrics.macro_f1_interval,
            is_baseline=one.run.kind == PromptKind.ZERO_SHOT,
        )
        for one in compared
    ]
    return bars_figure(bars, figure_id="bars")


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


type _Answers = dict[int, dict[int, tuple[str, str]]]
"""Gold and predicted label by run and trace."""


def _answers(runs: Sequence[EvaluationRun]) -> _Answers:
    found: _Answers = {run.pk: {} for run in runs}
    rows = Prediction.objects.filter(run__in=[run.pk for run in runs]).order_by("trace_id")
    for run, trace, gold, label in rows.values_list("run_id", "trace_id", "gold", "label"):
        found[run][trace] = (gold, label)
    return found


def _pair(before: EvaluationRun, after: EvaluationRun, answers: _Answers) -> Pair:
    why_not = _why_not(before, after)
    if why_not:
        return Pair(before, after, None, why_not, (), ())
    old, new = answers[before.pk], answers[after.pk]
    gold = [truth for truth, _label in old.values()]
    paired = compare_runs(gold, [label or None for _, label in old.values()], [new[t][1] or None for t in old])
    fixed = [t for t, (truth, label) in old.items() if label != truth == new[t][1]]
    broken = [t for t, (truth, label) in old.items() if label == truth != new[t][1]]
    return Pair(before, after, paired, "", _changed(fixed, old, new), _changed(broken, old, new))


def _changed(
    trace_ids: Sequence[int], old: dict[int, tuple[str, str]], new: dict[int, tuple[str, str]]
) -> tuple[Changed, ...]:
    """The first examples, with their text."""
    shown = list(trace_ids[:EXAMPLES_SHOWN])
    traces = Trace.objects.only("external_id", "input", "label").in_bulk(shown) if shown else {}
    return tuple(Changed(traces[t], old[t][0], old[t][1], new[t][1]) for t in shown)
