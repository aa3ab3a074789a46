"""The same twenty decisions as plain forms, in a browser that runs no script at all."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from rules.models import DecisionKind
from tests.e2e.conftest import Person
from tests.e2e.plan import ADDED, Step, assert_plan_recorded, decisions, plan
from tests.e2e.scenes import review_of, reviewers

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def test_twenty_rules_are_decided_by_plain_forms(person: Callable[..., Person]) -> None:
    reviewers()
    task = review_of(20)
    page = person("lena", java_script_enabled=False).open(f"/tasks/{task.slug}/review/?domain=all")
    # Nothing is offered that only a script can do.
    expect(page.locator("[data-js-only]:visible")).to_have_count(0)
    page.get_by_role("button", name="Take the next one").click()
    _look_around_and_take_back(page)
    for number, step in enumerate(plan(), start=1):
        expect(page.locator("#rule-title")).to_have_text(f"Instruction {number}")
        _decide(page, step)
        expect(page.locator(".alerts")).to_contain_text(f"#{number}")
    expect(page.get_by_text("Nothing here awaits a first decision")).to_be_visible()
    assert_plan_recorded(task)


def _look_around_and_take_back(page: Page) -> None:
    title = page.locator("#rule-title")
    for name, number in (("Next", 2), ("Previous", 1)):
        page.get_by_role("link", name=name).click()
        expect(title).to_have_text(f"Instruction {number}")
    _decide(page, Step(DecisionKind.APPROVE))
    expect(title).to_have_text("Instruction 2")
    page.get_by_role("button", name="Undo").click()
    expect(title).to_have_text("Instruction 1")
    assert decisions() == {DecisionKind.APPROVE: 1, DecisionKind.REOPEN: 1}


def _decide(page: Page, step: Step) -> None:
    bar = page.locator(".action-bar")
    if step.kind == DecisionKind.EDIT:
        page.locator("summary", has_text="Edit this text").click()
        box = page.get_by_label("The rule in your words")
        box.fill(box.input_value() + ADDED)
        page.get_by_role("button", name="Save and endorse").click()
    elif step.reason is None:
        name = "Approve" if step.kind == DecisionKind.APPROVE else "Defer"
        bar.get_by_role("button", name=name, exact=True).click()
    else:
        menu = bar.locator("details", has_text="Reject" if step.kind == DecisionKind.REJECT else "Send back")
        menu.locator("summary").click()
        if step.note:
            menu.get_by_label("Note").fill(step.note)
        menu.locator(f"button[value={step.reason}]").click()


def test_a_refused_form_keeps_what_was_typed(person: Callable[..., Person]) -> None:
    """Rejecting as "other" without a note is refused in the open menu; an empty edit in its own field."""
    reviewers()
    task = review_of(2)
    page = person("lena", java_script_enabled=False).open(f"/tasks/{task.slug}/review/1/")
    menu = page.locator(".action-bar details", has_text="Reject")
    menu.locator("summary").click()
    menu.locator("button[value=other]").click()
    expect(page.locator("#reject-error")).to_be_visible()
    page.get_by_label("Note").first.fill("It is settled elsewhere.")
    page.locator("details[open] button[value=other]").click()
    expect(page.locator(".alerts")).to_contain_text("Rejected #1")
    page.locator("summary", has_text="Edit this text").click()
    page.get_by_label("Why").first.fill("Clearer.")
    page.get_by_role("button", name="Save and endorse").click()
    expect(page.locator("#edit-error")).to_contain_text("unchanged")
    expect(page.locator("#edit-note")).to_have_value("Clearer.")
    assert decisions() == {DecisionKind.REJECT: 1}
