"""What a card holds back before a first judgement, what is kept of it, and what a hasty decision is asked."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from pld_app.audit import audit_record
from pld_app.errors import NotAllowed
from pld_app.models import AuditEvent, Role, User
from rules.models import (
    BiasNotice,
    CardLook,
    Instruction,
    InstructionImpact,
    JudgementContext,
    PauseReason,
    ReviewPause,
    Task,
)
from rules.selectors.review_guard import draw, wording_withheld_from
from rules.services.attention import pause_lift, pause_open
from rules.services.notices import notice_acknowledge
from tests.factories import (
    approve_directly,
    make_evidence,
    make_instruction,
    make_policy,
    make_trace,
    make_user,
    text_row,
)
from tests.review.conftest import RULE, approve, reject

type ClientOf = Callable[[User], Client]
LONG = RULE + " " + " ".join(f"word{n}" for n in range(30))


def url(name: str, number: int = 1) -> str:
    return reverse(name, args=["nda", number])


def post(client: Client, name: str, instruction: Instruction, **more: Any) -> Any:
    instruction.refresh_from_db()
    return client.post(url(name, instruction.number), {"version": instruction.version} | more)


def words(response: Any) -> str:
    return " ".join(response.content.decode().split())


class TestFigures:
    def test_counts_are_nowhere_until_opened(self, instruction: Instruction, ana: User, client_of: ClientOf) -> None:
        Instruction.objects.filter(pk=instruction.pk).update(support=7654, contradictions=4321)
        client = client_of(ana)
        for page in (client.get(url("instruction-detail")), client.get(reverse("review-queue", args=["nda"]))):
            assert "7,654" not in words(page)
            assert "4,321" not in words(page)
        opened = client.post(url("instruction-insight"), headers={"HX-Request": "true"})
        assert "7,654 traces support it" in words(opened)
        assert "7,654" in words(client.get(url("instruction-detail")))

    def test_what_was_seen_before_is_kept_with_the_decision(
        self, instruction: Instruction, ana: User, ben: User, client_of: ClientOf
    ) -> None:
        client_of(ana).get(url("instruction-detail"))
        client_of(ana).post(url("instruction-insight"))
        post(client_of(ana), "instruction-approve", instruction)
        kept = JudgementContext.objects.get()
        assert kept.seen_before
        assert kept.seconds is not None
        assert kept.event.data["figures_seen_before"] is True
        other = make_instruction(instruction.task, RULE)
        client_of(ben).get(url("instruction-detail", other.number))
        post(client_of(ben), "instruction-reject", other, reason="unclear")
        assert JudgementContext.objects.get(actor=ben).event.data["figures_seen_before"] is False

    def test_an_auditor_reads_them_at_once(self, instruction: Instruction, abe: User, client_of: ClientOf) -> None:
        assert "2 traces support it" in words(client_of(abe).get(url("instruction-detail")))
        assert not CardLook.objects.exists()

    def test_impact_names_student_split_and_n(self, instruction: Instruction, ana: User, client_of: ClientOf) -> None:
        InstructionImpact.objects.create(
            instruction=instruction,
            revision=text_row(instruction),
            flipped=3,
            n=120,
            student="S-1",
            split="test",
            source="run 4",
        )
        page = words(client_of(ana).post(url("instruction-insight"), headers={"HX-Request": "true"}))
        assert "changes 3 of 120 answers (2.5%) of S-1 on test" in page


class TestEvidenceFirst:
    @pytest.fixture
    def blind(self, task: Task, instruction: Instruction) -> Instruction:
        make_policy(task, blind_first=True, blind_percent=100)
        return instruction

    def test_no_word_of_the_rule_before_the_answer(self, blind: Instruction, ana: User, client_of: ClientOf) -> None:
        client = client_of(ana)
        pages = words(client.get(url("instruction-detail"))), words(client.get(reverse("review-queue", args=["nda"])))
        for page in pages:
            assert RULE not in page
            assert "thirty days" not in page
        assert "Does the evidence support a rule" in pages[0]
        assert 'data-key="a"' not in pages[0]
        client.post(url("instruction-evidence"), {"supports": "no"})
        assert RULE in words(client.get(url("instruction-detail")))
        client.post(url("instruction-evidence"), {"supports": "yes"})
        post(client, "instruction-approve", blind)
        assert JudgementContext.objects.get().evidence_supports is False
        assert JudgementContext.objects.get().event.data["evidence_supports"] is False

    def test_a_decision_past_the_question_is_not_taken(
        self, blind: Instruction, ana: User, client_of: ClientOf
    ) -> None:
        for name in ("instruction-approve", "instruction-reject", "instruction-edit", "instruction-send-back"):
            response = post(client_of(ana), name, blind, reason="unclear", text="Another text.")
            assert response.status_code == 302
        blind.refresh_from_db()
        assert blind.version == 1
        assert post(client_of(ana), "instruction-evidence", blind, supports="perhaps").status_code == 422

    def test_it_is_drawn_for_each_person_and_settled_cards_are_open(
        self, task: Task, ana: User, ben: User, abe: User
    ) -> None:
        make_policy(task, blind_first=True, blind_percent=50)
        rows = [make_instruction(task) for _ in range(40)]
        drawn = [{row.pk for row in rows if wording_withheld_from(row, person)} for person in (ana, ben)]
        assert all(5 < len(one) < 35 for one in drawn)
        assert drawn[0] != drawn[1]
        assert not any(wording_withheld_from(row, abe) for row in rows)
        one = next(row for row in rows if row.pk in drawn[0])
        reject(one, ben, reason="unclear")
        one.refresh_from_db()
        assert not wording_withheld_from(one, ana)

    def test_python_and_the_database_draw_alike(self, task: Task) -> None:
        from django.db import connection

        for what in ("double 1", "blind 7 12", "ü"):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pld_draw('key', %s)", [what])
                assert cursor.fetchone() == (draw("key", what),)


class TestHaste:
    @pytest.fixture
    def timed(self, task: Task) -> Task:
        make_policy(task, min_seconds=4, fast_percent=20)
        return task

    def look(self, instruction: Instruction, user: User, seconds: float) -> None:
        CardLook.objects.update_or_create(
            user=user,
            instruction=instruction,
            version=instruction.version,
            defaults={"opened_at": timezone.now() - timedelta(seconds=seconds)},
        )

    @pytest.mark.parametrize("name", ["instruction-approve", "instruction-reject"])
    def test_a_long_text_within_four_seconds_is_asked_once(
        self, timed: Task, ana: User, client_of: ClientOf, name: str
    ) -> None:
        one = make_instruction(timed, LONG)
        client = client_of(ana)
        client.get(url("instruction-detail"))
        response = post(client, name, one, reason="unclear", note="as agreed")
        assert response.status_code == 200
        assert "Read this one?" in words(response)
        assert 'value="as agreed"' in words(response)
        one.refresh_from_db()
        assert one.version == 1
        assert post(client, name, one, reason="unclear", sure="1").status_code == 302
        one.refresh_from_db()
        assert one.version == 2
        assert JudgementContext.objects.get().is_fast

    def test_a_short_text_and_a_slow_decision_are_not(self, timed: Task, ana: User, client_of: ClientOf) -> None:
        short = make_instruction(timed, RULE)
        assert post(client_of(ana), "instruction-approve", short).status_code == 302
        slow = make_instruction(timed, LONG)
        self.look(slow, ana, 9)
        assert post(client_of(ana), "instruction-approve", slow).status_code == 302
        assert not JudgementContext.objects.filter(is_fast=True).exists()

    def test_ones_own_pace_is_the_measure(self, timed: Task, ana: User, client_of: ClientOf) -> None:
        for _ in range(10):
            one = make_instruction(timed, RULE)
            self.look(one, ana, 60)
            approve(one, ana)
        quick = make_instruction(timed, RULE)
        self.look(quick, ana, 11)
        assert "Read this one?" in words(post(client_of(ana), "instruction-approve", quick))
        self.look(quick, ana, 14)
        assert post(client_of(ana), "instruction-approve", quick).status_code == 302

    def test_five_hasty_ones_in_a_row_pause_the_queue_until_it_is_lifted(
        self, timed: Task, ana: User, ada: User, ben: User
    ) -> None:
        for count in range(5):
            assert ReviewPause.objects.count() == 0, count
            one = make_instruction(timed, LONG)
            self.look(one, ana, 1)
            approve(one, ana)
        pause = ReviewPause.objects.get()
        assert (pause.user, pause.reason) == (ana, PauseReason.SPEED)
        assert pause.event.action == "reviewer.paused"
        with pytest.raises(NotAllowed, match="paused"):
            approve(make_instruction(timed, RULE), ana)
        approve(make_instruction(timed, RULE), ben)
        with pytest.raises(NotAllowed):
            pause_lift(pause_id=pause.pk, admin=ben, note="fine")
        pause_lift(pause_id=pause.pk, admin=ada, note="Talked; two cards looked at again.")
        again = make_instruction(timed, LONG)
        self.look(again, ana, 1)
        approve(again, ana)
        assert ReviewPause.objects.filter(lifted_at__isnull=True).count() == 0

    def test_the_five_are_the_newest_however_careful_the_first_were(self, timed: Task, ana: User) -> None:
        for seconds in (60, 60, 60, 60, 60, 60, 1, 1, 1, 1, 1):
            assert ReviewPause.objects.count() == 0
            one = make_instruction(timed, LONG)
            self.look(one, ana, seconds)
            approve(one, ana)
        assert ReviewPause.objects.get().reason == PauseReason.SPEED

    def test_a_tenth_of_approvals_names_its_evidence(
        self, task: Task, instruction: Instruction, ana: User, client_of: ClientOf
    ) -> None:
        make_policy(task, evidence_percent=100)
        client = client_of(ana)
        client.get(url("instruction-detail"))
        page = words(post(client, "instruction-approve", instruction))
        assert "Which evidence convinced you?" in page
        assert 'name="convinced" value="1"' in page
        post(client, "instruction-approve", instruction, convinced="1")
        assert JudgementContext.objects.get().convinced_by == 1
        other = make_instruction(task, RULE)
        assert post(client, "instruction-reject", other, reason="unclear").status_code == 302


class TestPausesAndNotices:
    def test_the_database_holds_a_pause(self, instruction: Instruction, ana: User, ada: User) -> None:
        with transaction.atomic():
            pause = pause_open(task=instruction.task, user=ana, reason=PauseReason.SEEDS)
        with pytest.raises(IntegrityError, match="pld: this queue is paused"), transaction.atomic():
            approve_directly(instruction, ana)
        instruction.refresh_from_db()
        make_policy(instruction.task, double_percent=100)
        with pytest.raises(NotAllowed, match="paused"):
            approve(instruction, ana)
        row = ReviewPause.objects.filter(pk=pause.pk)
        with transaction.atomic():
            event = audit_record("review_pause.lifted", actor=ana, subject=pause)
        for values in (
            {"lifted_at": timezone.now(), "lifted_by": ana, "lift_event": event, "note": "fine"},
            {"lifted_at": timezone.now(), "lifted_by": ada, "lift_event": event, "note": "fine"},
            {"reason": "speed"},
        ):
            with pytest.raises(IntegrityError, match="pld: "), transaction.atomic():
                row.update(**values)
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            row.delete()

    def test_a_paused_reviewer_is_told(self, instruction: Instruction, ana: User, client_of: ClientOf) -> None:
        with transaction.atomic():
            pause_open(task=instruction.task, user=ana, reason=PauseReason.SEEDS)
        for page in (url("instruction-detail"), reverse("review-queue", args=["nda"])):
            assert "Your queue is paused" in words(client_of(ana).get(page))
        response = post(client_of(ana), "instruction-approve", instruction)
        assert response.status_code == 403
        assert "paused" in words(response)

    def test_the_notice_is_read_once_a_quarter(self, task: Task, ana: User, client_of: ClientOf) -> None:
        queue = reverse("review-queue", args=["nda"])
        client = client_of(ana)
        assert "how a mined rule misleads" in words(client.get(queue))
        for _ in range(2):
            client.post(reverse("bias-notice", args=["nda"]))
        assert "how a mined rule misleads" not in words(client.get(queue))
        assert AuditEvent.objects.filter(action="bias_notice.acknowledged").count() == 1
        other = make_user("cem", Role.REVIEWER, "legal")
        notice_acknowledge(user=other)
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            BiasNotice.objects.update(quarter="2020Q1")

    @pytest.mark.parametrize(
        ("name", "more"),
        [
            ("instruction-approve", {}),
            ("instruction-reject", {"reason": "unclear", "note": "as agreed"}),
            ("instruction-edit", {"text": f"{RULE}\nOn another line."}),
            ("instruction-defer", {"note": "as agreed"}),
        ],
    )
    def test_it_is_asked_before_the_first_decision_which_then_goes_through(
        self, task: Task, instruction: Instruction, ana: User, client_of: ClientOf, name: str, more: dict[str, str]
    ) -> None:
        make_policy(task, notice_first=True)
        client = client_of(ana)
        asked = post(client, name, instruction, **more)
        assert asked.status_code == 200
        assert "how a mined rule misleads" in words(asked)
        for value in more.values():
            assert value.split("\n", maxsplit=1)[0] in words(asked)
        instruction.refresh_from_db()
        assert (instruction.version, BiasNotice.objects.count()) == (1, 0)
        form = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', asked.content.decode())
        sent = client.post(url(name), {**dict(form), "notice": "read"})
        assert sent.status_code == 302
        instruction.refresh_from_db()
        assert (instruction.version, BiasNotice.objects.count()) == (2, 1)
        if "text" in more:
            assert text_row(instruction).text == more["text"]

    def test_the_database_takes_no_decision_before_it(
        self, task: Task, instruction: Instruction, ana: User, ben: User
    ) -> None:
        make_policy(task, notice_first=True)
        with pytest.raises(NotAllowed, match="Read the notice"):
            approve(instruction, ana)
        with pytest.raises(IntegrityError, match="pld: the notice on habit"), transaction.atomic():
            approve_directly(instruction, ana)
        instruction.refresh_from_db()
        notice_acknowledge(user=ana)
        with pytest.raises(IntegrityError, match="pld: the notice on habit"), transaction.atomic():
            approve_directly(instruction, ben)
        instruction.refresh_from_db()
        approve(instruction, ana)

    def test_time_in_view_is_never_more_than_has_passed(
        self, instruction: Instruction, ana: User, client_of: ClientOf
    ) -> None:
        client = client_of(ana)
        client.get(url("instruction-detail"))
        assert client.post(url("instruction-visible"), {"ms": "99999999"}).status_code == 204
        assert CardLook.objects.get().visible_ms < 60_000
        assert client.post(url("instruction-visible"), {"ms": "-1"}).status_code == 422


class TestOpinionsPage:
    def test_blind_until_both_have_decided(
        self, task: Task, ana: User, ben: User, abe: User, sam: User, client_of: ClientOf
    ) -> None:
        make_policy(task, double_percent=100)
        one = make_instruction(task, RULE)
        make_evidence(one, make_trace(task))
        approve(one, ana, note="secret words")
        for person in (ben, sam):
            for name in ("instruction-opinions", "instruction-detail"):
                page = words(client_of(person).get(url(name)))
                assert "secret words" not in page
                assert "Ana" not in page.replace(str(person), "")
        assert "secret words" in words(client_of(abe).get(url("instruction-opinions")))
        card = words(client_of(ana).get(url("instruction-detail")))
        assert "Your decision to approve is kept" in card
        assert 'data-key="a"' not in card
        reject(one, ben, reason="unclear", note="too vague")
        cem = make_user("cem", Role.REVIEWER, "legal")
        page = words(client_of(cem).get(url("instruction-opinions")))
        assert "secret words" in page
        assert "too vague" in page
        assert "Decide on the card" in page
        assert "Decide on the card" not in words(client_of(ana).get(url("instruction-opinions")))

    def test_tabs_put_each_card_where_its_next_step_is(
        self, task: Task, ana: User, ben: User, client_of: ClientOf
    ) -> None:
        make_policy(task, double_percent=100)
        one = make_instruction(task, RULE)
        approve(one, ana)
        cem = make_user("cem", Role.REVIEWER, "legal")
        queue = reverse("review-queue", args=["nda"])

        def shows(person: User, tab: str) -> bool:
            return RULE in words(client_of(person).get(queue, {"tab": tab, "domain": "all"}))

        assert [shows(ana, tab) for tab in ("open", "opinions")] == [False, True]
        assert [shows(ben, tab) for tab in ("open", "opinions")] == [True, False]
        reject(one, ben, reason="unclear")
        assert [shows(ana, tab) for tab in ("open", "opinions", "disputed")] == [False, False, False]
        assert shows(cem, "disputed")

    def test_said_after_a_judgement_that_waits(self, task: Task, ana: User, ben: User, client_of: ClientOf) -> None:
        make_policy(task, double_percent=100)
        one = make_instruction(task, RULE)
        response = client_of(ana).post(url("instruction-approve"), {"version": 1}, follow=True)
        assert "Kept for #1" in words(response)
        response = client_of(ben).post(url("instruction-reject"), {"version": 1, "reason": "unclear"}, follow=True)
        assert "decided otherwise on #1" in words(response)
        one.refresh_from_db()
        assert one.waiting == "disputed"
