"""The whole loop in a browser, as the accounts that may do each part: from a trace file to the fetched prompt."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx2 as httpx
import pytest
from django.conf import settings
from playwright.sync_api import Locator, Page, expect

from pld_app.models import AuditEvent, Domain, Role
from rules.models import (
    Decision,
    DecisionKind,
    Instruction,
    InstructionStatus,
    Publication,
    Release,
    Ruleset,
    Signature,
)
from tests.e2e.conftest import Person
from tests.factories import PASSWORD, make_endpoint, make_task, make_user
from tests.workers import celery_worker, stub_process

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SAMPLE = settings.BASE_DIR / "rules" / "sample"
EACH = 5
WORK_MS = 90_000


def people() -> None:
    make_user("lena", Role.REVIEWER, Domain.LEGAL)
    make_user("finn", Role.REVIEWER, Domain.FINANCE)
    make_user("sofia", Role.SIGNATORY)
    make_user("samir", Role.SIGNATORY)
    make_user("petra", Role.SIGNATORY)
    make_user("abel", Role.AUDITOR)
    make_user("ada", Role.ADMIN)


def test_from_a_trace_file_to_a_fetched_prompt(tmp_path: Path, person: Callable[..., Person]) -> None:
    people()
    with stub_process(tmp_path / "calls.jsonl", latency_s=0.01) as student, celery_worker(tmp_path / "worker.log"):
        given = json.loads((SAMPLE / "task.json").read_text())
        task = make_task(**given, student=make_endpoint(student, slug="student"))
        base = f"/tasks/{task.slug}"

        admin = person("ada")
        _import(admin, base)
        _mine(admin, base)

        lena, finn = person("lena"), person("finn")
        _decide(lena, base)
        _confirm_edits(finn, base)
        assert Instruction.objects.filter(status=InstructionStatus.APPROVED).count() == 2 * EACH

        number = _freeze(finn, base)
        meanings = {"sofia": "I have reviewed these instructions", "samir": "I approve these instructions for release"}
        for signer, meaning in meanings.items():
            _sign(person(signer), f"{base}/rulesets/{number}/", meaning)
        signatory = person("petra")
        _release_and_publish(signatory, base, number)

        token = _token(admin, base)
        _fetch(admin.base, task.slug, token)
        _evaluate(admin, base)
        _audit(person("abel"), base, number)
        _not_for_everybody(lena, finn, base)


def _import(admin: Person, base: str) -> None:
    page = admin.open(f"{base}/imports/new/")
    page.get_by_label("Trace file").set_input_files(SAMPLE / "traces.jsonl")
    page.get_by_role("button", name="Upload").click()
    # The fragment polls itself: the figure arrives without a reload.
    expect(page.locator(".stat", has_text="New").locator(".stat-value")).to_have_text("382", timeout=WORK_MS)


def _mine(admin: Person, base: str) -> None:
    page = admin.open(f"{base}/mining/new/")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("link", name="Review the candidates")).to_be_visible(timeout=WORK_MS)


def _card_number(page: Page) -> str:
    return page.locator("#rule-title").inner_text()


def _decide(lena: Person, base: str) -> None:
    """Five of each kind, by keys and by mouse; each decision brings the next open card."""
    page = lena.open(f"{base}/review/?domain=all")
    page.get_by_role("button", name="Take the next one").click()
    expect(page.locator("#rule-title")).to_be_visible()
    steps: list[Callable[[Page], None]] = [_approve, _edit, _reject, _defer, _send_back]
    for step in steps:
        for _ in range(EACH):
            before = _card_number(page)
            step(page)
            expect(page.locator("#rule-title")).not_to_have_text(before)
    for kind in (
        DecisionKind.APPROVE,
        DecisionKind.EDIT,
        DecisionKind.REJECT,
        DecisionKind.DEFER,
        DecisionKind.SEND_BACK,
    ):
        assert Decision.objects.filter(kind=kind).count() == EACH


def _approve(page: Page) -> None:
    page.keyboard.press("a")


def _edit(page: Page) -> None:
    page.keyboard.press("e")
    box = page.get_by_label("The rule in your words")
    box.fill(box.input_value() + " Edited by Lena.")
    page.keyboard.press("Control+Enter")


def _reject(page: Page) -> None:
    page.keyboard.press("r")
    page.keyboard.press("1")


def _defer(page: Page) -> None:
    page.locator("[data-key=d]").click()


def _send_back(page: Page) -> None:
    page.locator("[data-key=b]").click()
    page.get_by_role("button", name="Unclear").click()


def _confirm_edits(finn: Person, base: str) -> None:
    page = finn.open(f"{base}/review/?domain=all&tab=second")
    page.get_by_role("button", name="Take the next one").click()
    for done in range(1, EACH + 1):
        expect(page.locator(".diff ins").first).to_be_visible()
        before = _card_number(page)
        page.keyboard.press("a")
        if done < EACH:
            expect(page.locator("#rule-title")).not_to_have_text(before)
        assert_eventually(page, partial(_decided_by, "finn", done))
    # The last one leads back to the queue; to open another page before that would break off its request.
    page.wait_for_url(re.compile(r"/review/\?"))


def _decided_by(username: str, count: int) -> bool:
    return Decision.objects.filter(actor__username=username).count() == count


def assert_eventually(page: Page, condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not come true within 5 s")


def _freeze(finn: Person, base: str) -> int:
    page = finn.open(f"{base}/rulesets/new/")
    page.get_by_label("Name").fill("First set")
    page.get_by_role("button", name="Open the draft").click()
    expect(page.get_by_role("heading", name="First set")).to_be_visible()
    page.wait_for_load_state()  # a click before the scripts have run is sent without the question
    page.get_by_role("button", name="Freeze").click()
    page.locator("[data-confirm-yes-button]").click()
    expect(page.get_by_role("heading", name="Signatures")).to_be_visible()
    return Ruleset.objects.get().number


def _sign(signer: Person, path: str, meaning: str) -> None:
    page = signer.open(path)
    # What a person edited or a run found in conflict is opened first: one button less each time.
    unread = page.get_by_role("button", name=re.compile(r"^Open #\d+$"))
    while left := unread.count():
        unread.first.click()
        expect(unread).to_have_count(left - 1)
    assert page.get_by_role("radio", checked=True).count() == 0
    page.get_by_role("radio", name=meaning, exact=True).check()
    page.get_by_label("I understand that my electronic signature").first.check()  # asked once, and each signs once here
    page.get_by_label("password").first.fill(PASSWORD)
    before = Signature.objects.count()
    page.get_by_role("button", name="Sign", exact=True).click()
    assert_eventually(page, lambda: Signature.objects.count() == before + 1)


def _release_and_publish(signatory: Person, base: str, number: int) -> None:
    page = signatory.open(f"{base}/rulesets/{number}/")
    page.get_by_role("button", name="Make a release").click()
    page.wait_for_url("**/releases/**")
    for channel in ("Staging", "Production"):
        page = signatory.open(f"{base}/releases/")
        panel = page.locator("section", has=page.get_by_role("heading", name=channel, exact=True)).last
        _publish(page, panel)
        expect(page.locator("body")).to_contain_text(f"{channel}")


def _publish(page: Page, section: Locator) -> None:
    summary = section.locator("summary", has_text="Publish")
    if summary.count():
        summary.first.click()
    section.get_by_label("Release").first.select_option(str(Release.objects.get().pk))
    accepted = section.get_by_label("I understand that my electronic signature")
    if accepted.count():  # asked once: the first time Petra proves herself is here
        accepted.first.check()
    section.get_by_label("password").first.fill(PASSWORD)
    before = Publication.objects.count()
    section.get_by_role("button", name="Publish").click()
    assert_eventually(page, lambda: Publication.objects.count() == before + 1)


def _token(admin: Person, base: str) -> str:
    page = admin.open(f"{base}/tokens/")
    page.get_by_label("Name").fill("student service")
    page.get_by_role("button", name="Make a token").click()
    return page.locator("pre[aria-labelledby=secret-title]").inner_text().strip()


def _fetch(server: str, slug: str, token: str) -> None:
    """As the student's service: the prompt's bytes match their hash, and an unchanged prompt costs a 304."""
    url = f"{server}/api/v1/tasks/{slug}/prompt?channel=production"
    headers = {"Authorization": f"Bearer {token}"}
    response = httpx.get(url, headers=headers, timeout=10)
    served = response.json()
    assert response.headers["X-Prompt-SHA256"] == served["prompt_sha256"]
    assert hashlib.sha256(served["prompt"].encode()).hexdigest() == served["prompt_sha256"]
    assert "Edited by Lena." in served["prompt"]
    assert {signer["name"] for signer in served["signers"]} == {"Sofia", "Samir"}
    unchanged = httpx.get(url, headers=headers | {"If-None-Match": response.headers["ETag"]}, timeout=10)
    assert (unchanged.status_code, unchanged.content) == (304, b"")


def _evaluate(admin: Person, base: str) -> None:
    for prompt in ("zero_shot", "release"):
        page = admin.open(f"{base}/evaluation/new/")
        select = page.get_by_label("Prompt", exact=True)
        values = select.locator("option").evaluate_all("options => options.map(option => option.value)")
        select.select_option(next(value for value in values if value.startswith(prompt)))
        page.get_by_label("Sample size").fill("12")
        page.get_by_role("button", name="Start").click()
        expect(page.locator("body")).to_contain_text("n = 12", timeout=WORK_MS)
        expect(page.locator("body")).to_contain_text("Macro-F1", timeout=WORK_MS)
        expect(page.locator("svg.fig").first).to_be_visible()


def _audit(abel: Person, base: str, number: int) -> None:
    """The auditor finds who signed, and takes the log and the ruleset away."""
    page = abel.open("/audit/?action=ruleset.signed")
    expect(page.locator("tbody tr")).to_have_count(2)
    log = abel.context.request.get(f"{abel.base}/audit/export.csv").text()
    actions = {row["action"] for row in csv.DictReader(io.StringIO(log))}
    assert {
        "import.created",
        "mining.finished",
        "instruction.approved",
        "ruleset.signed",
        "release.published",
    } <= actions
    lines = abel.context.request.get(f"{abel.base}/audit/export.json").text().splitlines()
    assert len(lines) >= AuditEvent.objects.count() - 2
    exported = abel.context.request.get(f"{abel.base}{base}/rulesets/{number}/export.json").json()
    assert len(exported["manifest"]["instructions"]) == 2 * EACH
    table = abel.context.request.get(f"{abel.base}{base}/rulesets/{number}/export.csv")
    assert table.ok
    assert len(list(csv.reader(io.StringIO(table.text())))) >= 2 * EACH


def _not_for_everybody(lena: Person, finn: Person, base: str) -> None:
    lena.open("/accounts/")
    expect(lena.page.get_by_role("heading", name="Not for your role")).to_be_visible()
    assert finn.context.request.get(f"{finn.base}{base}/mining/new/").status == 403
