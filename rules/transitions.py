"""The state machines of instructions, rulesets and runs, each as one table; the database holds the same tables."""

from rules.exceptions import InvalidTransition
from rules.models import Instruction, InstructionStatus, MiningRun, Ruleset, RulesetStatus, RunState

INSTRUCTION_NEXT: dict[InstructionStatus, frozenset[InstructionStatus]] = {
    InstructionStatus.PROPOSED: frozenset(
        {
            InstructionStatus.IN_REVIEW,
            InstructionStatus.APPROVED,
            InstructionStatus.REJECTED,
            InstructionStatus.SUPERSEDED,
        }
    ),
    InstructionStatus.IN_REVIEW: frozenset(
        {InstructionStatus.APPROVED, InstructionStatus.REJECTED, InstructionStatus.SUPERSEDED}
    ),
    # A change of text begins with reopening: the approval and unreleased rulesets that hold it are void.
    InstructionStatus.APPROVED: frozenset({InstructionStatus.IN_REVIEW, InstructionStatus.SUPERSEDED}),
    InstructionStatus.REJECTED: frozenset({InstructionStatus.IN_REVIEW}),
    InstructionStatus.SUPERSEDED: frozenset(),
}

RULESET_NEXT: dict[RulesetStatus, frozenset[RulesetStatus]] = {
    RulesetStatus.DRAFT: frozenset({RulesetStatus.IN_SIGN_OFF, RulesetStatus.WITHDRAWN}),
    RulesetStatus.IN_SIGN_OFF: frozenset({RulesetStatus.SIGNED, RulesetStatus.WITHDRAWN}),
    RulesetStatus.SIGNED: frozenset({RulesetStatus.WITHDRAWN}),
    RulesetStatus.WITHDRAWN: frozenset(),
}

RUN_NEXT: dict[RunState, frozenset[RunState]] = {
    # Nothing is asked of a paid endpoint before a person has confirmed what it may cost.
    RunState.AWAITING: frozenset({RunState.QUEUED, RunState.CANCELLED}),
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.FAILED}),
    RunState.RUNNING: frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.PAUSED}),
    RunState.PAUSED: frozenset({RunState.QUEUED, RunState.CANCELLED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset({RunState.QUEUED}),
    RunState.CANCELLED: frozenset({RunState.QUEUED}),
}


def instruction_move(instruction: Instruction, to: InstructionStatus) -> None:
    """Set the status in memory; the caller holds the row lock and saves. Staying where it is is allowed."""
    current = InstructionStatus(instruction.status)
    if to != current and to not in INSTRUCTION_NEXT[current]:
        raise InvalidTransition(
            f"This instruction is {current.label.lower()} and cannot become {to.label.lower()}. "
            "Reload to see what happened."
        )
    instruction.status = to


def ruleset_move(ruleset: Ruleset, to: RulesetStatus) -> None:
    """Set the status in memory; the caller holds the row lock and saves."""
    current = RulesetStatus(ruleset.status)
    if to not in RULESET_NEXT[current]:
        raise InvalidTransition(f"This ruleset is {current.label.lower()} and cannot become {to.label.lower()}.")
    ruleset.status = to


def run_state_next(current: RunState, to: RunState, what: str) -> RunState:
    """The new state of a mining or evaluation run (`what` names it for the message)."""
    if to not in RUN_NEXT[current]:
        raise InvalidTransition(f"{what} is {current.label.lower()} and cannot become {to.label.lower()}.")
    return to


def mining_run_move(run: MiningRun, to: RunState) -> None:
    run.state = run_state_next(RunState(run.state), to, "This mining run")
