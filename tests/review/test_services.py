"""Each decision: what it does, what it records, and what it refuses."""

from typing import Any

import pytest
from django.db import IntegrityError, transaction

from pld_app.audit import audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import AuditEvent, User
from rules.exceptions import InvalidTransition, Stale
from rules.models import (
    Decision,
    DecisionKind,
    Instruction,
    InstructionStatus,
    Ruleset,
    RulesetStatus,
    Task,
    Waiting,
)
from rules.services import review as services
from rules.services import rulesets as ruleset_services
from rules.services.review_input import HiddenCharacters
from tests.factories import approve_directly, audit_actions
from tests.review.conftest import EDIT, RULE, approve, defer, edit, reject, reopen, send_back, undo


def last_event(instruction: Instruction) -> AuditEvent:
    return AuditEvent.objects.filter(object_type="instruction", object_id=str(instruction.pk)).latest("pk")


def state(instruction: Instruction) -> tuple[str, str, int]:
    instruction.refresh_from_db()
    return instruction.status, instruction.waiting, instruction.version


def test_approve_moves_and_records(instruction: Instruction, ana: User) -> None:
    approve(instruction, ana, note="clear")
    assert state(instruction) == ("approved", "", 2)
    assert instruction.approved_revision_id == instruction.current_revision_id
    assert instruction.decided_at is not None
    decision = instruction.decisions.get()
    assert (decision.kind, decision.actor, decision.note) == ("approve", ana, "clear")
    event = last_event(instruction)
    assert (event.pk, event.action, event.task_slug) == (decision.event_id, "instruction.approved", "nda")
    assert event.data == {
        "number": 1,
        "revision": 1,
        "text_sha256": sha256_hex(RULE),
        "from_status": "proposed",
        "from_waiting": "",
        "version": 2,
        "note": "clear",
    }


def test_edit_makes_a_revision_that_waits_for_a_second_reviewer(instruction: Instruction, ana: User, ben: User) -> None:
    edit(instruction, ana, text=EDIT)
    assert state(instruction) == ("in_review", "second", 2)
    revision = instruction.current_revision
    assert revision is not None
    assert (revision.number, revision.text, revision.author) == (2, EDIT, ana)
    assert last_event(instruction).data["text_sha256"] == sha256_hex(EDIT)
    approve(instruction, ben)
    assert state(instruction) == ("approved", "", 3)
    assert audit_actions(instruction) == ["instruction.edited", "instruction.approved"]


def test_own_edit_is_refused_by_the_service(instruction: Instruction, ana: User) -> None:
    edit(instruction, ana, text=EDIT)
    with pytest.raises(NotAllowed, match="your own edit"):
        approve(instruction, ana)
    assert audit_actions(instruction) == ["instruction.edited"]


def test_own_edit_is_refused_by_the_database(instruction: Instruction, ana: User) -> None:
    edit(instruction, ana, text=EDIT)
    instruction.refresh_from_db()
    with pytest.raises(IntegrityError, match="pld: nobody approves their own edit"), transaction.atomic():
        approve_directly(instruction, ana)


def test_approval_without_a_decision_is_refused_by_the_database(instruction: Instruction) -> None:
    with pytest.raises(IntegrityError, match="pld: approved needs a decision"), transaction.atomic():
        Instruction.objects.filter(pk=instruction.pk).update(
            status=InstructionStatus.APPROVED, approved_revision=instruction.current_revision
        )


