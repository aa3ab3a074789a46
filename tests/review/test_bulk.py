"""Decisions in bulk: ordinary ones, whole or not at all, and what the database refuses of them."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import AuditEvent, Domain, Role, User
from rules.models import (
    BatchAct,
    BatchItem,
    CardLook,
    Decision,
    DecisionKind,
    Instruction,
    InstructionTag,
    KeptPair,
    NearDuplicate,
    Opinion,
    PauseReason,
    ReviewBatch,
    Task,
    Waiting,
)
from rules.services import batches, pairs, tags
from rules.services.assignments import batch_assign
from rules.services.attention import look_open, pause_open
from rules.services.batches import NothingDone
from rules.services.claims import claim_take_over
from tests import factories
from tests.review.conftest import EDIT, RULE, approve, defer, edit, reject, reopen

ALIKE = "If copies may be kept for thirty days, label it Compliant."


def shown(*rows: Instruction) -> dict[int, int]:
    """As a page shows them now."""
    for row in rows:
        row.refresh_from_db()
    return {row.number: row.version for row in rows}


def some(task: Task, count: int, **fields: Any) -> list[Instruction]:
    return [factories.make_instruction(task, RULE, **fields) for _number in range(count)]


def family(task: Task, count: int, reader: User | None = None, **fields: Any) -> list[Instruction]:
    """Near-duplicates, the first of them opened by `reader`."""
    rows = [factories.make_instruction(task, RULE if place == 0 else ALIKE, **fields) for place in range(count)]
    for row in rows:
        NearDuplicate.objects.create(instruction=row, family=rows[0].number)
    if reader is not None:
        look_open(instruction=rows[0], user=reader)
    return rows


def states(rows: list[Instruction]) -> list[tuple[str, str]]:
    for row in rows:
        row.refresh_from_db()
    return [(row.status, row.waiting) for row in rows]


def bulk_reject(task: Task, actor: User, rows: list[Instruction], **more: Any) -> batches.BulkDone:
    return batches.batch_reject(task=task, actor=actor, shown=shown(*rows), **({"reason": "unclear"} | more))


def bulk_approve(task: Task, actor: User, rows: list[Instruction], **more: Any) -> batches.BulkDone:
    values: dict[str, Any] = {"opened": rows[0].number, "shown": shown(*rows)} | more
    return batches.batch_approve(task=task, actor=actor, **values)


class TestDecidingInBulk:
    def test_each_is_an_ordinary_decision_with_its_own_event(self, task: Task, ana: User) -> None:
        rows = some(task, 3)
        done = bulk_reject(task, ana, rows, note="Not in this contract.")
        assert (done.done, done.refused) == ([1, 2, 3], {})
        assert states(rows) == [("rejected", "")] * 3
        batch = ReviewBatch.objects.get()
        for row in rows:
            decision = Decision.objects.get(instruction=row)
            assert (decision.kind, decision.reason, decision.note) == ("reject", "unclear", "Not in this contract.")
            assert decision.event.data["batch"] == batch.pk
            assert batch.items.get(instruction=row).event == decision.event
            assert factories.audit_actions(row) == ["instruction.rejected"]

    def test_what_cannot_be_is_told_and_the_others_are_done(self, task: Task, ana: User, ben: User) -> None:
        done_already, held, changed, free = some(task, 4)
        approve(done_already, ben)
        claim_take_over(instruction_id=held.pk, reviewer=ben)
        sent = shown(done_already, held, changed, free)
        defer(changed, ben)
        done = batches.batch_reject(task=task, actor=ana, shown=sent | {99: 1}, reason="unclear")
        assert done.done == [free.number]
        words = {"already approved", "Ben is working", "Someone changed this", "no such instruction"}
        assert len(done.refused) == len(words)
        assert all(any(word in said for said in done.refused.values()) for word in words), done.refused
        assert Decision.objects.filter(actor=ana).count() == 1

    def test_nothing_possible_leaves_nothing(self, task: Task, ana: User) -> None:
        rows = some(task, 2)
        sent = shown(*rows)
        batches.batch_defer(task=task, actor=ana, shown=sent)
        events = AuditEvent.objects.count()
        with pytest.raises(NothingDone) as caught:
            batches.batch_defer(task=task, actor=ana, shown=sent)
        assert set(caught.value.refused) == {1, 2}
        assert (ReviewBatch.objects.count(), AuditEvent.objects.count()) == (1, events)

    def test_of_another_task_is_out_of_reach(self, task: Task, ana: User) -> None:
        other = factories.make_task("other")
        row = factories.make_instruction(other, RULE)
        with pytest.raises(NothingDone):
            batches.batch_reject(task=task, actor=ana, shown={row.number: 1}, reason="unclear")

    @pytest.mark.parametrize("name", ["sam", "ada", "abe"])
    def test_only_reviewers_decide(self, task: Task, name: str, request: pytest.FixtureRequest) -> None:
        with pytest.raises(NotAllowed):
            bulk_reject(task, request.getfixturevalue(name), some(task, 1))

    def test_more_than_a_hundred_are_refused(self, task: Task, ana: User) -> None:
        with pytest.raises(InvalidInput, match="100"):
            batches.batch_defer(task=task, actor=ana, shown=dict.fromkeys(range(101), 1))

    def test_two_reviewers_stay_two_also_in_bulk(self, ana: User, ben: User) -> None:
        task = factories.make_task(policy={"double_percent": 100})
        rows = some(task, 2)
        assert bulk_reject(task, ana, rows).done == [1, 2]
        assert states(rows) == [("proposed", "")] * 2
        assert "decided on it" in str(_refused(lambda: bulk_reject(task, ana, rows)))
        bulk_reject(task, ben, rows)
        assert states(rows) == [("rejected", "")] * 2
        assert Opinion.objects.count() == 4

    def test_what_two_disagree_on_is_settled_on_its_card(self, ana: User, ben: User) -> None:
        task = factories.make_task(policy={"double_percent": 100})
        (row,) = some(task, 1)
        approve(row, ana)
        reject(row, ben, reason="scope")
        third = factories.make_user("theo", Role.REVIEWER, Domain.LEGAL)
        assert "settled on its card" in str(_refused(lambda: bulk_reject(task, third, [row])))

    def test_evidence_first_is_no_less_first(self, ana: User) -> None:
        task = factories.make_task(policy={"blind_first": True, "blind_percent": 100})
        (row,) = some(task, 1)
        assert "evidence shows" in str(_refused(lambda: bulk_reject(task, ana, [row])))
        assert batches.batch_defer(task=task, actor=ana, shown=shown(row)).done == [1]

    def test_a_paused_reviewer_decides_nothing(self, task: Task, ana: User) -> None:
        rows = some(task, 2)
        with transaction.atomic():
            pause_open(task=task, user=ana, reason=PauseReason.SPEED)
        assert "paused" in str(_refused(lambda: bulk_reject(task, ana, rows)))


def _refused(act: Callable[[], object]) -> dict[int, str]:
    with pytest.raises(NothingDone) as caught:
        act()
    return caught.value.refused


class TestApprovingInBulk:
    def test_near_duplicates_of_the_opened_card(self, task: Task, ana: User) -> None:
        rows = family(task, 4, ana)
        done = bulk_approve(task, ana, rows)
        assert done.done == [1, 2, 3, 4]
        assert states(rows) == [("approved", "")] * 4
        assert Decision.objects.filter(kind=DecisionKind.APPROVE).count() == 4

    def test_not_without_opening_it(self, task: Task, ana: User) -> None:
        rows = family(task, 2)
        with pytest.raises(WrongState, match="Open the card"):
            bulk_approve(task, ana, rows)
        assert not Decision.objects.exists()

    def test_not_on_an_older_look(self, task: Task, ana: User, ben: User) -> None:
        rows = family(task, 2, ana)
        defer(rows[0], ben)
        with pytest.raises(WrongState):
            bulk_approve(task, ana, rows)

    def test_ten_at_most(self, task: Task, ana: User) -> None:
        rows = family(task, 11, ana)
        with pytest.raises(InvalidInput, match="at most nine"):
            bulk_approve(task, ana, rows)
        assert len(bulk_approve(task, ana, rows[:10]).done) == 10

    def test_what_is_not_alike_stays(self, task: Task, ana: User, ben: User) -> None:
        rows = family(task, 2, ana)
        no_kin, edited = some(task, 2)
        breach = factories.make_instruction(task, ALIKE, label="Breach")
        sixty = factories.make_instruction(task, ALIKE.replace("thirty", "sixty"))
        for row in (breach, sixty, edited):
            NearDuplicate.objects.create(instruction=row, family=rows[0].number)
        edit(edited, ben, text=EDIT)
        done = bulk_approve(task, ana, [*rows, no_kin, breach, sixty, edited])
        assert done.done == [1, 2]
        assert "no near-duplicate" in done.refused[no_kin.number]
        assert "no near-duplicate" in done.refused[breach.number]
        assert "a number" in done.refused[sixty.number]
        assert "worded it" in done.refused[edited.number]

    def test_one_sentence_for_draws_check_items_and_the_rest(self, ana: User, ada: User) -> None:
        """Whatever asks for a card of its own is told in the same words."""
        task = factories.make_task(policy={"double_percent": 100, "evidence_percent": 0})
        rows = family(task, 3, ana)
        seeded = factories.make_instruction(task, ALIKE, is_seeded=True)
        NearDuplicate.objects.create(instruction=seeded, family=1)
        done = bulk_approve(task, ana, [*rows, seeded])
        assert done.done == [1]
        assert set(done.refused.values()) == {"It is decided on its card."}
        # The opened card itself was judged, and waits like any that was drawn.
        assert states(rows[:1]) == [("proposed", "")]
        assert Opinion.objects.get().verdict == "approve"

    def test_the_question_after_the_evidence_is_asked_here_too(self, ana: User) -> None:
        task = factories.make_task(policy={"evidence_percent": 100})
        rows = family(task, 2, ana)
        with pytest.raises(InvalidInput, match="evidence"):
            bulk_approve(task, ana, rows)
        done = bulk_approve(task, ana, rows, convinced=2)
        # The other one is drawn for the question as well, so it waits for its own card.
        assert (done.done, done.refused) == ([1], {2: "It is decided on its card."})
        assert CardLook.objects.get(user=ana).convinced_by == 2

    def test_if_the_opened_one_cannot_be_approved_none_is(self, task: Task, ana: User, ben: User) -> None:
        rows = family(task, 2, ana)
        sent = shown(*rows)
        approve(rows[0], ben)
        with pytest.raises(WrongState):
            batches.batch_approve(task=task, actor=ana, opened=1, shown=sent)
        assert states(rows)[1] == ("proposed", "")


class TestUndo:
    def test_a_whole_batch_is_taken_back_once_with_an_event_each(self, task: Task, ana: User) -> None:
        rows = some(task, 3)
        batch = bulk_reject(task, ana, rows).batch
        assert batch
        done = batches.batch_undo(batch_id=batch.pk, actor=ana)
        assert done.done == [1, 2, 3]
        assert states(rows) == [("in_review", "")] * 3
        for row in rows:
            assert factories.audit_actions(row) == ["instruction.rejected", "instruction.reopened"]
        with pytest.raises(WrongState, match="already"):
            batches.batch_undo(batch_id=batch.pk, actor=ana)

    def test_only_by_its_actor(self, task: Task, ana: User, ben: User) -> None:
        batch = bulk_reject(task, ana, some(task, 1)).batch
        assert batch
        with pytest.raises(NotAllowed, match="Ana"):
            batches.batch_undo(batch_id=batch.pk, actor=ben)

    def test_what_was_decided_on_since_stays(self, task: Task, ana: User, ben: User) -> None:
        rows = some(task, 3)
        batch = bulk_reject(task, ana, rows).batch
        assert batch
        reopen(rows[0], ben, note="Look again.")
        reopen(rows[1], ana, note="Look again.")
        approve(rows[1], ana)
        done = batches.batch_undo(batch_id=batch.pk, actor=ana)
        assert done.done == [3]
        assert states(rows) == [("in_review", ""), ("approved", ""), ("in_review", "")]

    def test_opinions_are_taken_back_while_they_wait(self, ana: User, ben: User) -> None:
        task = factories.make_task(policy={"double_percent": 100})
        rows = some(task, 2)
        batch = bulk_reject(task, ana, rows).batch
        assert batch
        approve(rows[0], ben)
        done = batches.batch_undo(batch_id=batch.pk, actor=ana)
        assert done.done == [2]
        assert states(rows) == [("in_review", Waiting.DISPUTED), ("proposed", "")]

    def test_a_settled_opinion_is_reopened(self, ana: User, ben: User) -> None:
        task = factories.make_task(policy={"double_percent": 100})
        rows = some(task, 1)
        reject(rows[0], ben, reason="scope")
        batch = bulk_reject(task, ana, rows).batch
        assert batch
        assert states(rows) == [("rejected", "")]
        assert batches.batch_undo(batch_id=batch.pk, actor=ana).done == [1]
        assert states(rows)[0][0] == "in_review"


class TestTagsAndAssignments:
    def test_tags_are_put_on_and_off_on_record(self, task: Task, ana: User, ada: User) -> None:
        rows = some(task, 2)
        assert tags.batch_tag(task=task, by=ana, shown=shown(*rows), name="  side   letters ").done == [1, 2]
        assert list(InstructionTag.objects.values_list("name", flat=True)) == ["side letters"] * 2
        third = factories.make_instruction(task, RULE)
        done = tags.batch_tag(task=task, by=ada, shown=shown(*rows, third), name="side letters")
        assert (done.done, set(done.refused)) == ([3], {1, 2})
        assert tags.batch_untag(task=task, by=ada, shown=shown(rows[0]), name="side letters").done == [1]
        assert factories.audit_actions(rows[0]) == ["instruction.tagged", "instruction.untagged"]

    @pytest.mark.parametrize("name", ["", "   ", "x" * 31, "a\u202eb"])
    def test_a_tag_is_a_short_visible_word(self, task: Task, ana: User, name: str) -> None:
        with pytest.raises(InvalidInput):
            tags.batch_tag(task=task, by=ana, shown=shown(*some(task, 1)), name=name)

    @pytest.mark.parametrize("name", ["sam", "abe"])
    def test_others_do_not_tag(self, task: Task, name: str, request: pytest.FixtureRequest) -> None:
        with pytest.raises(NotAllowed):
            tags.batch_tag(task=task, by=request.getfixturevalue(name), shown=shown(*some(task, 1)), name="x")

    def test_work_is_assigned_each_on_record(self, task: Task, ana: User, ben: User) -> None:
        rows = [*some(task, 2, domain="legal"), *some(task, 1, domain="finance")]
        done = batch_assign(task=task, by=ana, shown=shown(*rows), person=ben)
        assert (done.done, list(done.refused)) == ([1, 2], [3])
        assert factories.audit_actions(rows[0]) == ["instruction.assigned"]
        assert set(_refused(lambda: batch_assign(task=task, by=ana, shown=shown(*rows), person=ben))) == {1, 2, 3}
        assert batch_assign(task=task, by=ana, shown=shown(*rows)).done == [1, 2]


class TestKeepingBoth:
    def test_it_is_on_record_once(self, task: Task, ana: User) -> None:
        first, second = some(task, 2)

        def keep() -> KeptPair:
            sent = shown(first, second)
            return pairs.pair_keep(
                instruction_id=second.pk, other_id=first.pk, reviewer=ana, version=sent[2], other_version=sent[1]
            )

        kept = keep()
        assert (kept.first, kept.second) == (first.current_revision, second.current_revision)
        assert factories.audit_actions(second) == ["pair.kept"]
        with pytest.raises(WrongState, match="already"):
            keep()

    def test_not_what_was_not_shown(self, task: Task, ana: User, ben: User) -> None:
        first, second = some(task, 2)
        edit(second, ben, text=EDIT)
        with pytest.raises(WrongState):
            pairs.pair_keep(instruction_id=first.pk, other_id=second.pk, reviewer=ana, version=1, other_version=1)


def refused_at_commit(words: str, act: Callable[[], object]) -> None:
    def commit() -> None:
        with transaction.atomic():
            act()
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    with pytest.raises(IntegrityError, match=words):
        commit()


def decided(row: Instruction, actor: User, kind: DecisionKind = DecisionKind.DEFER) -> AuditEvent:
    """A decision past the services, and its event."""
    action = {DecisionKind.DEFER: "deferred", DecisionKind.APPROVE: "approved", DecisionKind.REJECT: "rejected"}[kind]
    event = audit_record(f"instruction.{action}", actor=actor, subject=row)
    reason = "scope" if kind == DecisionKind.REJECT else ""
    Decision.objects.create(
        instruction=row, revision=factories.text_row(row), kind=kind, actor=actor, event=event, reason=reason
    )
    return event


def put(actor: User, row: Instruction, event: AuditEvent, act: str = "defer", **fields: Any) -> BatchItem:
    batch = ReviewBatch.objects.create(task=row.task, act=act, actor=actor, **fields)
    return BatchItem.objects.create(batch=batch, instruction=row, event=event)


class TestTheDatabase:
    def test_an_item_is_a_decision_of_its_actor(self, task: Task, ana: User, ben: User) -> None:
        row, other = some(task, 2)
        words = "a decision of its actor in its task"
        refused_at_commit(words, lambda: put(ana, row, audit_record("instruction.deferred", actor=ana, subject=row)))
        refused_at_commit(words, lambda: put(ana, row, decided(row, ben)))
        refused_at_commit(words, lambda: put(ana, row, decided(other, ana)))
        refused_at_commit(words, lambda: put(ana, row, decided(row, ana), act="reject"))
        foreign = factories.make_instruction(factories.make_task("other"), RULE)

        def elsewhere() -> None:
            batch = ReviewBatch.objects.create(task=task, act="defer", actor=ana)
            BatchItem.objects.create(batch=batch, instruction=foreign, event=decided(foreign, ana))

        refused_at_commit(words, elsewhere)
        put(ana, row, decided(row, ana))

    def test_an_approval_in_bulk_needs_the_opened_card(self, task: Task, ana: User) -> None:
        rows = family(task, 2)
        words = "open the card"
        kind = DecisionKind.APPROVE
        refused_at_commit(words, lambda: put(ana, rows[0], decided(rows[0], ana, kind), "approve", opened=rows[0]))
        refused_at_commit("opened", lambda: put(ana, rows[0], decided(rows[0], ana, kind), "approve"))

    def test_only_near_duplicates_of_one_label_and_mined(self, task: Task, ana: User, ben: User) -> None:
        rows = family(task, 2, ana)
        stranger = factories.make_instruction(task, ALIKE)
        breach = factories.make_instruction(task, ALIKE, label="Breach")
        worded = factories.make_instruction(task, ALIKE)
        for one in (breach, worded):
            NearDuplicate.objects.create(instruction=one, family=1)
        edit(worded, ben, text=EDIT)

        def with_it(row: Instruction) -> Callable[[], object]:
            def act() -> None:
                event = decided(rows[0], ana, DecisionKind.APPROVE)
                batch = put(ana, rows[0], event, "approve", opened=rows[0]).batch
                BatchItem.objects.create(batch=batch, instruction=row, event=decided(row, ana, DecisionKind.APPROVE))

            return act

        worded.refresh_from_db()
        refused_at_commit("only near-duplicates", with_it(stranger))
        refused_at_commit("only near-duplicates", with_it(breach))
        refused_at_commit("somebody worded", with_it(worded))
        with transaction.atomic():
            with_it(rows[1])()

    def test_a_batch_of_approvals_holds_its_opened_card_and_no_more_than_ten(self, task: Task, ana: User) -> None:
        rows = family(task, 11, ana)

        def approve_all(chosen: list[Instruction]) -> None:
            batch = ReviewBatch.objects.create(task=task, act=BatchAct.APPROVE, actor=ana, opened=rows[0])
            for row in chosen:
                event = decided(row, ana, DecisionKind.APPROVE)
                BatchItem.objects.create(batch=batch, instruction=row, event=event)

        refused_at_commit("at most ten", lambda: approve_all(rows))
        refused_at_commit("opened card", lambda: approve_all(rows[1:3]))
        refused_at_commit("holds a decision", lambda: approve_all([]))

    @pytest.mark.parametrize("name", ["sam", "ada", "abe"])
    def test_a_batch_is_a_reviewers(self, task: Task, name: str, request: pytest.FixtureRequest) -> None:
        person = request.getfixturevalue(name)
        refused_at_commit("active reviewer", lambda: ReviewBatch.objects.create(task=task, act="defer", actor=person))

    def test_nothing_but_its_undoing_changes_a_batch(self, task: Task, ana: User, ben: User) -> None:
        rows = some(task, 1)
        batch = bulk_reject(task, ana, rows).batch
        assert batch
        rows_of = ReviewBatch.objects.filter(pk=batch.pk)
        refused_at_commit("changed in nothing else", lambda: rows_of.update(act="defer"))
        refused_at_commit("changed in nothing else", lambda: rows_of.update(actor=ben))
        refused_at_commit("by its actor, decision by decision", lambda: rows_of.update(undone_at=factories.now()))
        for statement in (
            "DELETE FROM rules_reviewbatch",
            "DELETE FROM rules_batchitem",
            "UPDATE rules_batchitem SET id = id",
        ):
            refused_at_commit("append-only", lambda statement=statement: run(statement))  # type: ignore[misc]
        batches.batch_undo(batch_id=batch.pk, actor=ana)
        refused_at_commit("undone once", lambda: rows_of.update(undone_at=None))
        refused_at_commit("undone once", lambda: rows_of.update(undone_at=factories.now()))

    def test_a_tag_comes_and_goes_with_its_event(self, task: Task, ana: User, ben: User, sam: User) -> None:
        (row,) = some(task, 1)
        words = "own audit event"

        def tag(by: User, said: dict[str, str], action: str = "instruction.tagged", actor: User = ana) -> None:
            InstructionTag.objects.create(instruction=row, name="x", by=by)
            audit_record(action, actor=actor, subject=row, data=said)

        refused_at_commit(words, lambda: InstructionTag.objects.create(instruction=row, name="x", by=ana))
        refused_at_commit(words, lambda: tag(ana, {"tag": "y"}))
        refused_at_commit(words, lambda: tag(ben, {"tag": "x"}))
        refused_at_commit(words, lambda: tag(ana, {"tag": "x"}, "instruction.untagged"))
        refused_at_commit("reviewers and administrators tag", lambda: tag(sam, {"tag": "x"}, actor=sam))
        with transaction.atomic():
            tag(ana, {"tag": "x"})
        refused_at_commit("never changed", lambda: InstructionTag.objects.update(name="z"))

    def test_a_pair_is_of_present_texts_with_its_event(self, task: Task, ana: User, ben: User, sam: User) -> None:
        first, second = some(task, 2)
        old = second.current_revision
        edit(second, ben, text=EDIT)
        second.refresh_from_db()

        def keep(by: User, action: str, revision: Any) -> None:
            event = audit_record(action, actor=by, subject=first)
            KeptPair.objects.create(
                first=factories.text_row(first), second=revision, instruction=first, actor=by, event=event
            )

        refused_at_commit("present texts", lambda: keep(ana, "pair.kept", old))
        refused_at_commit("active reviewer", lambda: keep(sam, "pair.kept", second.current_revision))
        refused_at_commit("does not say", lambda: keep(ana, "instruction.tagged", second.current_revision))
        with transaction.atomic():
            keep(ana, "pair.kept", second.current_revision)
        refused_at_commit("append-only", lambda: KeptPair.objects.all().delete())


def run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.django_db(transaction=True)
class TestWrittenWhole:
    def test_nothing_is_added_to_a_batch_later(self) -> None:
        task, ana = factories.make_task(), factories.make_user("ana", Role.REVIEWER, Domain.LEGAL)
        first, second = some(task, 2)
        with transaction.atomic():
            item = put(ana, first, decided(first, ana))

        def later() -> None:
            with transaction.atomic():
                BatchItem.objects.create(batch=item.batch, instruction=second, event=decided(second, ana))

        with pytest.raises(IntegrityError, match="written whole"):
            later()

    def test_no_older_decision_joins_a_batch(self) -> None:
        task, ana = factories.make_task(), factories.make_user("ana", Role.REVIEWER, Domain.LEGAL)
        (row,) = some(task, 1)
        with transaction.atomic():
            event = decided(row, ana)

        def later() -> None:
            with transaction.atomic():
                put(ana, row, event)

        with pytest.raises(IntegrityError, match="written whole"):
            later()
