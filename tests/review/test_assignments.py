"""Whose work is whose: people, pools and those away, and what the queue offers to whom."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import Domain, Role, User
from rules.exceptions import InvalidTransition
from rules.models import Assignment, Instruction, Task
from rules.selectors.review_filter import ReviewFilter, view_rows
from rules.selectors.review_tabs import Tab
from rules.services import assignments as services
from rules.services import claims
from tests import factories
from tests.review.conftest import reject

type ClientOf = Callable[[User], Client]


def assign(instruction: Instruction, by: User, person: User | None = None, pool: str = "") -> Assignment:
    return services.assignment_set(instruction_id=instruction.pk, by=by, person=person, pool=pool)


def offered(task: Task, person: User) -> int | None:
    return claims.claim_next(task=task, view=ReviewFilter(), reviewer=person)


def in_tab(task: Task, tab: Tab, person: User) -> set[int]:
    return set(view_rows(task, ReviewFilter(tab=tab), person).values_list("number", flat=True))


def away(person: User, by: User, deputy: User | None = None, days: int = 1) -> None:
    today = timezone.now().date()
    services.absence_set(person=person, by=by, starts_on=today, ends_on=today + timedelta(days=days), deputy=deputy)


def test_each_assignment_is_on_record(instruction: Instruction, ana: User, ben: User, ada: User) -> None:
    assign(instruction, ada, person=ben)
    assign(instruction, ana, pool="legal")
    services.assignment_clear(instruction_id=instruction.pk, by=ada)
    assert factories.audit_actions(instruction) == [
        "instruction.assigned",
        "instruction.assigned",
        "instruction.unassigned",
    ]
    assert not Assignment.objects.exists()
    with pytest.raises(InvalidTransition, match="not assigned"):
        services.assignment_clear(instruction_id=instruction.pk, by=ada)


def test_who_may_assign_and_to_whom(instruction: Instruction, ana: User, ben: User, sam: User, abe: User) -> None:
    for person in (ben, sam, abe):  # of another domain, or of another role
        with pytest.raises(NotAllowed):
            assign(instruction, person, person=ana)
    wrongs: list[dict[str, Any]] = [{}, {"person": ana, "pool": "legal"}, {"pool": "tax"}, {"person": sam}]
    for wrong in wrongs:
        with pytest.raises(InvalidInput):
            assign(instruction, ana, **wrong)
    reject(instruction, ana, reason="scope")
    with pytest.raises(InvalidTransition, match="already decided"):
        assign(instruction, ana, person=ana)


def test_the_database_takes_no_assignment_without_its_event(instruction: Instruction, ana: User, sam: User) -> None:
    made = assign(instruction, ana, person=ana)
    for values in ({"by": sam}, {"person": sam}, {"person": ana, "pool": "legal"}, {"person": None}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Assignment.objects.filter(pk=made.pk).update(**values)
    other = factories.make_instruction(instruction.task)
    with pytest.raises(IntegrityError, match="needs its own audit event"), transaction.atomic():
        Assignment.objects.create(instruction=other, person=ana, by=ana, event=made.event)


def test_the_queue_offers_nobody_what_is_anothers(task: Task, ana: User, ben: User, ada: User) -> None:
    rows = [factories.make_instruction(task, topic=f"topic {number}") for number in range(3)]
    assign(rows[0], ada, person=ben)
    assign(rows[1], ada, pool="finance")
    assert offered(task, ana) == 2
    assert in_tab(task, Tab.UNASSIGNED, ana) == {3}
    assert in_tab(task, Tab.ASSIGNED, ben) == {1}
    assert in_tab(task, Tab.ASSIGNED, ana) == {2}  # in her hands
    reject(rows[2], ana, reason="scope")
    assert in_tab(task, Tab.DONE, ana) == {3}


def test_while_somebody_is_away_their_deputy_does_it(task: Task, ana: User, ben: User, ada: User) -> None:
    (one,) = [factories.make_instruction(task)]
    cleo = factories.make_user("cleo", Role.REVIEWER, Domain.LEGAL)
    assign(one, ada, person=ben)
    away(ben, ben, deputy=ana)
    assert offered(task, cleo) is None
    assert in_tab(task, Tab.ASSIGNED, ana) == {1}
    assert offered(task, ana) == 1
    claims.claim_release(instruction_id=one.pk, reviewer=ana)
    away(ben, ada)  # nobody stands in: anybody may
    assert offered(task, cleo) == 1
    claims.claim_release(instruction_id=one.pk, reviewer=cleo)
    services.absence_end(person=ben, by=ben)
    assert offered(task, cleo) is None
    assert factories.audit_actions(ben) == ["absence.set", "absence.set", "absence.ended"]


def test_an_absence_to_come_changes_nothing_yet(task: Task, ana: User, ben: User, ada: User) -> None:
    assign(factories.make_instruction(task), ada, person=ben)
    start = timezone.now().date() + timedelta(days=1)
    services.absence_set(person=ben, by=ben, starts_on=start, ends_on=start, deputy=ana)
    assert offered(task, ana) is None


def test_what_an_absence_may_say(ana: User, ben: User, sam: User, ada: User) -> None:
    day = date(2026, 12, 1)
    with pytest.raises(NotAllowed):
        services.absence_set(person=ana, by=ben, starts_on=day, ends_on=day)
    with pytest.raises(InvalidInput, match="before the first"):
        services.absence_set(person=ana, by=ana, starts_on=day, ends_on=day - timedelta(days=1))
    with pytest.raises(InvalidInput, match="another person"):
        services.absence_set(person=ana, by=ana, starts_on=day, ends_on=day, deputy=ana)
    for deputy, person in ((sam, ana), (ana, sam)):
        with pytest.raises(InvalidInput):
            services.absence_set(person=person, by=ada, starts_on=day, ends_on=day, deputy=deputy)


def test_the_pages(instruction: Instruction, ana: User, ben: User, ada: User, client_of: ClientOf) -> None:
    browser = client_of(ana)
    path = f"/tasks/nda/review/{instruction.number}/assignment/"
    sent = {"to": f"person {ben.pk}", "due_on": "2026-01-01"}
    assert browser.post(path, sent).status_code == 302
    page = browser.get("/tasks/nda/review/?tab=all").text
    assert "late: was due 2026-01-01" in page
    assert "Ben" in browser.get(f"/tasks/nda/review/{instruction.number}/").text
    assert browser.post(path, {"to": "person 0"}).status_code == 422
    assert browser.post("/absences/", {"starts_on": "2026-12-02", "ends_on": "2026-12-01"}).status_code == 422
    assert browser.post("/absences/", {"starts_on": "2026-12-01", "ends_on": "2036-12-02"}).status_code == 302
    assert "2036-12-02" in client_of(ada).get("/absences/").text
