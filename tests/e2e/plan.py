"""Twenty rules and what is decided on each, in order: the same work by keys and by plain forms."""

from collections import Counter
from dataclasses import dataclass

from rules.models import Decision, DecisionKind, Instruction, InstructionStatus, ReasonCode, Task, Waiting

ADDED = " Words added by Lena."
NOTE = "The matter is settled in another rule."


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: its reason for a rejection or a return, and the note that "other" asks for."""

    kind: DecisionKind
    reason: ReasonCode | None = None
    note: str = ""

    @property
    def reason_key(self) -> str:
        """The digit of the reason, as the menu numbers them."""
        assert self.reason is not None
        return str(1 + ReasonCode.values.index(self.reason))


def plan() -> list[Step]:
    """Five approvals, five rejections (one for "other", with a note), three deferrals, three returns, four edits."""
    reasons = [*list(ReasonCode)[:4], ReasonCode.OTHER]
    return [
        *[Step(DecisionKind.APPROVE)] * 5,
        *[Step(DecisionKind.REJECT, reason, NOTE if reason == ReasonCode.OTHER else "") for reason in reasons],
        *[Step(DecisionKind.DEFER)] * 3,
        *[Step(DecisionKind.SEND_BACK, reason) for reason in reasons[:3]],
        *[Step(DecisionKind.EDIT)] * 4,
    ]


def assert_plan_recorded(task: Task) -> None:
    """Every rule stands where the plan put it, and every decision is on record with its reason."""
    states = {
        DecisionKind.APPROVE: (InstructionStatus.APPROVED, ""),
        DecisionKind.REJECT: (InstructionStatus.REJECTED, ""),
        DecisionKind.DEFER: (InstructionStatus.IN_REVIEW, Waiting.DEFERRED),
        DecisionKind.SEND_BACK: (InstructionStatus.IN_REVIEW, Waiting.SENT_BACK),
        DecisionKind.EDIT: (InstructionStatus.IN_REVIEW, Waiting.SECOND_REVIEWER),
    }
    rules = list(Instruction.objects.filter(task=task).select_related("current_revision").order_by("number"))
    for rule, step in zip(rules, plan(), strict=True):
        assert (rule.status, rule.waiting) == states[step.kind], rule.number
        last = rule.decisions.order_by("-pk")[0]
        assert (last.kind, last.reason, last.note) == (step.kind, step.reason or "", step.note), rule.number
        assert rule.current_revision is not None
        assert rule.current_revision.text.endswith(ADDED) == (step.kind == DecisionKind.EDIT)


def decisions() -> Counter[str]:
    return Counter(Decision.objects.values_list("kind", flat=True))
