"""Evidence before figures, and two who disagree before a third: as the people meet it, by keys, axe on every stop."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from pld_app.models import Domain, Role
from rules.models import Claim, Decision, Instruction, JudgementContext, Opinion, Task
from tests.e2e.conftest import Person
from tests.e2e.scenes import LONG_RULE, review_of, reviewers
from tests.e2e.test_accessibility import RULES
from tests.factories import make_policy, make_user

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def task(db: None) -> Task:
    reviewers()
    make_user("theo", Role.REVIEWER, Domain.LEGAL)
    return review_of(3)


def no_fault(page: Page) -> None:
    """Nothing for axe in either theme."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = Axe().run(page, options=RULES[scheme]).response["violations"]
        assert [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found] == []
    page.emulate_media(color_scheme="light")


def card(task: Task) -> str:
    return f"/tasks/{task.slug}/review/1/?domain=all"


def gone_on(page: Page) -> None:
    expect(page.locator("#rule-title")).not_to_have_text("Instruction 1")


def leave(*pages: Page) -> None:
    """To the start page, nothing in hand."""
    for page in pages:
        page.goto(page.url.split("/tasks/")[0] + "/")
    Claim.objects.all().delete()


def test_the_evidence_comes_first_and_the_figures_after_a_judgement(task: Task, person: Callable[..., Person]) -> None:
    """What was seen before deciding is on record: of Lena nothing, of Finn the figures."""
    make_policy(task, blind_first=True, blind_percent=100, double_percent=100)
    lena = person("lena").open(card(task))
    expect(lena.locator("#blind-title")).to_have_text("First the evidence")
    expect(lena.locator("body")).not_to_contain_text("the receiving party may keep copies")
    expect(lena.locator(".action-bar")).to_have_count(0)
    no_fault(lena)
    lena.keyboard.press("y")
    expect(lena.locator(".rule-text").first).to_have_text(LONG_RULE)
    expect(lena.locator("#figures")).not_to_contain_text("14 traces support it")
    expect(lena.get_by_role("button", name="Open the figures")).to_be_visible()
    no_fault(lena)
    lena.keyboard.press("a")
    gone_on(lena)
    lena.goto(lena.url.split("/tasks/")[0] + card(task))
    expect(lena.locator("#figures")).to_contain_text("14 traces support it, 9 of the same topic carry another label")
    no_fault(lena)
    leave(lena)

    finn = person("finn").open(card(task))
    finn.keyboard.press("n")
    expect(finn.locator(".rule-text").first).to_have_text(LONG_RULE)
    finn.keyboard.press("i")
    expect(finn.locator("#figures")).to_contain_text("14 traces support it")
    finn.keyboard.press("a")
    gone_on(finn)

    kept = {one.actor.username: one for one in JudgementContext.objects.select_related("actor", "event")}
    assert (kept["lena"].seen_before, kept["lena"].evidence_supports) == (False, True)
    assert (kept["finn"].seen_before, kept["finn"].evidence_supports) == (True, False)
    decided = Decision.objects.select_related("event").get()
    assert decided.event.data["figures_seen_before"] is True
    assert all(one.seconds is not None and one.visible_ms >= 0 for one in kept.values())


def test_three_people_settle_what_two_saw_differently(task: Task, person: Callable[..., Person]) -> None:
    make_policy(task, double_percent=100)
    lena = person("lena").open(card(task))
    lena.keyboard.press("a")
    gone_on(lena)
    expect(lena.locator("[data-status-line]")).to_contain_text("another reviewer decides on it too")

    finn = person("finn").open(card(task))
    # Nothing on Finn's card says that anybody has been there.
    expect(finn.locator("body")).not_to_contain_text("Lena")
    no_fault(finn)
    finn.keyboard.press("r")
    finn.locator(".action-bar details[open] textarea[name=note]").fill("The traces speak of backups alone.")
    finn.get_by_role("button", name="Not supported by the traces").first.click()
    gone_on(finn)
    expect(finn.locator("[data-status-line]")).to_contain_text("a third settles it")

    # Neither of the two settles it.
    for page in (lena, finn):
        page.goto(page.url.split("/tasks/")[0] + card(task))
        expect(page.locator(".review-rule")).to_contain_text("a third person settles it")
    leave(lena, finn)

    theo = person("theo").open(f"/tasks/{task.slug}/review/?tab=disputed&domain=all")
    theo.get_by_role("link", name="If the receiving party").click()
    expect(theo.locator(".review-rule")).to_contain_text("Two reviewers disagree")
    no_fault(theo)
    theo.keyboard.press("v")
    expect(theo.locator("h1")).to_have_text("Two decisions on instruction 1")
    expect(theo.locator("main")).to_contain_text("The traces speak of backups alone.")
    no_fault(theo)
    theo.keyboard.press("c")
    expect(theo.locator("#rule-title")).to_have_text("Instruction 1")
    theo.keyboard.press("a")
    theo.wait_for_url("**/review/?**")
    row = Instruction.objects.get(task=task, number=1)
    assert (row.status, row.waiting) == ("approved", "")
    given = Opinion.objects.order_by("seat").values_list("seat", "actor__username", "verdict")
    assert list(given) == [(1, "lena", "approve"), (2, "finn", "reject"), (3, "theo", "approve")]
    assert Decision.objects.get().actor.username == "theo"

    ada = make_user("ada", Role.ADMIN)
    quality = person(ada.username).open(f"/tasks/{task.slug}/review/quality/")
    expect(quality.locator("section", has=quality.locator("#disagreements-title"))).to_contain_text("Theo: Approve")
    no_fault(quality)


def test_the_notice_stands_before_the_first_decision_and_the_decision_goes_on(
    task: Task, person: Callable[..., Person]
) -> None:
    make_policy(task, notice_first=True)
    lena = person("lena").open(card(task))
    lena.keyboard.press("a")
    expect(lena.locator("#notice-title")).to_have_text("Before you begin: how a mined rule misleads")
    no_fault(lena)
    assert not Decision.objects.exists()
    lena.keyboard.press("y")
    expect(lena.locator("#rule-title")).to_have_text("Instruction 2")
    assert Decision.objects.get().actor.username == "lena"
    lena.keyboard.press("a")
    expect(lena.locator("#rule-title")).to_have_text("Instruction 3")
    assert Decision.objects.count() == 2
