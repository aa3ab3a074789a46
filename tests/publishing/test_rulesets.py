"""Composing, freezing and withdrawing a ruleset: what works, and what is refused in words."""

import json

import pytest

from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, User
from rules.exceptions import InvalidTransition, Stale
from rules.models import Instruction, Ruleset, RulesetStatus, Task
from rules.selectors import rulesets as selectors
from rules.services.rulesets import (
    ruleset_create,
    ruleset_freeze,
    ruleset_item_add,
    ruleset_item_move,
    ruleset_item_remove,
    ruleset_refresh,
)
from rules.services.withdrawing import ruleset_withdraw
from tests.factories import approve_directly, audit_actions, make_instruction, make_proof, make_task
from tests.publishing import steps


def numbers(ruleset: Ruleset) -> list[int]:
    return list(ruleset.items.order_by("position").values_list("instruction__number", flat=True))


def item_id(ruleset: Ruleset, number: int) -> int:
    return ruleset.items.get(instruction__number=number).pk


def test_a_new_draft_holds_every_approved_instruction_topic_by_topic(task: Task, ana: User) -> None:
    for topic in ("term", "copies", "term"):
        approve_directly(make_instruction(task, topic=topic), ana)
    make_instruction(task, "Nobody has decided this.")
    ruleset = ruleset_create(task=task, composer=ana, name=" Spring ")
    assert (ruleset.number, ruleset.name, ruleset.status) == (1, "Spring", RulesetStatus.DRAFT)
    assert numbers(ruleset) == [1, 3, 2]
    assert audit_actions(ruleset) == ["ruleset.created"]


def test_a_draft_can_start_from_the_previous_order(task: Task, ana: User) -> None:
    first = steps.draft(task, ana)
    ruleset_item_move(ruleset_id=first.pk, item_id=item_id(first, 3), to=1, editor=ana, version=first.version)
    steps.approved(task, ana, 1)
    assert numbers(ruleset_create(task=task, composer=ana, start="previous")) == [3, 1, 2, 4]


def test_without_an_approved_instruction_there_is_no_ruleset(task: Task, ana: User) -> None:
    make_instruction(task)
    with pytest.raises(InvalidInput, match="No instruction is approved"):
        ruleset_create(task=task, composer=ana)
    assert not Ruleset.objects.exists()


@pytest.mark.parametrize("name", ["sam", "abe", "ada"])
def test_only_a_reviewer_composes(task: Task, ana: User, name: str, request: pytest.FixtureRequest) -> None:
    ruleset = steps.draft(task, ana)
    person: User = request.getfixturevalue(name)
    with pytest.raises(NotAllowed):
        ruleset_create(task=task, composer=person)
    with pytest.raises(NotAllowed):
        ruleset_freeze(ruleset_id=ruleset.pk, editor=person, version=ruleset.version)


def test_items_are_moved_removed_and_added_and_the_last_editor_is_the_composer(
    task: Task, ana: User, ben: User
) -> None:
    ruleset = steps.draft(task, ana, 4)
    ruleset = ruleset_item_move(
        ruleset_id=ruleset.pk, item_id=item_id(ruleset, 4), to=1, editor=ana, version=ruleset.version
    )
    assert numbers(ruleset) == [4, 1, 2, 3]
    ruleset = ruleset_item_move(
        ruleset_id=ruleset.pk, item_id=item_id(ruleset, 4), to=99, editor=ana, version=ruleset.version
    )
    assert numbers(ruleset) == [1, 2, 3, 4]
    ruleset = ruleset_item_remove(
        ruleset_id=ruleset.pk, item_id=item_id(ruleset, 2), editor=ana, version=ruleset.version
    )
    assert numbers(ruleset) == [1, 3, 4]
    left_out = selectors.addable(ruleset).get()
    ruleset = ruleset_item_add(ruleset_id=ruleset.pk, instruction_id=left_out.pk, editor=ben, version=ruleset.version)
    assert numbers(ruleset) == [1, 3, 4, 2]
    assert list(ruleset.items.values_list("position", flat=True)) == [1, 2, 3, 4]
    assert ruleset.composed_by == ben
    assert audit_actions(ruleset) == ["ruleset.created", *["ruleset.changed"] * 4]


def test_a_form_opened_on_an_older_draft_is_refused(task: Task, ana: User, ben: User) -> None:
    ruleset = steps.draft(task, ana)
    first, second = item_id(ruleset, 1), item_id(ruleset, 2)
    ruleset_item_remove(ruleset_id=ruleset.pk, item_id=first, editor=ben, version=ruleset.version)
    with pytest.raises(Stale):
        ruleset_item_remove(ruleset_id=ruleset.pk, item_id=second, editor=ana, version=ruleset.version)
    with pytest.raises(Stale):
        ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)
    assert numbers(ruleset) == [2, 3]


def test_freezing_fixes_a_manifest_of_the_approved_texts(task: Task, ana: User) -> None:
    ruleset = steps.frozen(task, ana, 2)
    assert ruleset.status == RulesetStatus.IN_SIGN_OFF
    assert ruleset.frozen_at is not None
    manifest = selectors.ruleset_manifest(ruleset)
    assert manifest is not None
    assert [(one.number, one.approved_by, one.author) for one in manifest.instructions] == [
        (1, "ana", ""),
        (2, "ana", ""),
    ]
    assert manifest.prompt_sha256 == ruleset.prompt_sha256 == sha256_hex(ruleset.prompt)
    event = AuditEvent.objects.get(action="ruleset.frozen")
    assert event.data["manifest_sha256"] == ruleset.manifest_sha256 == sha256_hex(bytes(ruleset.manifest or b""))
    policy = json.loads(bytes(ruleset.manifest or b""))["policy"]
    assert (policy["version"], policy["signer_roles"], policy["signers_required"]) == (1, ["signatory"], 2)


