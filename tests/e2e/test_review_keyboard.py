"""Twenty rules decided by keys alone: no mouse event reaches the page, and no key decides that should not."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from rules.models import Decision, DecisionKind, ReasonCode
from tests.e2e.conftest import Person
from tests.e2e.plan import ADDED, Step, assert_plan_recorded, decisions, plan
from tests.e2e.scenes import eventually, review_of, reviewers
from tests.factories import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

LISTEN = """
for (const type of ["pointerdown", "mousedown", "touchstart", "click"]) {
  addEventListener(type, (event) => { if (type !== "click" || event.detail > 0) window.mouseSeen(type); }, true);
}
"""


class Keyboard:
    """A person without a mouse. What a mouse would have sent is in `mouse`."""

    def __init__(self, person: Person) -> None:
        self.page, self.base, self.mouse = person.page, person.base, list[str]()
        person.context.expose_function("mouseSeen", self._saw)
        person.context.add_init_script(LISTEN)

    def _saw(self, kind: str) -> None:
        self.mouse.append(kind)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, selector: str, key: str = "Tab") -> None:
        for _turn in range(60):
            if self.page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
                return
            self.press(key)
        raise AssertionError(f"{key} does not lead to {selector}")

    def sign_in(self, username: str) -> None:
        self.page.goto(f"{self.base}/sign-in/")
        self.tab_to("input[name=username]")
        self.page.keyboard.type(username)
        self.tab_to("input[name=password]")
        self.page.keyboard.type(PASSWORD)
        self.press("Enter")
        self.page.get_by_role("button", name="Sign out").wait_for()

    def decide(self, step: Step) -> None:
        """One decision, and the card that follows it."""
        before = number_shown(self.page)
        _KEYS[step.kind](self, step)
        expect(self.page.locator("#rule-title")).not_to_have_text(before)


def number_shown(page: Page) -> str:
    return page.locator("#rule-title").inner_text()


def _reason(keyboard: Keyboard, step: Step) -> None:
    keyboard.press("r" if step.kind == DecisionKind.REJECT else "b")
    if not step.note:
        return keyboard.press(step.reason_key)
    keyboard.tab_to("details[open] textarea[name=note]")
    keyboard.page.keyboard.type(step.note)
    keyboard.tab_to(f"details[open] button[value={step.reason}]", "Shift+Tab")
    keyboard.press("Enter")
    return None


def _edit(keyboard: Keyboard, _step: Step) -> None:
    keyboard.press("e")
    expect(keyboard.page.get_by_label("The rule in your words")).to_be_focused()
    keyboard.press("Control+End")
    keyboard.page.keyboard.type(ADDED)
    keyboard.press("Control+Enter")


_KEYS: dict[DecisionKind, Callable[[Keyboard, Step], None]] = {
    DecisionKind.APPROVE: lambda keyboard, _step: keyboard.press("a"),
    DecisionKind.DEFER: lambda keyboard, _step: keyboard.press("d"),
    DecisionKind.REJECT: _reason,
    DecisionKind.SEND_BACK: _reason,
    DecisionKind.EDIT: _edit,
}


@pytest.fixture
def lena(person: Callable[..., Person]) -> Keyboard:
    reviewers()
    keyboard = Keyboard(person())
    keyboard.sign_in("lena")
    return keyboard


def test_twenty_rules_are_decided_by_keys_alone(lena: Keyboard) -> None:
    task = review_of(20)
    page, title = lena.page, lena.page.locator("#rule-title")
    page.goto(f"{lena.base}/tasks/{task.slug}/review/?domain=all")
    lena.press("n")
    expect(title).to_have_text("Instruction 1")
    _look_around(lena)
    _change_of_mind(lena)
    # What was taken back is open again and comes first; the last decision leads back to the queue.
    first, *middle, last = plan()
    for step in (first, *middle):
        lena.decide(step)
    _KEYS[last.kind](lena, last)
    expect(page.get_by_text("Nothing here awaits a first decision")).to_be_visible()
    assert_plan_recorded(task)
    assert lena.mouse == []
    page.mouse.click(400, 400)
    eventually(page, lambda: "mousedown" in lena.mouse, "the listener sees a mouse when there is one")


def _look_around(lena: Keyboard) -> None:
    """Next and previous decide nothing."""
    title = lena.page.locator("#rule-title")
    for key, number in (("j", 2), ("j", 3), ("k", 2), ("k", 1)):
        lena.press(key)
        expect(title).to_have_text(f"Instruction {number}")
    assert not Decision.objects.exists()


def _change_of_mind(lena: Keyboard) -> None:
    """An approval, a rejection and a deferral are taken back, each leading to its own card again."""
    title = lena.page.locator("#rule-title")
    for step in (
        Step(DecisionKind.APPROVE),
        Step(DecisionKind.REJECT, ReasonCode.OTHER, "By mistake."),
        Step(DecisionKind.DEFER),
    ):
        lena.decide(step)
        expect(title).to_have_text("Instruction 2")
        lena.press("u")
        expect(title).to_have_text("Instruction 1")
    assert decisions()[DecisionKind.REOPEN] == 2


def test_other_keys_decide_nothing(lena: Keyboard) -> None:
    task = review_of(2)
    keys = ("Enter", "Backspace", "Delete", "Space", "Control+a", "1", "Escape")
    lena.page.goto(f"{lena.base}/tasks/{task.slug}/review/1/")
    lena.press(*keys)
    # After a swap the focus stands on the new card's title, and the keys must do nothing there either.
    lena.press("j")
    expect(lena.page.locator("#rule-title")).to_be_focused()
    lena.press(*keys)
    lena.page.wait_for_timeout(300)
    assert number_shown(lena.page) == "Instruction 2"
    assert not Decision.objects.exists()


def test_keys_are_listed_and_can_be_switched_off(lena: Keyboard) -> None:
    task = review_of(2)
    page = lena.page
    page.goto(f"{lena.base}/tasks/{task.slug}/review/1/")
    lena.press("?")
    listed = page.locator("[data-keys-list] dd")
    for name in ("Approve", "Edit", "Reject", "Defer", "Send back", "Next", "Send the form you are typing in"):
        expect(listed.filter(has_text=name)).to_have_count(1)
    lena.press("a")
    lena.tab_to("[data-keys-toggle]")
    lena.press("Space", "Escape")
    for _visit in range(2):
        lena.press("a", "d", "j")
        page.wait_for_timeout(200)
        assert number_shown(page) == "Instruction 1"
        page.reload()
    assert not Decision.objects.exists()
    # The way back: the same list, reached by its button.
    lena.tab_to("[data-keys-open]")
    lena.press("Enter")
    lena.tab_to("[data-keys-toggle]")
    lena.press("Space", "Escape")
    lena.press("a")
    expect(page.locator("#rule-title")).to_have_text("Instruction 2")
    assert decisions() == {DecisionKind.APPROVE: 1}
    assert lena.mouse == []
