"""Bulk against single decisions and against bulk, on connections of their own: each instruction is decided once."""

from collections.abc import Iterator
from functools import partial

import pytest

from pld_app.models import AuditEvent, Domain, Role, User
from rules.models import BatchItem, Decision, Instruction, ReviewBatch, Task
from rules.services import batches
from rules.services import review as services
from tests import factories
from tests.governance.racing import Racers, racers, rounds
from tests.review.conftest import RULE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def two() -> Iterator[Racers]:
    with racers(2) as made:
        yield made


def people() -> tuple[Task, User, User]:
    ana = factories.make_user("ana", Role.REVIEWER, Domain.LEGAL)
    return factories.make_task(), ana, factories.make_user("ben", Role.REVIEWER, Domain.FINANCE)


def rows_of(task: Task, count: int = 4) -> list[Instruction]:
    return [factories.make_instruction(task, RULE) for _number in range(count)]


def assert_decided_once(rows: list[Instruction]) -> None:
    for row in rows:
        row.refresh_from_db()
        assert row.version == 2
        decision = Decision.objects.get(instruction=row)
        events = AuditEvent.objects.filter(object_type="instruction", object_id=str(row.pk))
        assert [one.pk for one in events] == [decision.event_id]
        # It is an item exactly where a batch decided it.
        items = BatchItem.objects.filter(instruction=row)
        assert [item.event_id for item in items] == [decision.event_id] * ("batch" in decision.event.data)


def test_a_batch_against_a_single_decision(two: Racers) -> None:
    task, ana, ben = people()
    for round_ in range(rounds(30)):
        rows = rows_of(task)
        single = rows[round_ % len(rows)]
        shown = {row.number: 1 for row in rows}
        reject = partial(batches.batch_reject, task=task, actor=ana, shown=shown, reason="unclear")
        approve = partial(services.instruction_approve, instruction_id=single.pk, reviewer=ben, version=1)
        refusals = two.race(reject, approve)
        # The batch always does the other three; the single one may come second.
        assert refusals[0] is None
        assert_decided_once(rows)


def test_two_batches_on_the_same_instructions(two: Racers) -> None:
    task, ana, ben = people()
    for round_ in range(rounds(30)):
        rows = rows_of(task)
        order = rows if round_ % 2 else rows[::-1]
        mine = {row.number: 1 for row in rows}
        theirs = {row.number: 1 for row in order[:3]}
        reject = partial(batches.batch_reject, task=task, actor=ana, shown=mine, reason="unclear")
        defer = partial(batches.batch_defer, task=task, actor=ben, shown=theirs)
        refusals = two.race(reject, defer)
        assert refusals[0] is None, refusals
        assert_decided_once(rows)
    # No batch without an item stayed behind.
    assert not ReviewBatch.objects.filter(items__isnull=True).exists()


def test_one_form_sent_twice_at_once_acts_once(two: Racers) -> None:
    task, ana, _ben = people()
    for _round in range(rounds(20)):
        rows = rows_of(task, 2)
        shown = {row.number: 1 for row in rows}
        reject = partial(batches.batch_reject, task=task, actor=ana, shown=shown, reason="unclear")
        refusals = two.race(reject, reject)
        assert [type(one) for one in refusals if one] == [batches.NothingDone]
        assert_decided_once(rows)


def test_a_batch_is_undone_once(two: Racers) -> None:
    task, ana, _ben = people()
    for _round in range(rounds(20)):
        rows = rows_of(task, 2)
        done = batches.batch_reject(task=task, actor=ana, shown={row.number: 1 for row in rows}, reason="unclear")
        assert done.batch
        undo = partial(batches.batch_undo, batch_id=done.batch.pk, actor=ana)
        refusals = two.race(undo, undo)
        assert len([one for one in refusals if one]) == 1
        for row in rows:
            assert factories.audit_actions(row) == ["instruction.rejected", "instruction.reopened"]
