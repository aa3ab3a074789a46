"""The card is one screen: rule, evidence of both sides and the decisions are in sight before anybody scrolls."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from rules.services.mining_similar import similar_refresh
from rules.services.review import instruction_edit
from tests.e2e.conftest import Person
from tests.e2e.scenes import LONG_RULE, overflow_px, reviewers, rule_with_evidence
from tests.factories import make_instruction, make_task

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]

FIRST_LINE_PX = 20


def shown(page: Page, element: Locator, height: float | None = None) -> bool:
    """Whether the element (or its first `height` pixels) lies in the window and in every box that clips it."""
    return bool(
        element.evaluate(
            """(element, height) => {
              const box = element.getBoundingClientRect();
              const bottom = height ? Math.min(box.bottom, box.top + height) : box.bottom;
              for (let around = element.parentElement; around; around = around.parentElement) {
                if (getComputedStyle(around).overflowY === "visible") continue;
                const clip = around.getBoundingClientRect();
                if (box.top < clip.top - 1 || bottom > clip.bottom + 1) return false;
              }
              return box.top >= 0 && bottom <= innerHeight && box.height > 0;
            }""",
            height,
        )
    )


def test_a_long_rule_with_three_traces_on_each_side_fits_one_screen(person: Callable[..., Person]) -> None:
    reviewers()
    assert len(LONG_RULE.split()) == 60
    task = make_task()
    rule_with_evidence(task)
    page = person("lena").open(f"/tasks/{task.slug}/review/1/")
    assert shown(page, page.locator(".rule-text"))
    for side in (".evidence-for", ".evidence-against"):
        traces = page.locator(f"{side} li")
        expect(traces).to_have_count(3)
        for trace in traces.all():
            assert shown(page, trace.locator("blockquote").first, FIRST_LINE_PX), side
            assert shown(page, trace.locator(".label-badge")), side
    for name in ("Approve", "Edit", "Reject", "Defer", "Send back"):
        assert shown(page, page.locator(".action-bar .btn").filter(has_text=name)), name
    scrolled = "document.documentElement.scrollHeight - document.documentElement.clientHeight"
    assert page.evaluate(scrolled) == 0


def test_an_edited_rule_with_its_diff_and_its_nearest_rule_fits_too(person: Callable[..., Person]) -> None:
    _lena, finn = reviewers()
    task = make_task()
    rule = rule_with_evidence(task)
    make_instruction(task, LONG_RULE.replace("backup ", ""), label="Compliant")
    similar_refresh(task)
    text = LONG_RULE.replace("for longer", "for a longer time")
    instruction_edit(instruction_id=rule.pk, reviewer=finn, version=1, text=text)
    page = person("lena").open(f"/tasks/{task.slug}/review/1/")
    for piece in (".rule-text", ".compare-inline .diff", ".evidence-similar > details > summary", ".action-bar"):
        assert shown(page, page.locator(piece)), piece
    for trace in page.locator(".evidence-for li, .evidence-against li").all():
        assert shown(page, trace)
    scrolled = "document.documentElement.scrollHeight - document.documentElement.clientHeight"
    assert page.evaluate(scrolled) == 0
    # The other way to read the change, without a script of ours.
    page.get_by_label("Side by side").check()
    expect(page.locator(".compare-sides ins").first).to_be_visible()
    expect(page.locator(".compare-inline")).to_be_hidden()


def test_the_card_reads_on_a_phone(person: Callable[..., Person]) -> None:
    reviewers()
    task = make_task()
    rule_with_evidence(task)
    someone = person("lena")
    someone.page.set_viewport_size({"width": 360, "height": 740})
    page = someone.open(f"/tasks/{task.slug}/review/1/")
    assert overflow_px(page) == 0
    assert shown(page, page.get_by_role("button", name="Approve"))
    # Nothing scrolls inside itself there: a finger moves the page.
    assert page.locator(".review-evidence .evidence").first.evaluate("e => e.scrollHeight <= e.clientHeight + 1")
