"""Undo: twenty of one's own decisions deep, one after the other, until somebody has signed."""

from itertools import cycle
from typing import Any

import pytest

from pld_app.errors import NotAllowed
from pld_app.models import User
from rules.exceptions import InvalidTransition
from rules.models import DecisionKind, Instruction, Task, Waiting
from rules.selectors.review import UNDO_DEPTH, last_decision
from rules.services import rulesets
from tests import factories
from tests.publishing import steps
from tests.review.conftest import EDIT, RULE, approve, defer, edit, reject, send_back, undo

ACTS: tuple[tuple[Any, dict[str, str]], ...] = (
    (approve, {}),
    (reject, {"reason": "scope"}),
    (defer, {}),
    (send_back, {"reason": "scope"}),
)


def test_twenty_decisions_are_undone_one_after_the_other_and_no_more(task: Task, ana: User) -> None:
    rows = [factories.make_instruction(task) for _number in range(UNDO_DEPTH + 1)]
    for row, (act, more) in zip(rows, cycle(ACTS), strict=False):
        act(row, ana, **more)
    for row in reversed(rows[1:]):
        last = last_decision(task, ana)
        assert last is not None
        assert last.instruction == row
        undo(row, ana)
        row.refresh_from_db()
        assert (row.is_open, row.waiting) == (True, "")
    assert last_decision(task, ana) is None


def test_what_a_colleague_did_since_is_passed_over(task: Task, ana: User, ben: User) -> None:
    first, second = factories.make_instruction(task), factories.make_instruction(task)
    defer(first, ana)
    defer(second, ana)
    approve(second, ben)
    last = last_decision(task, ana)
    assert last is not None
    assert last.instruction == first


def test_an_edit_is_undone_by_one_more_revision_that_a_colleague_approves(
    instruction: Instruction, task: Task, ana: User, ben: User
) -> None:
    edit(instruction, ana, text=EDIT)
    last = last_decision(task, ana)
    assert last is not None
    assert last.kind == DecisionKind.EDIT
    undo(instruction, ana)
    instruction.refresh_from_db()
    revision = instruction.current_revision
    assert revision is not None
    # No text on record went, and the words that are back are hers: she cannot approve them alone.
    assert (revision.number, revision.text, revision.author) == (3, RULE, ana)
    assert instruction.waiting == Waiting.SECOND_REVIEWER
    assert last_decision(task, ana) is None
    with pytest.raises(NotAllowed):
        approve(instruction, ana)
    approve(instruction, ben)


def test_nothing_is_undone_once_somebody_has_signed(
    instruction: Instruction, task: Task, ana: User, ben: User, sam: User
) -> None:
    approve(instruction, ana)
    ruleset = rulesets.ruleset_create(task=task, composer=ben, name="Spring")
    rulesets.ruleset_freeze(ruleset_id=ruleset.pk, editor=ben, version=ruleset.version)
    ruleset.refresh_from_db()
    steps.sign(ruleset, sam)
    with pytest.raises(InvalidTransition, match="has signed"):
        undo(instruction, ana)
    ruleset.refresh_from_db()
    assert ruleset.status == "in_sign_off"
