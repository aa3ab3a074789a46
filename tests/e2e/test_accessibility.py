"""Every page the resolver knows, in a real browser: axe finds nothing in any theme, no script fails, no policy is
broken, and at 360 px nobody scrolls sideways. The pages come from the permission table, which must name every URL.
"""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.test import Client
from playwright.sync_api import Page

from pld_app.models import Domain, Role
from rules.models import Instruction, NearDuplicate
from tests.e2e.conftest import Person
from tests.e2e.scenes import overflow_px, rule_with_evidence
from tests.factories import make_instruction, make_user
from tests.publishing import steps
from tests.test_permissions import STRANGER, TABLE, Scene
from tests.test_permissions import scene as scene  # noqa: PLC0414  # a fixture, found by its name in this module

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
RULES = {
    "light": {"runOnly": TAGS, "rules": {"target-size": {"enabled": True}}, "resultTypes": ["violations"]},
    # The scheme changes colours and nothing else (static/css/tokens.css), so the other rules would only answer again.
    "dark": _COLOURS,
    "light, high contrast": _COLOURS,
    "dark, high contrast": _COLOURS,
}
CHOOSE = """theme => {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}"""
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 360, "height": 740}
# The role whose page holds the most: the one that acts there. Elsewhere the first allowed of the row below.
ACTS = {"instruction-detail": Role.REVIEWER, "releases": Role.SIGNATORY, "release-detail": Role.SIGNATORY}
FIRST = (STRANGER, Role.ADMIN, Role.REVIEWER, Role.SIGNATORY, Role.AUDITOR)


class Visitor:
    """One role's browser and what it complained of since the last question."""

    def __init__(self, person: Person, client: Client) -> None:
        self.page, self.base, self.complaints = person.page, person.base, list[str]()
        session = client.cookies.get(settings.SESSION_COOKIE_NAME)
        if session:
            cookie = {"name": session.key, "value": session.value, "url": person.base}
            person.context.add_cookies([cookie])  # type: ignore[list-item]  # Playwright's own typed dict
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def faults_of(self, path: str, prepare: Callable[[Page], None] | None = None) -> list[str]:
        """What is wrong with one page, each fault in words with its place."""
        self.complaints.clear()
        self.page.set_viewport_size(DESK)  # type: ignore[arg-type]  # Playwright's own typed dict
        answer = self.page.goto(self.base + path)
        # The browser itself calls a page that answers 403 or 404 an error, which here is what was asked for.
        expected = answer is not None and answer.status >= 400
        if prepare:
            prepare(self.page)
        faults = [fault for scheme in RULES for fault in self._axe(scheme)]
        self.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        if overflow_px(self.page):
            faults.append(f"{overflow_px(self.page)} px too wide at 360: {widest(self.page)}")
        return faults + [said for said in self.complaints if not (expected and "Failed to load resource" in said)]

    def _axe(self, scheme: Any) -> list[str]:
        colours, _, contrast = scheme.partition(", ")
        self.page.emulate_media(color_scheme=colours, reduced_motion="reduce")
        # As the button at the top of the page sets it.
        self.page.evaluate(CHOOSE, "contrast" if contrast else "")
        found = Axe().run(self.page, options=RULES[scheme]).response["violations"]
        return [f"{scheme}: {rule['id']}: {node['target']}" for rule in found for node in rule["nodes"]]


def widest(page: Page) -> str:
    """The outermost element that sticks out to the right."""
    script = """() => [...document.body.querySelectorAll("*")]
      .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
      .map(e => `${e.tagName}.${e.className}`).slice(0, 3).join(" > ")"""
    return str(page.evaluate(script))


def who_opens(name: str) -> str:
    allowed = TABLE[name]["GET"]
    return ACTS[name] if name in ACTS else next(role for role in FIRST if role in allowed)


def is_page(scene: Scene, name: str) -> bool:
    answer: Any = scene.clients[who_opens(name)].get(scene.url(name))
    return bool(answer.headers["Content-Type"].startswith("text/html"))


