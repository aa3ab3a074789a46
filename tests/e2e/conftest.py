"""A real browser against the live server, with a person signed in by the form."""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from pytest_django.live_server_helper import LiveServer

from tests.factories import PASSWORD

# Playwright's synchronous API keeps an event loop in this thread; the test's own queries are meant to run here.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


class Person:
    """One person's browser: a context of its own, in which a script error or a broken policy fails the test."""

    def __init__(self, context: BrowserContext, base: str, faults: list[str]) -> None:
        self.context, self.base = context, base
        self.page: Page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.page.on("pageerror", lambda error: faults.append(str(error)))
        self.page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)

    def open(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def sign_in(self, username: str) -> None:
        self.open("/sign-in/")
        self.page.get_by_label("User name").fill(username)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("button", name="Sign out").wait_for()


@pytest.fixture
def person(live_server: LiveServer, browser: Browser) -> Iterator[Callable[..., Person]]:
    """`person("lena")` signs in; further keywords are Playwright's context options (color_scheme, viewport, ...)."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def make(username: str = "", **options: object) -> Person:
        context = browser.new_context(viewport={"width": 1440, "height": 900}, **options)  # type: ignore[arg-type]  # Playwright's own keywords
        contexts.append(context)
        someone = Person(context, live_server.url, faults)
        if username:
            someone.sign_in(username)
        return someone

    yield make
    for context in contexts:
        context.close()
    assert faults == []
