"""The page before a bulk action: what will happen to each instruction, and why not to the others."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from pld_app.models import User
from rules.diff import Pair
from rules.hidden_text import Segment, readable, reveal
from rules.models import BatchAct, Evidence, EvidenceRole, Instruction, Task
from rules.selectors.bulk import (
    MAX_ROWS,
    TYPED_FROM,
    Reasons,
    assignable_reasons,
    decision_reasons,
    rows_numbered,
)
from rules.selectors.review import OPEN_EVIDENCE
from rules.selectors.review_compare import label_index, shown_diff
from rules.selectors.review_filter import ReviewFilter, view_rows
from rules.selectors.review_guard import evidence_is_asked, withheld_among
from rules.selectors.review_order import in_order
from rules.selectors.review_policy import policy_of

_CHARS = 220


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One instruction: why it stays as it is (empty: it does not), its text, and beside an opened card what differs."""

    instruction: Instruction
    why: str
    text: list[Segment]
    pairs: list[Pair]
    label_index: int | None
    is_withheld: bool


@dataclass(frozen=True, slots=True)
class BulkPreview:
    changed: list[PreviewRow]
    left: list[PreviewRow]

    @property
    def shown(self) -> dict[int, int]:
        return {row.instruction.number: row.instruction.version for row in self.changed}

    @property
    def is_typed(self) -> bool:
        return len(self.changed) > TYPED_FROM


def bulk_preview(
    task: Task, user: User, act: str, numbers: Sequence[int], *, opened: int | None = None, refused: dict[int, str]
) -> BulkPreview:
    """What `act` would do to these instructions, in their order. `refused` is what a try just met, by number."""
    found = {row.number: row for row in rows_numbered(task, numbers)}
    rows = [found[number] for number in numbers if number in found]
    card = found.get(opened) if opened is not None else None
    reasons = _reasons(task, user, act, rows, card) | {
        found[number].pk: why for number, why in refused.items() if number in found
    }
    withheld = withheld_among(task, rows, user)
    shown = [_row(task, row, reasons.get(row.pk, ""), card, row.pk in withheld) for row in rows]
    return BulkPreview([row for row in shown if not row.why], [row for row in shown if row.why])


def _reasons(task: Task, user: User, act: str, rows: Sequence[Instruction], card: Instruction | None) -> Reasons:
    if act in BatchAct.values:
        reasons = decision_reasons(task, user, BatchAct(act), rows, opened=card)
        if card is not None and card.pk in reasons:
            # Nothing is approved beside a card that is not.
            return {row.pk: _("The card you opened cannot be approved.") for row in rows} | reasons
        return reasons
    return assignable_reasons(user, rows) if act == "assign" else {}


def _row(task: Task, row: Instruction, why: str, card: Instruction | None, is_withheld: bool) -> PreviewRow:
    text = row.current_revision.text if row.current_revision and not is_withheld else ""
    beside = card.current_revision.text if card and card.current_revision and card.pk != row.pk else ""
    return PreviewRow(
        instruction=row,
        why=why,
        text=reveal(readable(text, _CHARS)),
        pairs=shown_diff(beside, text) if beside and text else [],
        label_index=label_index(task, row.label),
        is_withheld=is_withheld,
    )


def numbers_in_view(task: Task, view: ReviewFilter, user: User) -> tuple[list[int], int]:
    """The numbers of a view in this person's order, as many as can be done at a time, and how many there are."""
    rows = view_rows(task, view, user)
    numbers = in_order(rows, user).values_list("number", flat=True)[:MAX_ROWS]
    return list(numbers), rows.count()


def evidence_to_name(task: Task, number: int | None, user: User) -> list[tuple[str, str]] | None:
    """Pieces of evidence one of which convinced, by their place on the card; None where this approval does not ask."""
    card = rows_numbered(task, [number]).first() if number is not None else None
    if card is None or not evidence_is_asked(card, user, policy_of(task)):
        return None
    near = Evidence.objects.filter(instruction=card, role=EvidenceRole.SUPPORTING, rank__lte=OPEN_EVIDENCE)
    traces = [one.trace for one in near.select_related("trace").order_by("rank")]
    first = [next((str(value) for value in trace.input.values()), trace.external_id) for trace in traces]
    return [(str(place), readable(text, _CHARS)) for place, text in enumerate(first, 1)]
