"""What the scripts do, in a real browser, on pages that need no server: each request is answered from this file."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.template import engines
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

pytestmark = pytest.mark.e2e

STATIC = Path(__file__).resolve().parents[2] / "static"
SITE = "http://pld.test"
CSP = "default-src 'self'; object-src 'none'; base-uri 'none'"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CARD = """
<form method="post" action="/done/">
  <button class="btn" name="decision" value="approve" data-key="a">Approve <kbd>A</kbd></button></form>
<details class="menu" data-menu id="reasons"><summary class="btn" data-key="r">Reject</summary>
  <form method="post" action="/done/">
    <button name="decision" value="unclear" data-key="1">Unclear</button></form></details>
<form method="post" action="/done/" data-submit-ctrl-enter>
  <textarea id="text" name="text" data-draft-key="card-1">the saved text</textarea></form>
<form method="post" action="/done/" data-confirm="Really?">
  <button id="withdraw" name="decision" value="withdraw">W</button></form>
<button id="swap" hx-get="/fragment/" hx-target="#target" hx-swap="outerHTML">Swap</button><div id="target">old</div>
<button id="refused" hx-post="/refused/">Refused</button><button id="broken" hx-post="/broken/">Broken</button>
"""
FRAGMENT = '<div id="target" data-announce="Approved."><h2 data-focus-after-swap>Next</h2></div>'


def page_html(content: str) -> str:
    source = "{% extends 'base.html' %}{% block content %}" + content + "{% endblock %}"
    user = SimpleNamespace(pk=7, is_authenticated=True, domain="", get_role_display="Reviewer")
    return engines["django"].from_string(source).render({"user": user})


def answer(route: Route) -> None:
    path = urlsplit(route.request.url).path
    file = STATIC / path.removeprefix("/static/")
    html: dict[str, dict[str, Any]] = {
        "/card/": {"body": page_html(CARD)},
        "/done/": {"body": page_html(f"<pre>{route.request.post_data}</pre>")},
        "/saved/": {"body": page_html('<p data-draft-clear="card-1">Saved.</p>')},
        "/fragment/": {"body": FRAGMENT},
        "/refused/": {
            "body": "Ben was first.",
            "status": 403,
            "headers": {"HX-Retarget": "#refusal", "HX-Reswap": "innerHTML"},
        },
        "/broken/": {"body": "", "status": 500},
        "/errors/": {
            "body": page_html('<input id="good"><input id="bad" aria-invalid="true"><input aria-invalid="true">')
        },
    }
    if path in html:
        given = html[path]
        headers = {"Content-Type": "text/html", "Content-Security-Policy": CSP} | given.get("headers", {})
        route.fulfill(body=given["body"], status=given.get("status", 200), headers=headers)
    elif path.startswith("/static/") and file.is_file():
        route.fulfill(body=file.read_bytes(), content_type=TYPES[file.suffix])
    else:
        route.fulfill(status=404)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def card(browser: Browser) -> Iterator[Page]:
    """The card page, open; the test fails when the browser reports a script error or a broken policy."""
    context = browser.new_context()
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
    page.route(f"{SITE}/**", answer)
    page.goto(f"{SITE}/card/")
    yield page
    context.close()
    assert faults == []


def posted(page: Page) -> str:
    page.wait_for_url("**/done/")
    return page.locator("pre").inner_text()


def test_a_key_presses_its_button(card: Page) -> None:
    card.keyboard.press("a")
    assert posted(card) == "decision=approve"


def test_a_reason_key_works_only_while_its_menu_is_open(card: Page) -> None:
    card.keyboard.press("1")
    card.keyboard.press("r")
    expect(card.locator("#reasons")).to_have_attribute("open", "")
    card.keyboard.press("Escape")
    expect(card.locator("#reasons")).not_to_have_attribute("open", "")
    card.keyboard.press("r")
    card.keyboard.press("1")
    assert posted(card) == "decision=unclear"


@pytest.mark.parametrize("key", ["Enter", "Backspace", "Control+a", "Alt+a"])
def test_enter_backspace_and_modifiers_decide_nothing(card: Page, key: str) -> None:
    card.keyboard.press(key)
    card.wait_for_timeout(150)
    assert card.url.endswith("/card/")


def test_typing_in_a_field_presses_nothing(card: Page) -> None:
    card.locator("#text").press_sequentially(" and a clause")
    assert card.url.endswith("/card/")


def test_keys_can_be_listed_and_switched_off_for_good(card: Page) -> None:
    card.keyboard.press("?")
    expect(card.locator("[data-keys-list]")).to_contain_text("Approve")
    card.locator("[data-keys-toggle]").uncheck()
    card.reload()
    card.keyboard.press("a")
    card.wait_for_timeout(150)
    assert card.url.endswith("/card/")


def test_a_draft_survives_a_reload_and_goes_when_the_server_has_taken_it(card: Page) -> None:
    field = card.locator("#text")
    field.fill("my own words")
    card.wait_for_timeout(1000)
    card.reload()
    expect(field).to_have_value("my own words")
    expect(card.locator(".draft-note")).to_contain_text("is back")
    card.goto(f"{SITE}/saved/")
    card.goto(f"{SITE}/card/")
    expect(field).to_have_value("the saved text")


def test_a_draft_can_be_discarded(card: Page) -> None:
    card.locator("#text").fill("no")
    card.wait_for_timeout(1000)
    card.reload()
    card.locator(".draft-note button").click()
    expect(card.locator("#text")).to_have_value("the saved text")
    card.reload()
    expect(card.locator(".draft-note")).to_have_count(0)


def test_control_enter_sends_the_form_being_typed_in(card: Page) -> None:
    card.locator("#text").fill("mine")
    card.locator("#text").press("Control+Enter")
    assert posted(card) == "text=mine"


def test_a_confirmation_can_be_refused_and_keeps_the_pressed_button(card: Page) -> None:
    card.locator("#withdraw").click()
    expect(card.locator("[data-confirm-text]")).to_have_text("Really?")
    card.keyboard.press("Escape")
    expect(card.locator("[data-confirm-dialog]")).to_be_hidden()
    assert card.url.endswith("/card/")
    card.locator("#withdraw").click()
    card.locator("[data-confirm-yes-button]").click()
    assert posted(card) == "decision=withdraw"


def test_a_swap_is_announced_and_moves_the_focus(card: Page) -> None:
    card.locator("#swap").click()
    expect(card.locator("[data-status-line]")).to_have_text("Approved.")
    expect(card.locator("#target h2")).to_be_focused()


def test_a_page_with_errors_begins_at_the_first(card: Page) -> None:
    card.goto(f"{SITE}/errors/")
    expect(card.locator("#bad")).to_be_focused()


def test_a_refusal_is_shown_in_its_words_and_a_fault_in_the_status_line(card: Page) -> None:
    card.locator("#refused").click()
    expect(card.locator("#refusal")).to_have_text("Ben was first.")
    card.locator("#broken").click()
    expect(card.locator("[data-status-line]")).to_have_text(re.compile("error 500"))


def test_the_chosen_theme_holds_from_the_first_paint_of_the_next_page(card: Page) -> None:
    card.locator("[data-theme-toggle]").first.click()
    card.locator("[data-theme-toggle]").first.click()
    card.reload()
    assert card.evaluate("document.documentElement.dataset.theme") == "dark"
    assert card.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
