"""Ablations as their pages and files show them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Count, Q, QuerySet
from django.http import Http404

from evaluation.figures import Source
from evaluation.figures_ablation import AblationFigure, LeftOut, ablation_figure
from evaluation.models import WITH_INSTRUCTIONS, Ablation, AblationItem, EvaluationRun, Example
from evaluation.schemas import AblationFigures, Flip
from evaluation.selectors.runs import run_list
from rules.models import RunState, Task
from rules.selectors.impacts import CHANGED, standing_of
from rules.suggestions import no_flip_bound

FLIPS_SHOWN = 10
DRAWN = 40


@dataclass(frozen=True)
class ShownFlip:
    flip: Flip
    example: Example


@dataclass(frozen=True)
class AblationRow:
    """One instruction; `figures` None: not measured. `changed`: in words, what has changed since."""

    item: AblationItem
    label_index: int | None
    figures: AblationFigures | None
    flips: tuple[ShownFlip, ...]
    changed: tuple[str, ...]

    @property
    def bound_percent(self) -> str:
        """Where no answer changed: the most that could, in percent, at 95% confidence."""
        return f"{100 * no_flip_bound(self.figures.paired.n):.1f}" if self.figures and self.figures.paired else ""


@dataclass(frozen=True)
class AblationTable:
    """`measured` in the order asked for; `waiting` are still to be measured, `left` never will be."""

    measured: tuple[AblationRow, ...]
    waiting: tuple[AblationRow, ...]
    left: tuple[AblationRow, ...]
    figure: AblationFigure | None
    source: Source

    @property
    def idle(self) -> list[AblationRow]:
        """Rows whose absence changed no answer."""
        return [row for row in self.measured if row.figures and row.figures.paired and not row.figures.flipped]


SORTS = {
    "position": lambda row: row.item.position,
    "flipped": lambda row: (-row.figures.flipped, row.item.position),
    "broken": lambda row: (-(row.figures.paired.broken if row.figures.paired else 0), row.item.position),
    "fixed": lambda row: (-(row.figures.paired.fixed if row.figures.paired else 0), row.item.position),
    "change": lambda row: (row.figures.paired.macro_f1_change if row.figures.paired else 0.0, row.item.position),
}
"""Orders of the table of measured rows; every one but the first begins with what matters most."""


def ablation_list(task: Task) -> QuerySet[Ablation]:
    """The ablations of a task, newest first, with `measured` and `chosen`, the numbers of instructions."""
    return (
        task.ablations.select_related("run__ruleset", "run__release", "created_by")
        .defer("run__prompt", "run__ruleset__prompt", "run__ruleset__manifest", "run__release__prompt")
        .annotate(
            chosen=Count("items", filter=Q(items__rank__isnull=False)),
            measured=Count("items", filter=Q(items__result__isnull=False)),
        )
        .order_by("-pk")
    )


def ablation_get(slug: str, number: int) -> Ablation:
    related = ("task__student", "run__ruleset", "run__release", "run__dataset", "ruleset", "created_by")
    found = Ablation.objects.select_related(*related).filter(task__slug=slug, number=number).first()
    if found is None:
        raise Http404
    return found


def ablatable_runs(task: Task) -> QuerySet[EvaluationRun]:
    """Finished runs of a ruleset or release, newest first."""
    return run_list(task).filter(kind__in=sorted(WITH_INSTRUCTIONS), state=RunState.SUCCEEDED)


def ablation_table(ablation: Ablation, sort: str = "position") -> AblationTable:
    """All instructions of the prompt. A fixed number of queries, however many there are."""
    related = ("instruction", "revision", "result__impact")
    items = list(ablation.items.select_related(*related).order_by("position"))
    found = {item.pk: _figures(item) for item in items}
    texts = _texts(figures for figures in found.values() if figures is not None)
    standing = standing_of(ablation.task)

    def row(item: AblationItem) -> AblationRow:
        figures = found[item.pk]
        labels = ablation.run.labels
        impact = item.result.impact if figures is not None else None
        changed = standing.changed_since(impact, item.instruction.current_revision_id) if impact else []
        return AblationRow(
            item=item,
            label_index=labels.index(item.instruction.label) if item.instruction.label in labels else None,
            figures=figures,
            flips=tuple(
                ShownFlip(flip, texts[flip.example]) for flip in (figures.flips[:FLIPS_SHOWN] if figures else ())
            ),
            changed=tuple(str(CHANGED[key]) for key in changed),
        )

    rows = [row(item) for item in items]
    measured = sorted((one for one in rows if one.figures is not None), key=SORTS.get(sort, SORTS["position"]))
    to_come = [one for one in rows if one.figures is None]
    run = ablation.run
    source = Source(prompt=run.prompt_name, student=run.student_name, split=run.split, n=run.n)
    return AblationTable(
        measured=tuple(measured),
        waiting=tuple(one for one in to_come if one.item.rank is not None and not ablation.is_final),
        left=tuple(one for one in to_come if one.item.rank is None or ablation.is_final),
        figure=_figure(measured, source),
        source=source,
    )


def _figures(item: AblationItem) -> AblationFigures | None:
    result = getattr(item, "result", None)
    return None if result is None else AblationFigures.model_validate(result.figures)


def _texts(every: Iterable[AblationFigures]) -> dict[int, Example]:
    """The examples whose change is shown, with their texts."""
    keys = {flip.example for figures in every for flip in figures.flips[:FLIPS_SHOWN]}
    return Example.objects.only("external_id", "input").in_bulk(keys) if keys else {}


def _figure(measured: Sequence[AblationRow], source: Source) -> AblationFigure | None:
    """The picture of those with the most change, at most DRAWN of them; None where there is nothing to draw."""
    drawable = [(row, row.figures.paired) for row in measured if row.figures and row.figures.paired]
    shown = sorted(drawable, key=lambda one: (-(one[1].fixed + one[1].broken), one[0].item.position))[:DRAWN]
    if not shown:
        return None
    bars = [
        LeftOut(
            name=f"#{row.item.instruction.number}",
            fixed=paired.fixed,
            broken=paired.broken,
            low=paired.accuracy_change_interval.low * paired.n,
            high=paired.accuracy_change_interval.high * paired.n,
            n=paired.n,
        )
        for row, paired in shown
    ]
    return ablation_figure(bars, source, of=len(drawable), figure_id="ablation")
