"""C16: four questions of an auditor, each answered within three clicks of the home page: links and buttons."""

import re
from collections.abc import Callable
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client

from pld_app.models import User
from rules.models import EvidenceRole, Instruction, Task
from tests.factories import make_evidence, make_trace
from tests.publishing import steps


class Links(HTMLParser):
    """The links of a page by their words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._href, self._words = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._href, self._words = dict(attrs).get("href") or "", ""

    def handle_data(self, data: str) -> None:
        self._words += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self.found.append((" ".join(self._words.split()), self._href))


class Auditor:
    """A person who starts at the home page and only clicks."""

    def __init__(self, client: Client) -> None:
        self.client, self.clicks, self.path = client, 0, "/"
        self.page = client.get("/").content.decode()

    def click(self, words: str) -> "Auditor":
        """Follow the first link of the page that says so."""
        links = Links(self.page).found
        href = next((href for said, href in links if said == words), None)
        assert href is not None, (words, self.path, [said for said, _href in links])
        return self._go(href)

    def submit(self, **typed: Any) -> "Auditor":
        """Fill in the page's form and press its button."""
        return self._go(self.path + "?" + "&".join(f"{name}={value}" for name, value in typed.items()))

    def _go(self, path: str) -> "Auditor":
        self.clicks, self.path = self.clicks + 1, path
        response = self.client.get(path)
        assert response.status_code == 200
        self.page = response.content.decode()
        return self

    def reads(self, *words: str) -> None:
        text = " ".join(re.sub(r"<[^>]+>", " ", self.page).split())
        for one in words:
            assert one in text, (one, self.path)
        assert self.clicks <= 3


@pytest.fixture
def auditor(task: Task, ana: User, sam: User, sue: User, abe: User, client_of: Callable[[User], Client]) -> Auditor:
    release = steps.in_production(task, ana, sam, sue)
    rule = Instruction.objects.get(task=task, number=1)
    make_evidence(rule, make_trace(task, external_id="case-17"))
    make_evidence(rule, make_trace(task, external_id="case-18"), EvidenceRole.CONTRADICTING)
    assert str(release) == "v1"
    return Auditor(client_of(abe))


def test_who_approved_rule_r_in_version_v(auditor: Auditor) -> None:
    auditor.click("NDA").click("v1").reads("If clause 1 allows copies", "Approved by Ana")


def test_on_what_evidence(auditor: Auditor) -> None:
    auditor.click("NDA").click("v1").reads("On 1 trace: case-17", "1 against it")
    auditor.click("case-17").reads("Trace case-17", "Because of clause")


def test_who_published_it(auditor: Auditor) -> None:
    auditor.click("NDA").click("What was served when").reads("Published by Sam", "Signed by")


def test_what_text_the_student_saw_at_a_time(auditor: Auditor, task: Task) -> None:
    published = task.publications.get(channel="production")
    before, after = published.at - timedelta(minutes=1), published.at + timedelta(minutes=1)
    auditor.click("NDA").click("What was served when")
    auditor.submit(channel="production", at=after.strftime("%Y-%m-%dT%H:%M"))
    prompt = published.release
    auditor.reads("1. If clause 1 allows copies, then label Compliant.", prompt.prompt_sha256[8:], "Approved by Ana")
    auditor.clicks -= 1
    auditor.submit(channel="production", at=before.strftime("%Y-%m-%dT%H:%M")).reads("Nothing at")


def test_the_approval_leads_to_its_event(auditor: Auditor) -> None:
    auditor.click("NDA").click("v1")
    event = next(said for said, _href in Links(auditor.page).found if said.startswith("event "))
    auditor.click(event).reads("Ana approved instruction “#1”")


def test_the_pages_cost_the_same_for_three_rules_and_nine(
    auditor: Auditor, task: Task, ana: User, sam: User, sue: User, django_assert_max_num_queries: Any
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as few:
        auditor.client.get("/tasks/nda/releases/1/")
    steps.approved(task, ana, 6)
    release = steps.again(task, ana, sam, sue)
    assert release.ruleset.items.count() == 9
    with django_assert_max_num_queries(len(few)):
        auditor.client.get(f"/tasks/nda/releases/{release.version}/")
