"""Two people on one card, a cut network, a session that ends: whatever was typed is there afterwards."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from pld_app.models import UserSession
from rules.models import DecisionKind, Instruction, InstructionStatus, Task
from tests.e2e.conftest import Person
from tests.e2e.plan import decisions
from tests.e2e.scenes import LONG_RULE, eventually, review_of, reviewers
from tests.factories import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

# Added words alone: an edit that flips a number or a "not" stays on its card to show the warning.
TYPED = f"{LONG_RULE} Say which copies are meant."
OTHERS = f"{LONG_RULE} Copies of counsel count as well."


@pytest.fixture
def task(db: None) -> Task:
    reviewers()
    return review_of(3)


@pytest.fixture
def card(task: Task) -> str:
    return f"/tasks/{task.slug}/review/1/"


def rule(task: Task) -> Instruction:
    return Instruction.objects.select_related("current_revision").get(task=task, number=1)


def text_of(task: Task) -> str:
    revision = rule(task).current_revision
    assert revision is not None
    return revision.text


def begin_edit(page: Page, text: str = TYPED) -> None:
    page.keyboard.press("e")
    page.get_by_label("The rule in your words").fill(text)


def take_over(page: Page) -> None:
    """From the colleague who opened it first: never by opening the card alone."""
    expect(page.locator(".action-bar")).to_contain_text("Lena is working on it")
    page.keyboard.press("t")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()


def opened_by_both(person: Callable[..., Person], card: str) -> tuple[Page, Page]:
    """Lena's card, which is hers for having been first, and Finn's, who has taken it over since."""
    lena = person("lena").open(card)
    expect(lena.locator(".action-bar")).to_contain_text("Yours until")
    begin_edit(lena)
    finn = person("finn").open(card)
    take_over(finn)
    return lena, finn


def save(page: Page) -> None:
    page.keyboard.press("Control+Enter")


def kept_draft(page: Page) -> None:
    """The draft is in the browser's own store within a second of typing."""
    stored = "Object.keys(localStorage).some(key => key.startsWith('pld.draft.'))"
    eventually(page, lambda: bool(page.evaluate(stored)), "the draft is kept in the browser")


def test_the_second_editor_sees_what_happened_and_saves_over_it(
    task: Task, card: str, person: Callable[..., Person]
) -> None:
    lena, finn = opened_by_both(person, card)
    begin_edit(finn, OTHERS)
    save(finn)
    expect(finn.locator("#rule-title")).to_have_text("Instruction 2")

    save(lena)
    expect(lena.locator("#conflict-title")).to_contain_text("Nothing was saved")
    expect(lena.locator(".timeline")).to_contain_text("by Finn")
    expect(lena.locator(".record").first).to_have_text(OTHERS)
    # Three texts: what both began with, and what each made of it.
    expect(lena.locator(".three-ways .record")).to_have_text(LONG_RULE)
    expect(lena.locator(".three-ways ins")).to_have_count(2)
    expect(lena.get_by_label("Your text")).to_have_value(TYPED)
    assert decisions() == {DecisionKind.EDIT: 1}

    lena.get_by_role("button", name="Save my text over this one").click()
    expect(lena.locator("#rule-title")).to_be_visible()
    assert decisions() == {DecisionKind.EDIT: 2}
    assert text_of(task) == TYPED
    # The kept draft is on record now: the next visit offers none.
    lena.reload()
    expect(lena.locator(".draft-note")).to_have_count(0)
    lena.goto(f"{finn.url.split('/tasks/')[0]}{card}")
    expect(lena.locator(".diff ins").first).to_be_visible()
    expect(lena.locator(".draft-note")).to_have_count(0)


def test_an_edit_of_what_a_colleague_has_approved_loses_no_word(
    task: Task, card: str, person: Callable[..., Person]
) -> None:
    lena, finn = opened_by_both(person, card)
    lena.get_by_label("Why").first.fill("Clearer for the student.")
    finn.keyboard.press("a")
    expect(finn.locator("#rule-title")).to_have_text("Instruction 2")
    save(lena)
    expect(lena.locator("#conflict-title")).to_contain_text("Nothing was saved")
    expect(lena.locator(".timeline")).to_contain_text("Approved")
    expect(lena.get_by_label("Your text")).to_have_value(TYPED)
    expect(lena.get_by_label("Your note")).to_have_value("Clearer for the student.")
    expect(lena.get_by_role("button", name="Save my text over this one")).to_have_count(0)
    assert rule(task).status == InstructionStatus.APPROVED
    assert text_of(task) != TYPED


