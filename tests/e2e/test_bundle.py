"""An auditor asks for a bundle, watches it being made without reloading, takes it and finds how to verify it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from pytest_django import Settings

from pld_app.canonical import sha256_hex
from pld_app.models import Domain, Role
from rules.models import BundleRequest
from tests.e2e.conftest import Person
from tests.e2e.scenes import overflow_px
from tests.factories import make_task, make_user
from tests.governance.sealing import Log
from tests.publishing.steps import signed
from tests.publishing.test_bundle_requests import run

pytestmark = [pytest.mark.e2e, pytest.mark.django_db(transaction=True)]


def test_from_the_ruleset_to_the_file(person: Callable[..., Person], tmp_path: Path, settings: Settings) -> None:
    settings.MEDIA_ROOT = str(tmp_path / "media")
    log = Log(tmp_path, settings)
    sam, sue = (make_user(name, Role.SIGNATORY) for name in ("sam", "sue"))
    make_user("abel", Role.AUDITOR)
    ruleset = signed(make_task(), make_user("lena", Role.REVIEWER, Domain.LEGAL), sam, sue)
    log.seal()
    page = person("abel").open(f"/tasks/{ruleset.task.slug}/rulesets/{ruleset.number}/")
    page.get_by_role("link", name="Signed bundle").click()
    page.get_by_role("button", name="Request bundle").click()
    expect(page.get_by_text("Waiting until the newest events are sealed")).to_be_visible()
    request = run(BundleRequest.objects.get())
    expect(page.get_by_text("The sealer checks the files")).to_be_visible()
    log.seal()
    run(request)
    with page.expect_download() as taken:
        page.get_by_role("link", name="Download").click()
    assert sha256_hex(Path(taken.value.path()).read_bytes()) == request.sha256
    expect(page.get_by_role("heading", name="How to verify it")).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1440, 360):
            page.set_viewport_size({"width": width, "height": 900})
            assert overflow_px(page) == 0
            page.screenshot(path=tmp_path / f"bundle-{scheme}-{width}.png", full_page=True)
        assert [one["id"] for one in Axe().run(page).response["violations"]] == []
    page.get_by_role("link", name="Signed bundles").click()
    expect(page.get_by_role("row").filter(has_text="Ready")).to_be_visible()
    page.screenshot(path=tmp_path / "bundles.png", full_page=True)