def test_a_new_edit_by_a_colleague_may_be_approved_by_the_first_author(
    instruction: Instruction, ana: User, ben: User
) -> None:
    edit(instruction, ana, text=EDIT)
    edit(instruction, ben, text=RULE + " Count from the end.")
    approve(instruction, ana)
    assert state(instruction)[0] == "approved"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \r\n ", "empty"),
        (RULE, "unchanged"),
        (f"  {RULE}\r\n", "unchanged"),
        ("x" * 4_001, "1 character too long"),
        ("If not\u202e allowed, label Breach.", r"U\+202E"),
        ("If a\u200bllowed, label Breach.", r"U\+200B"),
        ("If \x00 then", r"U\+0000"),
        ("If \ud800 then", r"U\+D800"),
        ("If \U000e0041 then", r"U\+E0041"),
    ],
)
def test_edit_refuses_a_text_nobody_can_answer_for(instruction: Instruction, ana: User, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        edit(instruction, ana, text=text)
    assert state(instruction) == ("proposed", "", 1)
    assert instruction.revisions.count() == 1


def test_edit_keeps_a_text_of_the_greatest_length_and_plain_line_ends(instruction: Instruction, ana: User) -> None:
    edit(instruction, ana, text="a\r\nb" + "x" * 3_997)
    instruction.refresh_from_db()
    assert instruction.current_revision is not None
    assert instruction.current_revision.text == "a\nb" + "x" * 3_997


def test_hidden_characters_in_a_note_are_refused(instruction: Instruction, ana: User) -> None:
    with pytest.raises(HiddenCharacters):
        approve(instruction, ana, note="fine\u2066")


def test_reject_needs_a_reason(instruction: Instruction, ana: User) -> None:
    for reason, note in (("", ""), ("because", "x"), ("other", " ")):
        with pytest.raises(InvalidInput):
            reject(instruction, ana, reason=reason, note=note)
    reject(instruction, ana, reason="other", note="A colleague covers this.")
    assert state(instruction) == ("rejected", "", 2)
    assert last_event(instruction).data["reason"] == "other"


def test_defer_keeps_it_open_and_happens_once(instruction: Instruction, ana: User, ben: User) -> None:
    defer(instruction, ana)
    assert state(instruction) == ("in_review", "deferred", 2)
    with pytest.raises(InvalidTransition, match="already deferred"):
        defer(instruction, ben)
    approve(instruction, ben)
    assert state(instruction) == ("approved", "", 3)


def test_send_back_returns_an_edit_to_its_author(instruction: Instruction, ana: User, ben: User) -> None:
    edit(instruction, ana, text=EDIT)
    with pytest.raises(NotAllowed, match="edit it again"):
        send_back(instruction, ana, reason="unclear")
    send_back(instruction, ben, reason="unclear", note="Sixty from when?")
    assert state(instruction) == ("in_review", "sent_back", 3)
    with pytest.raises(InvalidTransition, match="already been sent back"):
        send_back(instruction, ben, reason="unclear")
    with pytest.raises(NotAllowed):
        approve(instruction, ana)
    edit(instruction, ana, text=EDIT + " From termination.")
    assert state(instruction) == ("in_review", Waiting.SECOND_REVIEWER, 4)


def test_send_back_of_a_mined_text_leaves_it_to_everybody(instruction: Instruction, ana: User, ben: User) -> None:
    send_back(instruction, ana, reason="scope")
    assert state(instruction) == ("in_review", "sent_back", 2)
    approve(instruction, ben)
    assert state(instruction)[0] == "approved"


@pytest.mark.parametrize("decide", [approve, defer])
def test_a_decided_instruction_is_not_decided_again(
    instruction: Instruction, ana: User, ben: User, decide: Any
) -> None:
    reject(instruction, ana, reason="unclear")
    with pytest.raises(InvalidTransition, match="already rejected"):
        decide(instruction, ben)
    with pytest.raises(InvalidTransition, match="already rejected"):
        edit(instruction, ben, text=EDIT)
    assert Decision.objects.count() == 1


def test_an_old_page_is_refused(instruction: Instruction, ana: User, ben: User) -> None:
    defer(instruction, ana)
    for call in (approve, defer):
        with pytest.raises(Stale):
            call(instruction, ben, version=1)
    for call, more in ((edit, {"text": EDIT}), (reject, {"reason": "unclear"}), (send_back, {"reason": "unclear"})):
        with pytest.raises(Stale):
            call(instruction, ben, version=1, **more)
    for call, more in ((reopen, {"note": "why"}), (undo, {})):
        with pytest.raises(Stale):
            call(instruction, ana, version=1, **more)
    assert audit_actions(instruction) == ["instruction.deferred"]


@pytest.mark.parametrize("who", ["sam", "abe", "ada"])
def test_only_reviewers_decide(instruction: Instruction, who: str, request: pytest.FixtureRequest) -> None:
    person: User = request.getfixturevalue(who)
    calls: list[tuple[Any, dict[str, str]]] = [
        (approve, {}),
        (edit, {"text": EDIT}),
        (reject, {"reason": "unclear"}),
        (defer, {}),
        (send_back, {"reason": "unclear"}),
        (reopen, {"note": "x"}),
        (undo, {}),
    ]
    for call, more in calls:
        with pytest.raises(NotAllowed):
            call(instruction, person, **more)
    assert not Decision.objects.exists()


def test_a_deactivated_reviewer_decides_no_more(instruction: Instruction, ana: User) -> None:
    User.objects.filter(pk=ana.pk).update(is_active=False)
    # The object in hand still says active: the database looks at the row.
    with pytest.raises(WrongState, match="only an active reviewer"):
        approve(instruction, ana)
    ana.refresh_from_db()
    with pytest.raises(NotAllowed):
        approve(instruction, ana)
    assert audit_actions(instruction) == []


def test_reopen_needs_a_decision_and_a_note(instruction: Instruction, ana: User, ben: User) -> None:
    with pytest.raises(InvalidTransition, match="still in review"):
        reopen(instruction, ana, note="why")
    approve(instruction, ana)
    with pytest.raises(InvalidInput, match="why"):
        reopen(instruction, ben, note="  ")
    assert reopen(instruction, ben, note="New case law.").withdrawn == ()
    assert state(instruction) == ("in_review", "", 3)
    assert instruction.approved_revision is None
    assert instruction.decided_at is None


def test_a_reopened_edit_waits_for_its_second_reviewer_again(instruction: Instruction, ana: User, ben: User) -> None:
    edit(instruction, ana, text=EDIT)
    approve(instruction, ben)
    reopen(instruction, ana, note="Too long a period.")
    assert state(instruction)[:2] == ("in_review", "second")


def frozen_ruleset(task: Task, composer: User) -> Ruleset:
    ruleset = ruleset_services.ruleset_create(task=task, composer=composer)
    return ruleset_services.ruleset_freeze(ruleset_id=ruleset.pk, editor=composer, version=ruleset.version)


def test_reopen_withdraws_unreleased_rulesets_and_says_which(
    instruction: Instruction, task: Task, ana: User, ben: User
) -> None:
    approve(instruction, ana)
    ruleset = frozen_ruleset(task, ana)
    assert reopen(instruction, ben, note="New case law.").withdrawn == (ruleset.number,)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.WITHDRAWN
    assert audit_actions(ruleset)[-1] == "ruleset.withdrawn"


def test_undo_takes_back_ones_own_last_decision(instruction: Instruction, ana: User) -> None:
    approve(instruction, ana)
    undo(instruction, ana)
    assert state(instruction) == ("in_review", "", 3)
    assert last_event(instruction).data["undone"] == "approve"
    assert [decision.kind for decision in instruction.decisions.all()] == ["reopen", "approve"]


@pytest.mark.parametrize("decide", [approve, defer, (send_back, "reason"), (reject, "reason")])
def test_undo_restores_what_it_waited_for(instruction: Instruction, ana: User, ben: User, decide: Any) -> None:
    edit(instruction, ana, text=EDIT)
    call, more = (decide[0], {"reason": "unclear"}) if isinstance(decide, tuple) else (decide, {})
    call(instruction, ben, **more)
    undo(instruction, ben)
    assert state(instruction)[:2] == ("in_review", "second")
    with pytest.raises(NotAllowed):
        approve(instruction, ana)


def test_undo_is_refused_when_it_is_not_ones_own_or_something_happened_since(
    instruction: Instruction, ana: User, ben: User
) -> None:
    with pytest.raises(InvalidTransition, match="nothing of yours"):
        undo(instruction, ana)
    approve(instruction, ana)
    with pytest.raises(InvalidTransition, match="nothing of yours"):
        undo(instruction, ben)
    reopen(instruction, ben, note="Wait.")
    with pytest.raises(InvalidTransition, match="nothing of yours"):
        undo(instruction, ana)
    with pytest.raises(InvalidTransition, match="cannot be undone"):
        undo(instruction, ben)


def test_a_deferral_is_undone_once(instruction: Instruction, ana: User) -> None:
    defer(instruction, ana)
    undo(instruction, ana)
    assert state(instruction) == ("in_review", "", 3)
    with pytest.raises(InvalidTransition, match="nothing of yours"):
        undo(instruction, ana)


def test_the_database_refuses_a_decision_on_an_older_text(instruction: Instruction, ana: User, ben: User) -> None:
    first = instruction.current_revision
    assert first is not None
    edit(instruction, ana, text=EDIT)
    event = audit_record("instruction.approved", actor=ben, subject=instruction)
    with pytest.raises(IntegrityError, match="pld: a decision names the current text"):
        instruction.decisions.create(revision=first, kind=DecisionKind.APPROVE, actor=ben, event=event)


def test_a_failed_action_leaves_no_event_behind(instruction: Instruction, ana: User) -> None:
    services.instruction_approve(instruction_id=instruction.pk, reviewer=ana, version=1)
    with pytest.raises(Stale):
        services.instruction_approve(instruction_id=instruction.pk, reviewer=ana, version=1)
    assert AuditEvent.objects.filter(object_type="instruction").count() == Decision.objects.count() == 1
