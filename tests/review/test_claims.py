"""In whose hands a card is: nobody decides what a colleague holds, by services, shell, SQL or at the same moment."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from pld_app.audit import audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import NotAllowed
from pld_app.models import AuditEvent, Domain, Role, User
from rules.models import Claim, Decision, DecisionKind, Draft, Instruction, Presence, Revision, Task
from rules.selectors.review_filter import ReviewFilter
from rules.selectors.review_hands import draft_of, hands_of
from rules.services import claims, drafts
from rules.services.claims import Held
from tests import factories
from tests.review.conftest import EDIT, approve, defer, edit, reject, send_back, undo

type ClientOf = Callable[[User], Client]
OPEN = ReviewFilter()


def keep(instruction: Instruction, reviewer: User) -> bool:
    return claims.claim_keep(instruction_id=instruction.pk, reviewer=reviewer)


def lapse(instruction: Instruction) -> None:
    Claim.objects.filter(instruction=instruction).update(expires_at=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("call", "more"),
    [
        (approve, {}),
        (edit, {"text": EDIT}),
        (reject, {"reason": "scope"}),
        (defer, {}),
        (send_back, {"reason": "scope"}),
    ],
)
def test_what_a_colleague_holds_is_decided_by_nobody_else(
    instruction: Instruction, ana: User, ben: User, call: Callable[..., Any], more: dict[str, Any]
) -> None:
    assert keep(instruction, ana)
    with pytest.raises(Held, match="Ana is working"):
        call(instruction, ben, **more)
    assert not keep(instruction, ben)
    call(instruction, ana, **more)
    # Done with it: the next one may have it at once.
    assert not Claim.objects.exists()


def test_a_lease_that_has_run_out_hinders_nobody(instruction: Instruction, ana: User, ben: User) -> None:
    keep(instruction, ana)
    lapse(instruction)
    approve(instruction, ben)


def test_undo_takes_the_card_from_nobody(instruction: Instruction, ana: User, ben: User) -> None:
    defer(instruction, ana)
    keep(instruction, ben)
    with pytest.raises(Held):
        undo(instruction, ana)


def event_by(person: User, instruction: Instruction) -> AuditEvent:
    with transaction.atomic():
        return audit_record("instruction.approved", actor=person, subject=instruction)


class TestTheDatabase:
    """The same through the ORM and raw SQL, past every service."""

    def test_takes_no_decision_by_another(self, instruction: Instruction, ana: User, ben: User) -> None:
        keep(instruction, ana)
        event = event_by(ben, instruction)
        with pytest.raises(IntegrityError, match="a colleague is working"), transaction.atomic():
            Decision.objects.create(
                instruction=instruction,
                revision=instruction.revisions.get(),
                kind=DecisionKind.APPROVE,
                actor=ben,
                event=event,
            )

    def test_takes_no_text_by_another(self, instruction: Instruction, ana: User, ben: User) -> None:
        keep(instruction, ana)
        event = event_by(ben, instruction)
        with pytest.raises(IntegrityError, match="a colleague is working"), transaction.atomic():
            Revision.objects.create(
                instruction=instruction, number=2, text=EDIT, text_sha256=sha256_hex(EDIT), author=ben, event=event
            )

    def test_hands_no_running_claim_over_in_silence(self, instruction: Instruction, ana: User, ben: User) -> None:
        keep(instruction, ana)
        with pytest.raises(IntegrityError, match="needs its own audit event"), transaction.atomic():
            Claim.objects.update(holder=ben)
        # An event of another kind is no taking over.
        event = event_by(ben, instruction)
        with pytest.raises(IntegrityError, match="needs its own audit event"), transaction.atomic():
            Claim.objects.update(holder=ben, event=event)

    @pytest.mark.parametrize(
        ("statement", "said"),
        [
            ("UPDATE rules_claim SET expires_at = now() + interval '2 hours'", "an hour at most"),
            ("UPDATE rules_claim SET instruction_id = instruction_id + 1", "stays with its instruction"),
            (
                "UPDATE rules_claim SET holder_id = (SELECT id FROM pld_app_user WHERE role = 'admin')",
                "active reviewer",
            ),
        ],
    )
    def test_keeps_claims_short_and_in_reviewers_hands(
        self, instruction: Instruction, task: Task, ana: User, ada: User, statement: str, said: str
    ) -> None:
        factories.make_instruction(task)
        keep(instruction, ana)
        with pytest.raises(IntegrityError, match=said), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)

    def test_claims_nothing_that_is_decided(self, instruction: Instruction, ana: User, ben: User) -> None:
        approve(instruction, ana)
        assert not keep(instruction, ben)
        with pytest.raises(IntegrityError, match="only an open instruction"), transaction.atomic():
            Claim.objects.create(instruction=instruction, holder=ben, expires_at=timezone.now())


def test_taking_over_is_explicit_and_on_record(instruction: Instruction, ana: User, ben: User) -> None:
    keep(instruction, ana)
    claims.claim_take_over(instruction_id=instruction.pk, reviewer=ben)
    assert factories.audit_actions(instruction) == ["instruction.taken_over"]
    with pytest.raises(Held, match="Ben is working"):
        approve(instruction, ana)
    approve(instruction, ben)


def test_renewing_and_taking_what_is_free_leave_no_event(instruction: Instruction, ana: User, ben: User) -> None:
    keep(instruction, ana)
    keep(instruction, ana)
    lapse(instruction)
    claims.claim_take_over(instruction_id=instruction.pk, reviewer=ben)
    assert factories.audit_actions(instruction) == []


def test_only_reviewers_claim(instruction: Instruction, sam: User, ada: User) -> None:
    for person in (sam, ada):
        with pytest.raises(NotAllowed):
            keep(instruction, person)
        with pytest.raises(NotAllowed):
            claims.claim_next(task=instruction.task, view=OPEN, reviewer=person)


def test_the_next_card_is_free_open_and_not_anothers(task: Task, ana: User, ben: User) -> None:
    rows = [factories.make_instruction(task, topic=f"topic {number}") for number in range(4)]
    keep(rows[0], ben)
    reject(rows[1], ben, reason="scope")

    def take(behind: Instruction | None = None) -> int | None:
        return claims.claim_next(task=task, view=OPEN, reviewer=ana, behind=behind)

    assert take() == 3
    assert take(rows[2]) == 4
    # From the start again, past what Ben holds; only one card at a time stays in one's hands.
    assert take(rows[3]) == 3
    assert list(Claim.objects.filter(holder=ana).values_list("instruction__number", flat=True)) == [3]


def test_a_card_with_unsent_text_stays_in_ones_hands(task: Task, ana: User, ben: User) -> None:
    first, second = (factories.make_instruction(task, topic=f"topic {number}") for number in range(2))
    keep(first, ana)
    drafts.draft_keep(instruction_id=first.pk, reviewer=ana, text="Half a sen", base=1)
    keep(second, ana)
    claims.claim_release(instruction_id=first.pk, reviewer=ana)
    assert set(Claim.objects.values_list("instruction", flat=True)) == {first.pk, second.pk}
    claims.claim_release(instruction_id=second.pk, reviewer=ana)
    claims.claim_release(instruction_id=first.pk, reviewer=ben)
    assert set(Claim.objects.values_list("instruction", flat=True)) == {first.pk}


@pytest.mark.django_db(transaction=True)
def test_twenty_who_ask_at_once_get_twenty_cards() -> None:
    task = factories.make_task()
    for number in range(20):
        factories.make_instruction(task, topic=f"topic {number // 5}")
    people = [factories.make_user(f"r{number}", Role.REVIEWER, Domain.LEGAL) for number in range(20)]
    barrier, got = threading.Barrier(20), list[int | None]()

    def take(person: User) -> None:
        try:
            barrier.wait(timeout=20)
            got.append(claims.claim_next(task=task, view=OPEN, reviewer=person))
        finally:
            connection.close()

    threads = [threading.Thread(target=take, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(number for number in got if number) == list(range(1, 21))


class TestPresence:
    def test_others_are_named_while_they_ping(self, instruction: Instruction, ana: User, ben: User) -> None:
        claims.presence_ping(instruction_id=instruction.pk, reviewer=ben)
        assert hands_of(instruction, ana).others == ["Ben"]
        assert hands_of(instruction, ben).others == []
        Presence.objects.update(seen_at=timezone.now() - timedelta(seconds=31))
        assert hands_of(instruction, ana).others == []


class TestDrafts:
    def test_are_kept_for_one_person_and_go_with_saving(self, instruction: Instruction, ana: User, ben: User) -> None:
        for text in ("If co", "If copies"):
            drafts.draft_keep(instruction_id=instruction.pk, reviewer=ana, text=text, note="why", base=1)
        found = draft_of(instruction, ana)
        assert found is not None
        assert (found.text, found.note, found.base) == ("If copies", "why", 1)
        assert draft_of(instruction, ben) is None
        edit(instruction, ana, text=EDIT)
        assert not Draft.objects.exists()
        assert factories.audit_actions(instruction) == ["instruction.edited"]

    def test_a_late_keystroke_leaves_no_draft_of_what_was_saved(self, instruction: Instruction, ana: User) -> None:
        edit(instruction, ana, text=EDIT)
        assert drafts.draft_keep(instruction_id=instruction.pk, reviewer=ana, text=f"{EDIT}\r\n", base=1) is None
        assert not Draft.objects.exists()

    def test_survive_a_lost_claim_and_a_colleagues_decision(
        self, instruction: Instruction, ana: User, ben: User, client_of: ClientOf
    ) -> None:
        keep(instruction, ana)
        claims.claim_take_over(instruction_id=instruction.pk, reviewer=ben)
        browser = client_of(ana)
        path = f"/tasks/nda/review/{instruction.number}/"
        sent = {"text": "My half sentence", "base": 1}
        assert browser.post(f"{path}draft/", sent, headers={"HX-Request": "true"}).status_code == 200
        assert "My half sentence" in browser.get(path).text
        reject(instruction, ben, reason="scope")
        assert "My half sentence" in browser.get(path).text
        assert "My half sentence" not in client_of(ben).get(path).text


def test_the_card_says_whose_it_is_and_offers_to_take_it(
    instruction: Instruction, ana: User, ben: User, client_of: ClientOf
) -> None:
    path = f"/tasks/nda/review/{instruction.number}/"
    ping = client_of(ana).post(f"{path}ping/", {"keep": "1"}).json()
    assert (ping["mine"], ping["held"][:11]) == (True, "Yours until")
    page = client_of(ben).get(path).text
    assert "Ana is working on it" in page
    assert "Ana is here too" in page
    assert "/approve/" not in page
    response = client_of(ben).post(f"{path}edit/", {"version": 1, "base": 1, "text": EDIT})
    assert response.status_code == 409
    assert EDIT in response.content.decode()
    response = client_of(ben).post(f"{path}take-over/", {"text": EDIT, "base": 1})
    assert response.status_code == 302
    page = client_of(ben).get(path).text
    assert EDIT in page
    assert "/approve/" in page


def test_looking_at_a_card_takes_neither_anothers_nor_ones_own_edit(
    instruction: Instruction, ana: User, client_of: ClientOf
) -> None:
    edit(instruction, ana, text=EDIT)
    ping = client_of(ana).post(f"/tasks/nda/review/{instruction.number}/ping/", {"keep": "1"}).json()
    assert not ping["mine"]
    assert not Claim.objects.exists()
