"""Training records: who keeps them, what they open, when they end; and every way past them that we know."""

import threading
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse

from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import Notification, Role, User
from rules.models import DoubleReview, Instruction, Task, TrainingNotice, TrainingRecord
from rules.selectors.training import database_today, is_trained, untrained_reviewers
from rules.services.notices import Untrained
from rules.services.training import training_end, training_grant, training_notices_send
from tests.factories import approve_directly, audit_actions, make_instruction, make_policy, make_user, text_row
from tests.review.conftest import RULE, approve, defer, edit, reject

type ClientOf = Callable[[User], Client]


def in_days(count: int) -> date:
    return database_today() + timedelta(days=count)


def grant(person: User, admin: User, domain: str = "legal", days: int = 30) -> TrainingRecord:
    return training_grant(person=person, domain=domain, expires_on=in_days(days), note="Course of today.", admin=admin)


def opinion_directly(double: DoubleReview, actor: User) -> None:
    event = audit_record("opinion.recorded", actor=actor, subject=double)
    double.opinions.create(seat=1, actor=actor, verdict="approve", event=event)


@pytest.fixture
def demanding(task: Task) -> Task:
    make_policy(task, training_required=True)
    return task


@pytest.fixture
def rule(demanding: Task) -> Instruction:
    return make_instruction(demanding, RULE, domain="legal")


class TestWhoDecides:
    def test_nobody_without_a_record_and_the_refusal_names_whom_to_ask(
        self, rule: Instruction, ana: User, ada: User
    ) -> None:
        for act, more in (
            (approve, {}),
            (reject, {"reason": "unclear"}),
            (edit, {"text": "Another text."}),
            (defer, {}),
        ):
            with pytest.raises(Untrained, match=r"no current training record for Legal.*Ask Ada"):
                act(rule, ana, **more)
        rule.refresh_from_db()
        assert rule.version == 1
        grant(ana, ada)
        approve(rule, ana)
        assert audit_actions(ana) == ["training.granted"]

    def test_a_record_is_of_its_domain(self, demanding: Task, ana: User, ada: User) -> None:
        grant(ana, ada, "finance")
        legal, of_none = make_instruction(demanding, domain="legal"), make_instruction(demanding)
        with pytest.raises(Untrained):
            approve(legal, ana)
        approve(of_none, ana)

    def test_the_right_ends_that_day(self, rule: Instruction, ana: User, ada: User) -> None:
        record = grant(ana, ada, days=1)
        assert is_trained(ana, "legal")
        training_end(record_id=record.pk, note="Left the field.", admin=ada)
        newest = TrainingRecord.objects.latest("pk")
        assert newest.expires_on == database_today()
        assert not is_trained(ana, "legal")
        with pytest.raises(Untrained):
            approve(rule, ana)
        with pytest.raises(WrongState, match="no longer in force"):
            training_end(record_id=record.pk, note="Again.", admin=ada)
        grant(ana, ada)
        approve(rule, ana)

    def test_without_the_policy_nothing_is_asked(self, task: Task, ana: User) -> None:
        approve(make_instruction(task, RULE), ana)

    def test_the_author_of_an_edit_need_not_be_trained_for_a_colleague_to_settle_it(
        self, rule: Instruction, ana: User, ben: User, ada: User
    ) -> None:
        make_policy(rule.task, training_required=True, double_edited=True)
        record = grant(ana, ada)
        grant(ben, ada)
        edit(rule, ana, text="Another text.")
        training_end(record_id=record.pk, note="Over.", admin=ada)
        approve(rule, ben)
        rule.refresh_from_db()
        assert rule.status == "approved"


