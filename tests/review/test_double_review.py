"""Two people for one decision: what waits, what closes, what goes to a third; and every way past it that we know."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from pld_app.audit import audit_record
from pld_app.errors import NotAllowed, Refusal, WrongState
from pld_app.models import Domain, Role, User
from rules.exceptions import InvalidTransition
from rules.models import (
    Conflict,
    Decision,
    DecisionKind,
    DoubleReview,
    Instruction,
    InstructionImpact,
    InstructionStatus,
    MiningRun,
    Opinion,
    RunState,
    Task,
    Verdict,
)
from rules.services import review as services
from rules.services.double_review import double_bases
from tests import factories
from tests.factories import approve_directly, audit_actions, make_instruction, make_policy, make_user, text_row
from tests.review.conftest import EDIT, RULE, approve, defer, edit, reject, reopen, send_back, undo


@pytest.fixture
def cem(db: None) -> User:
    """A third reviewer."""
    return make_user("cem", Role.REVIEWER, Domain.LEGAL)


@pytest.fixture
def doubled(task: Task) -> Task:
    """Its every instruction is drawn."""
    make_policy(task, double_percent=100)
    return task


@pytest.fixture
def drawn(doubled: Task) -> Instruction:
    return make_instruction(doubled, RULE)


def state(instruction: Instruction) -> tuple[str, str, int]:
    instruction.refresh_from_db()
    return instruction.status, instruction.waiting, instruction.version


def refused(words: str, call: Callable[[], Any]) -> None:
    with pytest.raises(IntegrityError, match=f"pld: {words}"), transaction.atomic():
        call()


class TestTwoReviewers:
    def test_the_first_leaves_nothing_to_see(self, drawn: Instruction, ana: User) -> None:
        approve(drawn, ana, note="clear")
        assert state(drawn) == ("proposed", "", 1)
        assert not drawn.decisions.exists()
        assert audit_actions(drawn) == []
        double = drawn.double_reviews.get()
        assert double.bases == ["sample"]
        opinion = double.opinions.get()
        assert (opinion.actor, opinion.verdict, opinion.note) == (ana, "approve", "clear")
        assert audit_actions(double) == ["opinion.recorded"]
        assert opinion.event.data["verdict"] == "approve"

    def test_agreement_closes_it(self, drawn: Instruction, ana: User, ben: User) -> None:
        approve(drawn, ana)
        approve(drawn, ben)
        assert state(drawn) == ("approved", "", 2)
        assert drawn.decisions.get().actor == ben
        assert audit_actions(drawn) == ["instruction.approved"]

    def test_agreement_on_rejecting_closes_it(self, drawn: Instruction, ana: User, ben: User) -> None:
        reject(drawn, ana, reason="unclear")
        reject(drawn, ben, reason="scope")
        assert state(drawn) == ("rejected", "", 2)

    @pytest.mark.parametrize("settles", ["approve", "reject"])
    def test_a_third_settles_a_disagreement(
        self, drawn: Instruction, ana: User, ben: User, cem: User, settles: str
    ) -> None:
        approve(drawn, ana)
        reject(drawn, ben, reason="unclear")
        assert state(drawn) == ("in_review", "disputed", 2)
        for one in (ana, ben):
            with pytest.raises(WrongState, match="already decided"):
                approve(drawn, one)
        if settles == "approve":
            approve(drawn, cem)
        else:
            reject(drawn, cem, reason="unclear")
        assert state(drawn)[0] == ("approved" if settles == "approve" else "rejected")
        assert audit_actions(drawn)[0] == "instruction.disputed"
        assert list(drawn.double_reviews.get().opinions.values_list("seat", "actor__username")) == [
            (1, "ana"),
            (2, "ben"),
            (3, "cem"),
        ]

    def test_nobody_decides_twice(self, drawn: Instruction, ana: User) -> None:
        approve(drawn, ana)
        with pytest.raises(WrongState, match="already decided"):
            reject(drawn, ana, reason="unclear")

    def test_a_dispute_is_neither_deferred_nor_sent_back(self, drawn: Instruction, ana: User, ben: User) -> None:
        approve(drawn, ana)
        reject(drawn, ben, reason="unclear")
        with pytest.raises(InvalidTransition, match="disagree"):
            defer(drawn, ana)
        with pytest.raises(InvalidTransition, match="disagree"):
            send_back(drawn, ana, reason="unclear")

    def test_without_a_policy_the_presets_hold(self, task: Task) -> None:
        bare = Task.objects.create(slug="bare", name="Bare", labels=["A", "B"], input_fields=["x"])
        drawn = sum(bool(double_bases(make_instruction(bare))) for _ in range(60))
        assert 2 <= drawn <= 28
        assert not double_bases(make_instruction(task))


class TestUndoReopenEdit:
    def test_a_waiting_opinion_is_taken_back_and_given_anew(self, drawn: Instruction, ana: User, ben: User) -> None:
        approve(drawn, ana)
        undo(drawn, ana)
        assert drawn.double_reviews.get().voided_why == "undone"
        reject(drawn, ana, reason="unclear")
        reject(drawn, ben, reason="unclear")
        assert state(drawn)[0] == "rejected"

    def test_only_ones_own_and_not_after_the_second(self, drawn: Instruction, ana: User, ben: User) -> None:
        approve(drawn, ana)
        with pytest.raises(InvalidTransition, match="nothing of yours"):
            undo(drawn, ben)
        reject(drawn, ben, reason="unclear")
        for one in (ana, ben):
            with pytest.raises(InvalidTransition, match="nothing of yours"):
                undo(drawn, one)

    def test_undoing_the_agreement_asks_for_two_new_opinions(self, drawn: Instruction, ana: User, ben: User) -> None:
        approve(drawn, ana)
        approve(drawn, ben)
        undo(drawn, ben)
        assert drawn.double_reviews.get().voided_why == "reopened"
        approve(drawn, ana)
        assert state(drawn)[:2] == ("in_review", "")
        approve(drawn, ben)
        assert state(drawn)[0] == "approved"

    def test_undoing_a_settlement_leaves_no_dispute(self, drawn: Instruction, ana: User, ben: User, cem: User) -> None:
        approve(drawn, ana)
        reject(drawn, ben, reason="unclear")
        approve(drawn, cem)
        undo(drawn, cem)
        assert state(drawn)[:2] == ("in_review", "")

    def test_reopening_asks_for_two_new_opinions(self, drawn: Instruction, ana: User, ben: User, cem: User) -> None:
        approve(drawn, ana)
        approve(drawn, ben)
        reopen(drawn, cem, note="New case law.")
        approve(drawn, cem)
        assert state(drawn)[0] == "in_review"

    def test_an_edit_voids_what_was_said_of_the_old_text(
        self, drawn: Instruction, ana: User, ben: User, cem: User
    ) -> None:
        approve(drawn, ana)
        edit(drawn, ben, text=EDIT)
        assert drawn.double_reviews.get().voided_why == "edited"
        approve(drawn, cem)
        assert state(drawn)[0] == "approved"
        newest = drawn.double_reviews.get(voided_at__isnull=True)
        assert list(newest.opinions.values_list("actor__username", flat=True)) == ["ben", "cem"]

    def test_an_edit_that_a_second_rejects_goes_to_a_third(self, task: Task, ana: User, ben: User, cem: User) -> None:
        make_policy(task, double_edited=True)
        instruction = make_instruction(task, RULE)
        edit(instruction, ana, text=EDIT)
        with pytest.raises(NotAllowed, match="endorsed"):
            reject(instruction, ana, reason="unclear")
        reject(instruction, ben, reason="unclear")
        assert state(instruction)[:2] == ("in_review", "disputed")
        approve(instruction, cem)
        assert state(instruction)[0] == "approved"
        reopen(instruction, ben, note="Look again.")
        assert state(instruction)[:2] == ("in_review", "second")
        approve(instruction, ben)
        assert state(instruction)[0] == "approved"


class TestWhoIsDrawn:
    def test_a_larger_share_only_adds(self, task: Task) -> None:
        rows = [make_instruction(task) for _ in range(40)]
        before: set[int] = set()
        for percent in (10, 30, 60, 100):
            make_policy(task, double_percent=percent)
            drawn = {row.pk for row in rows if double_bases(row)}
            assert before <= drawn
            before = drawn
        assert len(before) == 40

    def test_nobody_sets_the_key(self, task: Task) -> None:
        first = task.review_policies.latest("version").draw_key
        assert len(first) == 32
        assert make_policy(task, draw_key="0" * 32).draw_key == "0" * 32
        assert set(task.review_policies.values_list("draw_key", flat=True)) == {first}

    def test_a_conflict_needs_two_until_the_other_side_is_out(self, task: Task, ana: User) -> None:
        make_policy(task, double_conflicting=True)
        one, other = make_instruction(task, "If a, then label Compliant."), make_instruction(task, "If b.")
        run = MiningRun.objects.create(task=task, number=1, state=RunState.SUCCEEDED)
        Conflict.objects.create(
            run=run, first=one, second=other, kind="conflict", strength=0.9, same_pairs=1, opposed_pairs=0
        )
        assert double_bases(one) == double_bases(other) == ["conflict"]
        Instruction.objects.filter(pk=other.pk).update(status="superseded")
        assert double_bases(one) == []

    def test_impact_above_the_limit_needs_two(self, task: Task) -> None:
        make_policy(task, impact_percent=1)
        one = make_instruction(task)
        measured = {
            "instruction": one,
            "revision": one.current_revision,
            "student": "s",
            "split": "test",
            "source": "x",
        }
        InstructionImpact.objects.create(flipped=1, n=100, **measured)
        assert double_bases(one) == []
        InstructionImpact.objects.create(flipped=2, n=100, **measured)
        assert double_bases(one) == ["impact"]

    def test_lowering_the_share_frees_nothing_that_waits(self, drawn: Instruction, ana: User, ben: User) -> None:
        approve(drawn, ana)
        make_policy(drawn.task, double_percent=0)
        refused("two reviewers decide", lambda: approve_directly(drawn, ben))


class TestTheDatabase:
    def test_one_decision_approves_nothing_that_was_drawn(self, drawn: Instruction, ana: User) -> None:
        refused("two reviewers decide", lambda: approve_directly(drawn, ana))

    def test_nor_after_one_opinion(self, drawn: Instruction, ana: User, ben: User) -> None:
        approve(drawn, ana)
        refused("two reviewers decide", lambda: approve_directly(drawn, ana))
        refused("two reviewers decide", lambda: approve_directly(drawn, ben))

    def test_nor_by_raw_sql(self, drawn: Instruction, ana: User) -> None:
        with transaction.atomic():
            event = audit_record("instruction.approved", actor=ana, subject=drawn)
            Decision.objects.create(
                instruction=drawn, revision=text_row(drawn), kind=DecisionKind.APPROVE, actor=ana, event=event
            )

        def update() -> None:
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE rules_instruction SET status = 'approved', approved_revision_id = current_revision_id"
                    " WHERE id = %s",
                    [drawn.pk],
                )

        refused("two reviewers decide", update)

    def _opinion(self, double: DoubleReview, actor: User, seat: int, verdict: str = "approve", **more: Any) -> Opinion:
        event = audit_record("opinion.recorded", actor=actor, subject=double)
        values: dict[str, Any] = {"double": double, "actor": actor, "seat": seat, "verdict": verdict, "event": event}
        return Opinion.objects.create(**(values | more))

    def test_one_of_the_two_does_not_settle(self, drawn: Instruction, ana: User, ben: User) -> None:
        approve(drawn, ana)
        reject(drawn, ben, reason="unclear")
        double = drawn.double_reviews.get()
        with pytest.raises(IntegrityError, match="opinion_one_per_person"), transaction.atomic():
            self._opinion(double, ana, 3)
        drawn.refresh_from_db()
        refused("two reviewers decide", lambda: approve_directly(drawn, ana))

    def test_no_opinion_after_agreement_nor_of_others_roles(
        self, drawn: Instruction, ana: User, ben: User, cem: User, ada: User, sam: User
    ) -> None:
        approve(drawn, ana)
        double = drawn.double_reviews.get()
        for person in (ada, sam):
            refused("only an active reviewer", lambda person=person: self._opinion(double, person, 2))  # type: ignore[misc]
        refused("opinions are numbered", lambda: self._opinion(double, ben, 3))
        event = audit_record("opinion.recorded", actor=ana, subject=double)
        refused("an opinion needs its own", lambda: self._opinion(double, ben, 2, event=event))
        approve(drawn, ben)
        refused("this double review is over", lambda: self._opinion(double, cem, 3))

    def test_who_did_not_give_the_last_opinion_does_not_close_it(
        self, drawn: Instruction, ana: User, ben: User, cem: User
    ) -> None:
        approve(drawn, ana)
        self._opinion(drawn.double_reviews.get(), ben, 2)
        refused("two reviewers decide", lambda: approve_directly(drawn, cem))

    def test_opinions_are_not_thrown_away(self, drawn: Instruction, ana: User, ben: User) -> None:
        approve(drawn, ana)
        reject(drawn, ben, reason="unclear")
        double = DoubleReview.objects.filter(instruction=drawn)
        for why in ("undone", "edited", "reopened", ""):
            refused(
                "opinions once given stand",
                lambda why=why: double.update(voided_at=factories.now(), voided_why=why),  # type: ignore[misc]
            )
        for call in (
            lambda: Opinion.objects.filter(double__instruction=drawn).update(verdict="approve"),
            lambda: Opinion.objects.filter(double__instruction=drawn).delete(),
        ):
            with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
                call()

    def test_an_author_gives_no_second_opinion_on_their_edit(self, drawn: Instruction, ana: User, ben: User) -> None:
        edit(drawn, ana, text=EDIT)
        drawn.refresh_from_db()
        double = DoubleReview.objects.create(instruction=drawn, revision=text_row(drawn))
        refused("nobody approves their own edit", lambda: self._opinion(double, ana, 1))
        refused("the first opinion on an edit", lambda: self._opinion(double, ben, 1))

    def test_a_double_review_names_the_present_text_and_needs_a_reason(self, task: Task, ana: User) -> None:
        plain = make_instruction(task)
        refused(
            "nothing asks for a second",
            lambda: DoubleReview.objects.create(instruction=plain, revision=text_row(plain)),
        )

    def test_only_an_administrator_changes_the_policy(self, task: Task, ana: User) -> None:
        event = audit_record("review_policy.changed", actor=ana, subject=task)
        refused(
            "only an active administrator",
            lambda: task.review_policies.create(version=2, author=ana, event=event, double_percent=0),
        )
        with pytest.raises(IntegrityError, match="review_policy_change_has_author"), transaction.atomic():
            task.review_policies.create(version=2, double_percent=0)
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            task.review_policies.update(double_percent=0)


def _at_once(*calls: Callable[[], Any]) -> list[object]:
    outcomes: list[object] = []
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> None:
        try:
            barrier.wait(timeout=20)
            outcomes.append(call())
        except Refusal as refusal:
            outcomes.append(refusal)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return outcomes


@pytest.mark.django_db(transaction=True)
def test_two_and_three_at_once_never_decide_alone() -> None:
    people = [make_user(name, Role.REVIEWER, Domain.LEGAL) for name in ("ana", "ben", "cem")]
    task = factories.make_task(policy={"double_percent": 100})
    for _round in range(15):
        one = make_instruction(task, RULE)
        decide = partial(services.instruction_approve, instruction_id=one.pk, version=1)
        outcomes = _at_once(*(partial(decide, reviewer=person) for person in people))
        assert sum(isinstance(outcome, Refusal) for outcome in outcomes) == 1, outcomes
        one.refresh_from_db()
        assert one.status == InstructionStatus.APPROVED
        assert Opinion.objects.filter(double__instruction=one).count() == 2
        assert Decision.objects.filter(instruction=one).count() == 1
    assert set(Verdict.values) == {"approve", "reject"}
