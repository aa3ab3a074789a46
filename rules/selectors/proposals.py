"""Texts that conflict resolution proposes, as the card of their instruction shows them."""

from dataclasses import dataclass

from rules.diff import Pair, Risk, diff_summary, risky_changes
from rules.hidden_text import Segment, hidden_in, reveal
from rules.models import Instruction, InstructionStatus, TextProposal
from rules.selectors.review_compare import shown_diff

_CLOSED = frozenset({InstructionStatus.REJECTED, InstructionStatus.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class ProposalView:
    """One proposal that waits, compared with the text that stands."""

    proposal: TextProposal
    pairs: list[Pair]
    summary: str
    risks: list[Risk]
    reason: list[Segment]
    hidden: list[str]


def proposals_of(instruction: Instruction) -> list[ProposalView]:
    """Those that wait for a reviewer; one that was compared with an earlier text is dealt with."""
    if instruction.status in _CLOSED:
        return []
    rows = instruction.proposals.filter(base=instruction.current_revision_id, dismissed_at=None).order_by("pk")
    return [_view(instruction, row) for row in rows]


def _view(instruction: Instruction, row: TextProposal) -> ProposalView:
    before = instruction.current_revision.text if instruction.current_revision else ""
    pairs = shown_diff(before, row.text)
    return ProposalView(
        row,
        pairs,
        diff_summary(pairs),
        risky_changes(before, row.text, instruction.task.labels),
        reveal(row.reason),
        hidden_in(row.text),
    )
