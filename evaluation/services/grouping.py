"""From a measured round to groups: which failures, beside which successes, speak of which instruction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import batched

from evaluation.attribution import Answered, Placed, Witness, attribute, measured_first
from evaluation.models import (
    AblationResult,
    CaseBasis,
    Example,
    ResolutionCase,
    ResolutionGroup,
    ResolutionRound,
)
from evaluation.schemas import AblationFigures
from rules.models import Evidence, EvidenceRole, Instruction, Revision

# A few of an instruction's traces tell what it is about; the cited ones come first.
WITNESSES = 12
BATCH = 500


@dataclass
class Group:
    """What will be a ResolutionGroup; `cases` hold (example key, what was said, where it was placed)."""

    instruction: Instruction | None
    revision_id: int | None
    label: str
    cases: list[tuple[int, str, Placed]] = field(default_factory=list)

    @property
    def failures(self) -> int:
        return sum(placed.role != "right" for *_, placed in self.cases)


@dataclass(frozen=True)
class Grouped:
    """Groups with at least one failure, the most failures first, and the witnesses their cases name."""

    groups: list[Group]
    witnesses: Sequence[Witness]


def groups_find(round_: ResolutionRound) -> Grouped:
    """Look through the answers of the round's run. Slow for thousands, so it is done before the transaction."""
    task = round_.loop.task
    owners = _owners(round_)
    witnesses = list(_witnesses(owners, task.input_fields))
    predictions = list(
        round_.run.predictions.filter(repeat=0).order_by("example_id").values_list("example_id", "gold", "label")
    )
    texts = _texts([example for example, *_ in predictions], task.input_fields)
    answered = [
        Answered(text, gold, said or None) for (_example, gold, said), text in zip(predictions, texts, strict=True)
    ]
    placed = attribute(witnesses, [instruction.label for instruction, _ in owners], answered)
    placed = measured_first(placed, answered, _flips(round_, owners, predictions))
    groups = [Group(instruction, revision.pk, instruction.label) for instruction, revision in owners]
    uncovered = {label: Group(None, None, label) for label in task.labels}
    for one in placed:
        example, gold, said = predictions[one.example]
        group = uncovered[gold] if one.owner is None else groups[one.owner]
        group.cases.append((example, said, one))
    found = [group for group in (*groups, *uncovered.values()) if group.failures]
    return Grouped(sorted(found, key=lambda group: -group.failures), witnesses)


def _owners(round_: ResolutionRound) -> list[tuple[Instruction, Revision]]:
    """The instructions of the round's prompt with the very texts it held."""
    instructions = Instruction.objects.in_bulk([instruction for instruction, _ in round_.items])
    revisions = Revision.objects.in_bulk([revision for _, revision in round_.items])
    return [(instructions[instruction], revisions[revision]) for instruction, revision in round_.items]


def _flips(
    round_: ResolutionRound,
    owners: Sequence[tuple[Instruction, Revision]],
    predictions: Sequence[tuple[int, str, str]],
) -> dict[int, list[int]]:
    """By place of the prediction, the owners whose instruction decided the answer, as ablations of this run found.

    Without that instruction the answer was another, and the answer is the label it gives.
    """
    place_of = {example: place for place, (example, *_) in enumerate(predictions)}
    owner_of = {revision.pk: owner for owner, (_, revision) in enumerate(owners)}
    results = AblationResult.objects.filter(item__ablation__run=round_.run, item__revision__in=owner_of)
    found: dict[int, list[int]] = {}
    for revision, figures in results.values_list("item__revision", "figures"):
        owner = owner_of[revision]
        for flip in AblationFigures.model_validate(figures).flips:
            if flip.before == owners[owner][0].label and flip.example in place_of:
                found.setdefault(place_of[flip.example], []).append(owner)
    return found


def _witnesses(owners: Sequence[tuple[Instruction, Revision]], fields: Sequence[str]) -> Iterator[Witness]:
    place_of = {instruction.pk: place for place, (instruction, _) in enumerate(owners)}
    for place, (_instruction, revision) in enumerate(owners):
        yield Witness(place, revision.text, None)
    rows = Evidence.objects.filter(
        instruction__in=place_of, role=EvidenceRole.SUPPORTING, rank__lte=WITNESSES
    ).select_related("trace")
    for row in rows.order_by("instruction", "-is_cited", "rank").iterator(chunk_size=BATCH):
        yield Witness(place_of[row.instruction_id], _joined(row.trace.input, fields), row.trace_id)


def _texts(keys: Sequence[int], fields: Sequence[str]) -> list[str]:
    texts: list[str] = []
    for part in batched(keys, BATCH):
        inputs = Example.objects.only("input").in_bulk(part)
        texts += [_joined(inputs[key].input, fields) for key in part]
    return texts


def _joined(values: dict[str, str], fields: Sequence[str]) -> str:
    """The input fields in the task's order, a line each."""
    return "\n".join(str(values.get(field, "")) for field in fields)


def groups_write(round_: ResolutionRound, grouped: Grouped) -> list[ResolutionGroup]:
    """The rows of all groups, in the caller's transaction."""
    rows = ResolutionGroup.objects.bulk_create(
        ResolutionGroup(
            round=round_,
            number=number,
            instruction=group.instruction,
            revision_id=group.revision_id,
            label=group.label,
            failures=group.failures,
            successes=len(group.cases) - group.failures,
        )
        for number, group in enumerate(grouped.groups, 1)
    )
    cases = [
        case for row, group in zip(rows, grouped.groups, strict=True) for case in _cases(row, group, grouped.witnesses)
    ]
    ResolutionCase.objects.bulk_create(cases, batch_size=2000)
    return rows


def _cases(row: ResolutionGroup, group: Group, witnesses: Sequence[Witness]) -> Iterator[ResolutionCase]:
    ranks = {True: 0, False: 0}
    for example, said, placed in sorted(group.cases, key=lambda case: -case[2].score):
        is_failure = placed.role != "right"
        ranks[is_failure] += 1
        trace = None if placed.witness is None else witnesses[placed.witness].trace
        yield ResolutionCase(
            group=row,
            example_id=example,
            said=said,
            role=placed.role,
            basis=_basis(placed, trace),
            score=placed.score,
            trace_id=trace,
            rank=ranks[is_failure],
        )


def _basis(placed: Placed, trace: int | None) -> CaseBasis:
    if placed.owner is None:
        return CaseBasis.NOTHING
    if placed.witness is None:
        return CaseBasis.FLIP
    return CaseBasis.TRACE if trace else CaseBasis.WORDS
