"""A loop of conflict resolution with one measured round, past the services: for pages and for attacks."""

from typing import Any

from evaluation.models import (
    EvaluationRun,
    GroupOutcome,
    LoopState,
    Prediction,
    ResolutionCase,
    ResolutionGroup,
    ResolutionLoop,
    ResolutionRound,
    RoundState,
)
from pld_app.canonical import sha256_hex
from rules.models import Instruction, Ruleset, RunState, TextProposal
from tests.factories import text_row


def make_loop(run: EvaluationRun, ruleset: Ruleset, **fields: Any) -> ResolutionLoop:
    """A running loop of the run's student over its dataset."""
    assert run.student is not None
    values: dict[str, Any] = {
        "task": run.task,
        "number": 1 + run.task.resolution_loops.count(),
        "ruleset": ruleset,
        "dataset": run.dataset,
        "student": run.student,
        "student_model": run.student_model,
        "estimate": {"calls": 10, "tokens": 100, "cost": "0"},
        "max_calls": 10,
    }
    loop = ResolutionLoop.objects.create(**(values | fields))
    ResolutionLoop.objects.filter(pk=loop.pk).update(state=LoopState.RUNNING)
    loop.refresh_from_db()
    return loop


def make_round(loop: ResolutionLoop, run: EvaluationRun, instruction: Instruction) -> ResolutionRound:
    """Its next round, being measured by this run."""
    items = [[instruction.pk, text_row(instruction).pk]]
    number = 1 + loop.rounds.count()
    return ResolutionRound.objects.create(
        loop=loop, number=number, run=run, items=items, prompt_sha256=run.prompt_sha256
    )


def answer_all(run: EvaluationRun, label: str = "") -> list[Prediction]:
    """The run, begun, with this answer to every example."""
    EvaluationRun.objects.filter(pk=run.pk).update(state=RunState.RUNNING)
    outcome = "answered" if label else "malformed"
    rows = run.dataset.examples.filter(split=run.split).order_by("position")
    return [
        Prediction.objects.create(run=run, example=row, gold=row.label, label=label, outcome=outcome) for row in rows
    ]


def make_group(
    round_: ResolutionRound, instruction: Instruction | None, *, number: int = 1, label: str = "", **case: Any
) -> ResolutionGroup:
    """A group of this instruction, or of none, with every wrong answer of the run as a case."""
    group = ResolutionGroup.objects.create(
        round=round_,
        number=number,
        instruction=instruction,
        revision=text_row(instruction) if instruction else None,
        label=instruction.label if instruction else label,
        failures=1,
        successes=0,
    )
    values = {"role": "wide", "basis": "words", "score": 0.5} | case
    for rank, prediction in enumerate(round_.run.predictions.all(), 1):
        ResolutionCase.objects.create(
            group=group, example_id=prediction.example_id, said=prediction.label, rank=rank, **values
        )
    return group


def make_proposal(
    instruction: Instruction, text: str = "If copies burn, then label Breach.", **fields: Any
) -> TextProposal:
    values: dict[str, Any] = {
        "base": text_row(instruction),
        "text_sha256": sha256_hex(text),
        "reason": "Too wide.",
        "resolver": "resolver-1",
        "loop": 1,
        "round": 1,
    }
    return TextProposal.objects.create(instruction=instruction, text=text, **(values | fields))


def propose(group: ResolutionGroup, proposal: TextProposal, note: str = "Too wide.") -> None:
    """The group's outcome: this proposal; its round then waits for people."""
    ResolutionRound.objects.filter(pk=group.round_id).update(state=RoundState.ASKING)
    group.outcome, group.proposal, group.note = GroupOutcome.PROPOSED, proposal, note
    group.save()
    ResolutionRound.objects.filter(pk=group.round_id).update(state=RoundState.WAITING)
    ResolutionLoop.objects.filter(pk=group.round.loop_id).update(state=LoopState.WAITING)
