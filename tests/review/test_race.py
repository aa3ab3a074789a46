"""Two reviewers on two connections decide on one card at the same moment: one decision, one refusal."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import connection

from pld_app.errors import Refusal
from pld_app.models import Domain, Role, User
from rules.exceptions import Stale
from rules.models import Decision, Instruction
from rules.services import review as services
from tests import factories
from tests.review.conftest import EDIT, RULE

ROUNDS = 50
type Outcomes = list[object]


def _try(outcomes: Outcomes, barrier: threading.Barrier, call: Callable[[], Any]) -> None:
    try:
        barrier.wait(timeout=20)
        outcomes.append(call())
    except Exception as error:  # noqa: BLE001  # the test looks at whatever came out
        outcomes.append(error)
    finally:
        connection.close()


def _at_once(*calls: Callable[[], Any]) -> Outcomes:
    outcomes: Outcomes = []
    barrier = threading.Barrier(len(calls))
    threads = [threading.Thread(target=_try, args=(outcomes, barrier, call)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return outcomes


def _calls(instruction: Instruction, ana: User, ben: User, round_: int) -> list[Callable[[], Any]]:
    decide = partial(act, instruction_id=instruction.pk, version=1)
    rivals: list[Callable[[], Any]] = [
        partial(decide, services.instruction_reject, reviewer=ben, reason="unclear"),
        partial(decide, services.instruction_edit, reviewer=ben, text=EDIT),
        partial(decide, services.instruction_defer, reviewer=ben),
        partial(decide, services.instruction_send_back, reviewer=ben, reason="scope"),
        partial(decide, services.instruction_approve, reviewer=ben),
    ]
    return [partial(decide, services.instruction_approve, reviewer=ana), rivals[round_ % len(rivals)]]


def act(service: Callable[..., Any], **arguments: Any) -> Any:
    return service(**arguments)


@pytest.mark.django_db(transaction=True)
def test_exactly_one_of_two_decisions_counts() -> None:
    ana = factories.make_user("ana", Role.REVIEWER, Domain.LEGAL)
    ben = factories.make_user("ben", Role.REVIEWER, Domain.FINANCE)
    task = factories.make_task()
    winners = set()
    for round_ in range(ROUNDS):
        instruction = factories.make_instruction(task, RULE)
        outcomes = _at_once(*_calls(instruction, ana, ben, round_))
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
        assert [type(outcome) for outcome in refused] == [Stale], outcomes
        assert len(outcomes) == 2
        decision = Decision.objects.get(instruction=instruction)
        instruction.refresh_from_db()
        assert instruction.version == 2
        assert factories.audit_actions(instruction) == [decision.event.action]
        winners.add(decision.actor_id)
    assert winners <= {ana.pk, ben.pk}
