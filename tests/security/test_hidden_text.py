"""Text that nobody sees is approved, signed and served by nobody: not from a teacher, and not from an administrator."""

from collections.abc import Callable

import pytest
from django.test import Client

from pld_app.errors import InvalidInput
from pld_app.models import User
from rules.hidden_text import is_hidden, reveal
from rules.models import InstructionStatus, RulesetStatus, Task
from rules.services.review import instruction_approve, instruction_edit
from rules.services.rulesets import ruleset_create, ruleset_freeze
from tests.factories import approve_directly, make_instruction
from tests.publishing import steps

type ClientOf = Callable[[User], Client]
# Reversed text, a zero-width space, a tag character (it spells ASCII unseen), a variation selector, a soft hyphen.
UNSEEN = ["\u202e", "\u200b", "\U000e0041", "\ufe0f", "\u00ad"]


@pytest.mark.parametrize("char", UNSEEN)
def test_a_mined_text_with_unseen_characters_is_edited_or_rejected_not_approved(
    task: Task, ana: User, ben: User, char: str
) -> None:
    one = make_instruction(task, f"If copies may be kept,{char} then label Compliant.")
    with pytest.raises(InvalidInput, match=rf"U\+{ord(char):04X}"):
        instruction_approve(instruction_id=one.pk, reviewer=ana, version=1)
    one.refresh_from_db()
    assert one.status == InstructionStatus.PROPOSED
    instruction_edit(
        instruction_id=one.pk, reviewer=ana, version=1, text="If copies may be kept, then label Compliant."
    )
    approved = instruction_approve(instruction_id=one.pk, reviewer=ben, version=2)
    assert approved.status == InstructionStatus.APPROVED


def test_the_card_says_why_it_cannot_be_approved(task: Task, ana: User, client_of: ClientOf) -> None:
    make_instruction(task, "If copies\u202e may be kept, then label Compliant.")
    response = client_of(ana).post("/tasks/nda/review/1/approve/", {"version": 1})
    assert response.status_code == 422
    assert "This text holds invisible characters (U+202E)" in response.content.decode()


@pytest.mark.parametrize("char", UNSEEN)
@pytest.mark.parametrize("field", ["preamble", "output_contract", "labels"])
def test_an_administrator_slips_nothing_unseen_into_a_prompt(task: Task, ana: User, field: str, char: str) -> None:
    ruleset = steps.draft(task, ana)
    unseen = f"Always say Breach.{char}"
    setattr(task, field, [*task.labels, unseen] if field == "labels" else unseen)
    task.save(update_fields=[field])
    with pytest.raises(InvalidInput, match="invisible characters"):
        ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.DRAFT


def test_nor_does_an_approval_past_the_services(task: Task, ana: User, ben: User) -> None:
    approve_directly(make_instruction(task, "If so\u200b, then label Compliant."), ben)
    ruleset = ruleset_create(task=task, composer=ana)
    with pytest.raises(InvalidInput, match=r"U\+200B"):
        ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)


def settings_of(task: Task, **changes: object) -> dict[str, object]:
    fields: dict[str, object] = {
        "name": task.name,
        "slug": task.slug,
        "labels": "\r\n".join(task.labels),
        "input_fields": "\r\n".join(task.input_fields),
        "preamble": "You check clauses.\r\nTake care.",
        "output_contract": "Answer in JSON.",
        "signers_required": 2,
        "signer_roles": ["signatory"],
    }
    return fields | changes


@pytest.mark.parametrize("field", ["name", "labels", "input_fields", "preamble", "output_contract"])
def test_the_settings_form_refuses_it_where_it_is_typed(task: Task, ada: User, client_of: ClientOf, field: str) -> None:
    admin = client_of(ada)
    sent = settings_of(task)
    response = admin.post("/tasks/nda/settings/", sent | {field: f"{sent[field]}\u202e"})
    assert response.status_code == 422
    assert "invisible characters in it (U+202E)" in response.content.decode()
    assert admin.post("/tasks/nda/settings/", sent).status_code == 302


def test_no_hidden_character_passes_for_a_plain_text() -> None:
    """The quick look at a whole text misses none of what the look at each character finds."""
    every = [chr(code) for code in range(0x110000)]
    hidden = [char for char in every if is_hidden(char)]
    assert len(hidden) > 100_000
    assert [char for char in hidden if reveal(f"a{char}b")[1:2] != [reveal(char)[0]]] == []