def test_the_second_decision_is_refused_in_words(task: Task, card: str, person: Callable[..., Person]) -> None:
    """Also with a plain form, and both see the one decision that counts."""
    plain = person("finn", java_script_enabled=False).open(card)
    lena = person("lena").open(card)
    lena.keyboard.press("a")
    expect(lena.locator("#rule-title")).to_have_text("Instruction 2")
    menu = plain.locator(".action-bar details", has_text="Reject")
    menu.locator("summary").click()
    menu.get_by_label("Note").fill("No source says so.")
    menu.locator("button[value=unsupported]").click()
    expect(plain.locator("#conflict-title")).to_contain_text("Nothing was saved")
    expect(plain.locator(".timeline")).to_contain_text("by Lena")
    expect(plain.get_by_label("Your note")).to_have_value("No source says so.")
    plain.get_by_role("link", name="Look at it as it is now").click()
    expect(plain.locator(".review-head")).to_contain_text("Approved")
    assert decisions() == {DecisionKind.APPROVE: 1}


def test_a_claim_lost_while_typing_loses_no_word(task: Task, card: str, person: Callable[..., Person]) -> None:
    lena, finn = opened_by_both(person, card)
    save(lena)
    expect(lena.locator("#conflict-title")).to_contain_text("a colleague is at work")
    expect(lena.get_by_label("Your text")).to_have_value(TYPED)
    lena.get_by_role("button", name="Take it over and go on with my text").click()
    expect(lena.get_by_label("The rule in your words")).to_have_value(TYPED)
    assert not decisions()
    lena.get_by_label("The rule in your words").focus()
    save(lena)
    expect(lena.locator("#rule-title")).to_have_text("Instruction 2")
    assert text_of(task) == TYPED
    # Finn is told, on the next sign of life, that his page is an old one.
    finn.keyboard.press("a")
    expect(finn.locator("#conflict-title")).to_contain_text("is not what you saw")


def test_another_browser_brings_the_unsent_text_back(task: Task, card: str, person: Callable[..., Person]) -> None:
    first = person("lena").open(card)
    begin_edit(first)
    expect(first.locator("#draft-state")).to_contain_text("Kept at")
    second = person("lena").open(card)
    expect(second.locator(".draft-note")).to_contain_text("is back")
    expect(second.get_by_label("The rule in your words")).to_have_value(TYPED)
    second.get_by_role("button", name="Discard it").click()
    expect(second.locator(".draft-note")).to_have_count(0)
    expect(second.locator("#edit-text")).to_have_value(LONG_RULE)


def test_a_cut_network_loses_no_word(task: Task, card: str, person: Callable[..., Person]) -> None:
    someone = person("lena")
    page = someone.open(card)
    begin_edit(page)
    kept_draft(page)
    someone.context.set_offline(True)
    save(page)
    expect(page.locator("[data-status-line]")).to_contain_text("cannot be reached")
    expect(page.get_by_label("The rule in your words")).to_have_value(TYPED)
    someone.context.set_offline(False)
    page.reload()
    expect(page.locator(".draft-note")).to_contain_text("is back")
    expect(page.get_by_label("The rule in your words")).to_have_value(TYPED)
    assert not decisions()
    page.get_by_label("The rule in your words").focus()
    save(page)
    expect(page.locator("#rule-title")).to_have_text("Instruction 2")
    assert text_of(task) == TYPED


def test_a_session_that_ended_loses_no_word(task: Task, card: str, person: Callable[..., Person]) -> None:
    page = person("lena").open(card)
    begin_edit(page)
    kept_draft(page)
    UserSession.objects.all().delete()
    save(page)
    page.get_by_label("User name").fill("lena")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    # Straight back to the card, its field open.
    expect(page.locator("#rule-title")).to_have_text("Instruction 1")
    expect(page.locator(".draft-note")).to_contain_text("is back")
    box = page.get_by_label("The rule in your words")
    expect(box).to_have_value(TYPED)
    box.focus()
    save(page)
    expect(page.locator("#rule-title")).to_have_text("Instruction 2")
    assert text_of(task) == TYPED