@pytest.fixture
def visitor(scene: Scene, person: Callable[..., Person]) -> Callable[[str], Visitor]:
    """The browser of a role, opened once."""
    open_already: dict[str, Visitor] = {}

    def visitor_of(who: str) -> Visitor:
        if who not in open_already:
            open_already[who] = Visitor(person(), scene.clients[who])
        return open_already[who]

    return visitor_of


@pytest.mark.parametrize("part", range(3))  # which test processes can share among them
def test_every_page_is_accessible_in_light_and_dark(scene: Scene, visitor: Callable[[str], Visitor], part: int) -> None:
    names = [name for name, row in TABLE.items() if "GET" in row]
    pages = [name for name in names if is_page(scene, name)]
    assert len(pages) >= 25
    found = {name: visitor(who_opens(name)).faults_of(scene.url(name)) for name in pages[part::3]}
    assert {name: faults for name, faults in found.items() if faults} == {}


def press(*keys: str) -> Callable[[Page], None]:
    def prepare(page: Page) -> None:
        for key in keys:
            page.keyboard.press(key)

    return prepare


def tick_and_reject(page: Page) -> None:
    for row in page.locator("[data-bulk-row]").all():
        row.check()
    page.locator("button[value=reject]").click()
    page.get_by_role("heading", name="Left as they are").wait_for()


def test_pages_in_their_other_states_are_accessible(scene: Scene, visitor: Callable[[str], Visitor]) -> None:
    """Folds, menus and dialogs open, refusals and errors, an edit under a second check, a ruleset in sign-off."""
    task = f"/tasks/{scene.task.slug}"
    full = rule_with_evidence(scene.task)
    card = f"{task}/review/{full.number}/"
    edited = Instruction.objects.get(task=scene.task, number=scene.arguments["instruction", "number"])
    steps.edit(edited, make_user("finn", Role.REVIEWER, Domain.FINANCE))
    near, other = (make_instruction(scene.task, f"If {word} is kept, then label Breach.") for word in ("it", "that"))
    for one in (near, other):
        NearDuplicate.objects.create(instruction=one, family=near.number)
    sign_off = f"{task}/rulesets/{scene.arguments['ruleset-sign', 'number']}/"
    states: list[tuple[str, str, Callable[[Page], None] | None]] = [
        (Role.REVIEWER, card, None),
        (Role.AUDITOR, card, lambda page: page.locator(".evidence summary").first.click()),
        (Role.REVIEWER, card, press("r")),
        (Role.REVIEWER, card, press("e")),
        (Role.REVIEWER, card, press("?")),
        (Role.REVIEWER, f"{task}/review/{edited.number}/", None),
        (
            Role.REVIEWER,
            f"{task}/review/{near.number}/",
            lambda page: page.locator(".evidence-similar summary").first.click(),
        ),
        (Role.REVIEWER, f"{task}/review/{near.number}/?merge={near.number + 1}", None),
        (Role.REVIEWER, f"{task}/review/?tab=all&domain=all", tick_and_reject),
        (Role.SIGNATORY, sign_off, None),
        (Role.REVIEWER, f"{task}/rulesets/{scene.arguments['ruleset', 'number']}/", None),
        (Role.AUDITOR, f"{task}/review/?text=nothing+like+this", None),
        (Role.REVIEWER, "/accounts/", None),
        (Role.REVIEWER, "/no/such/page/", None),
    ]
    found = {
        f"{number} {path}": visitor(who).faults_of(path, prepare) for number, (who, path, prepare) in enumerate(states)
    }
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_the_check_itself_sees_faults(scene: Scene, visitor: Callable[[str], Visitor]) -> None:
    def spoil(page: Page) -> None:
        page.evaluate("""() => {
          const heading = document.querySelector("h1");
          heading.style.color = "gray";
          heading.style.background = "dimgray";
          heading.style.minWidth = "700px";
          heading.append(document.createElement("img"));
          console.error("a script complains");
        }""")

    faults = " ".join(visitor(STRANGER).faults_of("/sign-in/", spoil))
    for fault in ("light: color-contrast", "dark: color-contrast", "image-alt", "px too wide", "a script complains"):
        assert fault in faults