class TestTheDatabase:
    def test_takes_no_decision_or_opinion_of_the_untrained(self, rule: Instruction, ana: User, ada: User) -> None:
        with pytest.raises(IntegrityError, match="pld: a current training record"), transaction.atomic():
            approve_directly(rule, ana)
        rule.refresh_from_db()
        make_policy(rule.task, training_required=True, double_percent=100)
        double = rule.double_reviews.create(revision=text_row(rule))
        with pytest.raises(IntegrityError, match="pld: a current training record"), transaction.atomic():
            opinion_directly(double, ana)
        grant(ana, ada)
        with transaction.atomic():
            opinion_directly(double, ana)

    def test_keeps_records_as_they_were_and_takes_them_from_administrators_alone(
        self, ana: User, ben: User, sam: User, ada: User
    ) -> None:
        record = grant(ana, ada)
        rows = TrainingRecord.objects.filter(pk=record.pk)
        for change in (lambda: rows.update(expires_on=in_days(900)), rows.delete):
            with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
                change()
        with connection.cursor() as cursor, pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            cursor.execute("UPDATE rules_trainingrecord SET person_id = %s", [ben.pk])
        for person, by, days, words in (
            (ana, ben, 30, "only an active administrator"),
            (ada, ada, 30, "only an active administrator"),
            (sam, ada, 30, "training is recorded for active reviewers"),
            (ana, ada, -1, "ends today at the earliest"),
        ):
            with pytest.raises(IntegrityError, match=f"pld: {words}|{words}"), transaction.atomic():
                self.write(person, by, days)

    def test_takes_none_without_its_own_event(self, ana: User, ben: User, ada: User) -> None:
        for action, subject in (("training.granted", ben), ("role.changed", ana)):
            with pytest.raises(IntegrityError, match="pld: the audit event"), transaction.atomic():
                self.write(ana, ada, 30, action=action, subject=subject)

    @staticmethod
    def write(person: User, by: User, days: int, *, action: str = "training.granted", subject: Any = None) -> None:
        event = audit_record(action, actor=by, subject=subject or person)
        TrainingRecord.objects.create(
            person=person, domain="legal", expires_on=in_days(days), note="x", granted_by=by, event=event
        )
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.django_db(transaction=True)
def test_a_decision_and_the_end_of_its_record_never_pass_each_other() -> None:
    """Two connections: whichever comes first, no decision stands that was made after its record had ended."""
    from tests.factories import make_task

    admin = make_user("ada", Role.ADMIN)
    task = make_task(policy={"training_required": True})
    for turn in range(6):
        person = make_user(f"r{turn}", Role.REVIEWER, "legal")
        record = grant(person, admin)
        row = make_instruction(task, f"{RULE} {turn}", domain="legal")
        barrier = threading.Barrier(2)
        met: list[Exception] = []

        def run(act: Callable[[], Any], wait: threading.Barrier = barrier, said: list[Exception] = met) -> None:
            wait.wait(timeout=20)
            try:
                act()
            except NotAllowed as refusal:
                said.append(refusal)
            finally:
                connection.close()

        acts = (
            lambda row=row, person=person: approve(row, person),
            lambda record=record: training_end(record_id=record.pk, note="Over.", admin=admin),
        )
        threads = [threading.Thread(target=run, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        row.refresh_from_db()
        ended = TrainingRecord.objects.filter(person=person).latest("pk")
        assert ended.expires_on == database_today()
        if row.status == "approved":
            assert row.decisions.get().event_id < ended.event_id
        else:
            assert len(met) == 1


class TestNotices:
    def test_fourteen_days_and_one_before_once_each(self, ana: User, ben: User, ada: User) -> None:
        grant(ana, ada, days=20)
        grant(ben, ada, "finance", days=400)
        Notification.objects.all().delete()
        today = database_today()
        told = [training_notices_send(today=today + timedelta(days=passed)) for passed in (0, 5, 6, 10, 18, 19, 20)]
        assert told == [0, 0, 1, 0, 0, 1, 0]
        sent = Notification.objects.filter(kind="training.expires")
        assert set(sent.values_list("user__username", flat=True)) == {"ana", "ada"}
        assert sent.count() == 4
        assert f"until the day before {in_days(20)}" in sent.filter(user=ana)[0].text

    def test_a_day_that_was_missed_loses_none(self, ana: User, ada: User) -> None:
        grant(ana, ada, days=20)
        assert training_notices_send(today=in_days(12)) == 1
        assert TrainingNotice.objects.get().days == 14

    def test_what_no_longer_counts_is_not_announced(self, ana: User, ada: User) -> None:
        grant(ana, ada, days=10)
        grant(ana, ada, days=300)
        assert training_notices_send(today=database_today()) == 0
        assert untrained_reviewers() == []


class TestPages:
    def test_an_administrator_grants_and_ends_and_a_reviewer_reads_their_own(
        self, ana: User, ben: User, ada: User, abe: User, client_of: ClientOf
    ) -> None:
        page, form = reverse("training"), {"domain": "legal", "note": "Course 7"}
        admin = client_of(ada)
        assert "No training is recorded" in words(admin.get(page))
        sent = form | {"person": ana.pk, "expires_on": f"{in_days(30)}"}
        assert admin.post(reverse("training-grant"), sent).status_code == 302
        for wrong in ({"expires_on": f"{in_days(-3)}"}, {"note": " "}, {"person": ada.pk}):
            assert admin.post(reverse("training-grant"), sent | wrong).status_code == 422
        for person, seen in ((ana, True), (ben, False), (abe, True)):
            assert ("Course 7" in words(client_of(person).get(page))) is seen
        record = TrainingRecord.objects.get()
        end = reverse("training-end", args=[record.pk])
        assert admin.post(end, {"note": ""}).status_code == 422
        assert admin.post(end, {"note": "Left"}).status_code == 302
        assert admin.post(end, {"note": "Left"}).status_code == 409
        assert Notification.objects.filter(user=ana, kind__startswith="training.").count() == 2

    def test_queue_and_card_say_what_is_missing(
        self, rule: Instruction, ana: User, ada: User, client_of: ClientOf
    ) -> None:
        client = client_of(ana)
        card = reverse("instruction-detail", args=["nda", rule.number])
        for path in (card, reverse("review-queue", args=["nda"])):
            assert "no current training record for Legal" in words(client.get(path))
        answer = client.post(reverse("instruction-approve", args=["nda", rule.number]), {"version": 1})
        assert answer.status_code == 403
        assert "Ask Ada" in words(answer)
        grant(ana, ada)
        assert "no current training record" not in words(client.get(card))

    def test_the_policy_page_says_whom_it_would_stop(
        self, task: Task, ana: User, ada: User, client_of: ClientOf
    ) -> None:
        page = words(client_of(ada).get(reverse("review-policy", args=["nda"])))
        assert "1 reviewer cannot decide" in page

    def test_only_reviewers_are_trained(self, sam: User, ada: User) -> None:
        with pytest.raises(InvalidInput, match="reviewers whose account is open"):
            grant(sam, ada)
        with pytest.raises(NotAllowed):
            grant(make_user("r", Role.REVIEWER, "legal"), sam)


def words(response: Any) -> str:
    return " ".join(response.content.decode().split())
