"""Several instructions at once: by keys alone, by plain forms without a script, and not on a phone."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from rules.models import Decision, Instruction, NearDuplicate, Task
from tests.e2e.conftest import Person
from tests.e2e.scenes import eventually, overflow_px, review_of, reviewers
from tests.e2e.test_review_keyboard import Keyboard
from tests.factories import make_instruction

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def statuses() -> list[str]:
    return list(Instruction.objects.order_by("number").values_list("status", flat=True))


def near_duplicates(task: Task, count: int) -> None:
    """So many more that say what rule 2 says, in one word more."""
    second = Instruction.objects.get(task=task, number=2)
    assert second.current_revision
    text = second.current_revision.text.replace("copies", "the copies")
    rows = [second, *(make_instruction(task, text, topic=second.topic) for _number in range(count))]
    for row in rows:
        NearDuplicate.objects.create(instruction=row, family=2)


def test_rows_are_ticked_and_rejected_by_keys_alone(person: Callable[..., Person]) -> None:
    reviewers()
    task = review_of(5)
    lena = Keyboard(person())
    lena.sign_in("lena")
    page = lena.page
    page.goto(f"{lena.base}/tasks/{task.slug}/review/?domain=all")
    expect(page.locator("[data-bulk-count]")).to_have_text("None ticked")
    lena.press("x")
    expect(page.locator("[data-bulk-count]")).to_have_text("1 ticked")
    # From the ticked box on to the row after the next, whose box X ticks as well.
    lena.tab_to("tr:nth-child(3) a")
    lena.press("x")
    expect(page.locator("[data-bulk-count]")).to_have_text("2 ticked")
    lena.tab_to("button[name=act][value=reject]")
    lena.press("Enter")
    expect(page.get_by_role("heading", name="Reject 2 instructions?")).to_be_visible()
    lena.tab_to("select[name=reason]")
    page.keyboard.type("Dupl")
    lena.press("Control+Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("2 instructions")
    assert statuses() == ["rejected", "proposed", "rejected", "proposed", "proposed"]
    lena.press("u")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    eventually(page, lambda: statuses()[0] == "in_review", "the batch is taken back")
    assert statuses() == ["in_review", "proposed", "in_review", "proposed", "proposed"]
    assert lena.mouse == []


def test_shift_and_the_head_tick_many(person: Callable[..., Person]) -> None:
    reviewers()
    task = review_of(5)
    page = person("lena").open(f"/tasks/{task.slug}/review/?domain=all")
    rows = page.locator("[data-bulk-row]")
    rows.nth(1).click()
    rows.nth(3).click(modifiers=["Shift"])
    expect(page.locator("[data-bulk-count]")).to_have_text("3 ticked")
    page.locator("[data-bulk-page]").check()
    expect(page.locator("[data-bulk-count]")).to_have_text("5 ticked")
    page.locator("[data-bulk-page]").uncheck()
    expect(page.locator("[data-bulk-count]")).to_have_text("None ticked")


def test_near_duplicates_are_approved_with_the_card(person: Callable[..., Person]) -> None:
    reviewers()
    task = review_of(2)
    near_duplicates(task, 3)
    page = person("lena").open(f"/tasks/{task.slug}/review/2/?domain=all")
    page.locator(".evidence-similar summary").first.click()
    button = page.locator("[data-alike-button]")
    expect(button).to_have_text("Approve this and the ticked ones")
    for number in (3, 5):
        page.get_by_label(f"Approve #{number} too").check()
    expect(button).to_have_text("Approve this and 2 near-duplicates")
    button.click()
    _confirm(page, "Approve 3 instructions?", "Approve (3)")
    assert statuses() == ["proposed", "approved", "approved", "proposed", "approved"]
    page.get_by_role("button", name="Take back 3 decisions").click()
    eventually(page, lambda: "approved" not in statuses(), "the approvals are taken back")


def test_everything_works_as_plain_forms(person: Callable[..., Person]) -> None:
    reviewers()
    task = review_of(4)
    near_duplicates(task, 1)
    someone = person("lena", java_script_enabled=False)
    page = someone.open(f"/tasks/{task.slug}/review/?domain=all")
    expect(page.locator("[data-js-only]:visible")).to_have_count(0)
    for number in (3, 4):
        page.get_by_label(f"Tick instruction {number}").check()
    page.get_by_role("button", name="Tag…").click()
    page.get_by_label("Tag", exact=True).fill("side letters")
    page.get_by_role("button", name="Tag (2)").click()
    expect(page.get_by_role("link", name="side letters")).to_have_count(2)
    page.get_by_label("Tick instruction 3").check()
    page.get_by_role("button", name="Reject…").click()
    page.get_by_label("Reason").select_option("unclear")
    _confirm(page, "Reject 1 instruction?", "Reject (1)")
    page.get_by_role("button", name="Take back 1 decision").click()
    expect(page.locator(".page-lead")).to_contain_text("Taken back")
    page = someone.open(f"/tasks/{task.slug}/review/2/?domain=all")
    page.locator(".evidence-similar summary").first.click()
    page.get_by_label("Approve #5 too").check()
    page.get_by_role("button", name="Approve this and the ticked ones").click()
    _confirm(page, "Approve 2 instructions?", "Approve (2)")
    assert Decision.objects.filter(kind="approve").count() == 2


def _confirm(page: Page, title: str, button: str) -> None:
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    page.get_by_role("button", name=button).click()
    expect(page.get_by_role("button", name="Take back")).to_be_visible()


def test_a_phone_is_told_that_it_needs_more_room(person: Callable[..., Person]) -> None:
    reviewers()
    task = review_of(2)
    near_duplicates(task, 1)
    someone = person("lena")
    someone.page.set_viewport_size({"width": 360, "height": 740})
    page = someone.open(f"/tasks/{task.slug}/review/?domain=all")
    expect(page.locator("[data-bulk-row]:visible, .bulk-bar:visible")).to_have_count(0)
    expect(page.get_by_text("needs a wider window")).to_be_visible()
    assert overflow_px(page) == 0
    page = someone.open(f"/tasks/{task.slug}/review/2/?domain=all")
    page.locator(".evidence-similar summary").first.click()
    expect(page.locator("[data-alike]:visible, [data-alike-button]:visible")).to_have_count(0)
    assert overflow_px(page) == 0