def test_a_frozen_ruleset_takes_no_change(task: Task, ana: User) -> None:
    ruleset = steps.frozen(task, ana)
    with pytest.raises(Stale, match="frozen or withdrawn"):
        ruleset_item_remove(ruleset_id=ruleset.pk, item_id=item_id(ruleset, 1), editor=ana, version=ruleset.version)
    with pytest.raises(Stale, match="frozen or withdrawn"):
        ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)


def test_an_empty_draft_is_not_frozen(task: Task, ana: User) -> None:
    ruleset = steps.draft(task, ana, 1)
    ruleset = ruleset_item_remove(
        ruleset_id=ruleset.pk, item_id=item_id(ruleset, 1), editor=ana, version=ruleset.version
    )
    with pytest.raises(InvalidInput, match="is empty"):
        ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)


@pytest.mark.parametrize("seeded", [True, False])
def test_only_approved_text_of_this_task_is_added(task: Task, ana: User, seeded: bool) -> None:
    ruleset = steps.draft(task, ana)
    other = make_instruction(task, is_seeded=seeded)
    elsewhere = approve_directly(make_instruction(make_task("ads")), ana)
    for instruction in (other, elsewhere):
        with pytest.raises(Stale, match="not approved"):
            ruleset_item_add(ruleset_id=ruleset.pk, instruction_id=instruction.pk, editor=ana, version=ruleset.version)


def test_an_outdated_draft_is_not_frozen_until_it_is_brought_up_to_date(task: Task, ana: User, ben: User) -> None:
    instructions = steps.approved(task, ana)
    ruleset = ruleset_create(task=task, composer=ana)
    steps.reopen(instructions[0], ben)
    steps.reopen(instructions[1], ben)
    approve_directly(instructions[1], ben)  # the same text again: the approval holds
    with pytest.raises(Stale, match="#1 no longer approved"):
        ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)
    rows = selectors.draft_rows(selectors.ruleset_items(ruleset))
    assert [bool(row.outdated) for row in rows] == [True, False, False]
    ruleset = ruleset_refresh(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)
    assert numbers(ruleset) == [2, 3]
    ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)


def test_a_newer_approved_text_takes_the_place_of_the_old(task: Task, ana: User, ben: User) -> None:
    instructions = steps.approved(task, ana)
    ruleset = ruleset_create(task=task, composer=ana)
    first = instructions[0]
    steps.reopen(first, ben)
    steps.edit(first, ana, "New words.")
    approve_directly(first, ben)
    ruleset = ruleset_refresh(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)
    assert numbers(ruleset) == [1, 2, 3]
    frozen = ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)
    assert "1. New words." in frozen.prompt


def test_reopening_an_instruction_withdraws_the_frozen_ruleset(task: Task, ana: User, ben: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    steps.sign(ruleset, sam)
    steps.reopen(Instruction.objects.get(number=2), ben)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.WITHDRAWN
    assert ruleset.withdrawn_reason == "Instruction #2 is no longer approved."


def test_a_released_ruleset_outlives_a_reopened_instruction(
    task: Task, ana: User, ben: User, sam: User, sue: User
) -> None:
    release = steps.in_production(task, ana, sam, sue)
    steps.reopen(Instruction.objects.get(number=2), ben)
    release.ruleset.refresh_from_db()
    assert release.ruleset.status == RulesetStatus.SIGNED


def test_a_reviewer_withdraws_a_draft_with_a_reason(task: Task, ana: User) -> None:
    ruleset = steps.draft(task, ana)
    with pytest.raises(InvalidInput, match="Say why"):
        ruleset_withdraw(ruleset_id=ruleset.pk, actor=ana, reason=" ")
    ruleset = ruleset_withdraw(ruleset_id=ruleset.pk, actor=ana, reason="Wrong order.", proof=make_proof(ana))
    assert (ruleset.status, ruleset.withdrawn_reason) == (RulesetStatus.WITHDRAWN, "Wrong order.")
    assert audit_actions(ruleset)[-1] == "ruleset.withdrawn"
    with pytest.raises(InvalidTransition, match="withdrawn already"):
        ruleset_withdraw(ruleset_id=ruleset.pk, actor=ana, reason="Again.", proof=make_proof(ana))


def test_who_may_withdraw_depends_on_how_far_it_is(
    task: Task, ana: User, sam: User, sue: User, abe: User, ada: User
) -> None:
    draft = steps.draft(task, ana)
    signed = steps.signed(task, ana, sam, sue)
    for ruleset, person in ((draft, sam), (signed, ana), (draft, abe), (draft, ada), (signed, ada)):
        with pytest.raises(NotAllowed):
            ruleset_withdraw(ruleset_id=ruleset.pk, actor=person, reason="No.", proof=make_proof(person))
    assert (
        ruleset_withdraw(ruleset_id=signed.pk, actor=sam, reason="Too wide.", proof=make_proof(sam)).status
        == RulesetStatus.WITHDRAWN
    )
