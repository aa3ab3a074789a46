"""Signing in a real browser: a passkey of Chromium's virtual authenticator from enrolment to the signed manifest."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pyotp
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from pld_app.assertions import assertion_verify
from pld_app.models import Domain, Passkey, Role, TotpDevice, UserSession
from pld_app.totp import secret_of
from rules.models import Signature
from tests.e2e.conftest import Person
from tests.e2e.scenes import overflow_px
from tests.factories import PASSWORD, make_instruction, make_task, make_user
from tests.publishing import steps

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

PICTURES = os.environ.get("PLD_SIGNING_PICTURES", "")


def look(page: Page, name: str) -> None:
    """axe finds nothing and nothing scrolls sideways, light and dark, wide and at 360 px; pictures when asked for."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1440, 360):
            page.set_viewport_size({"width": width, "height": 900})
            assert overflow_px(page) == 0, (name, width)
            if PICTURES:
                page.screenshot(path=str(Path(PICTURES) / f"{name}-{scheme}-{width}.png"), full_page=True)
        found = Axe().run(page)
        assert found.violations_count == 0, (name, scheme, found.generate_report())
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1440, "height": 900})


def with_passkeys(person: Person) -> None:
    """A device that has passkeys and checks its person, as Chromium's developer tools offer one."""
    session = person.context.new_cdp_session(person.page)
    session.send("WebAuthn.enable", {"enableUI": False})
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})


def unlock(page: Page) -> None:
    page.get_by_label("Your password, again").fill(PASSWORD)
    page.get_by_role("button", name="Go on").click()


def test_a_passkey_from_enrolment_to_signature(person: Callable[..., Person]) -> None:
    task, ana = make_task(), make_user("ana", Role.REVIEWER, Domain.LEGAL)
    make_user("sam", Role.SIGNATORY)
    ruleset = steps.frozen(task, ana)
    sam = person("sam")
    with_passkeys(sam)
    page = sam.open("/security/")
    look(page, "security-locked")
    unlock(page)
    page.get_by_label("Name of the device").fill("Laptop")
    page.get_by_role("button", name="Add a passkey").click()
    expect(page.get_by_role("heading", name="Your recovery codes")).to_be_visible()
    look(page, "recovery")
    page.get_by_role("link", name="I have kept them").click()
    expect(page.locator(".passkeys")).to_contain_text("Laptop")
    look(page, "security")

    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("User name").fill("sam")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Second step")).to_be_visible()
    look(page, "second")
    page.get_by_role("button", name="Use a passkey").click()
    page.get_by_role("button", name="Sign out").wait_for()

    page = sam.open(f"/tasks/nda/rulesets/{ruleset.number}/")
    look(page, "sign")
    page.get_by_role("radio", name="I approve these instructions for release", exact=True).check()
    page.get_by_label("I understand that my electronic signature").first.check()
    page.get_by_label("Your password, again").first.fill(PASSWORD)
    page.get_by_role("button", name="Confirm with a passkey").first.click()
    expect(page.locator(".signatures")).to_contain_text("Password and passkey")
    page.get_by_text("What the passkey confirmed").click()
    look(page, "signed")

    signature = Signature.objects.get()
    assert signature.reauthentication is not None
    said = assertion_verify(signature.reauthentication.evidence or {})
    assert (said["content_sha256"], said["meaning"]) == (ruleset.manifest_sha256, "approved")
    assert Passkey.objects.get().sign_count > 0

    page = sam.open("/inbox/")
    expect(page.locator(".inbox")).to_contain_text("the passkey Laptop was added")
    look(page, "inbox")


def test_an_authenticator_app_without_javascript(person: Callable[..., Person]) -> None:
    """The same by code, in a browser without scripts."""
    task, ana = make_task(), make_user("ana", Role.REVIEWER, Domain.LEGAL)
    make_user("sam", Role.SIGNATORY)
    ruleset = steps.frozen(task, ana)
    sam = person("sam", java_script_enabled=False)
    page = sam.open("/security/")
    unlock(page)
    page.get_by_role("button", name="Add an authenticator app").click()
    page.wait_for_load_state()
    assert page.locator("img.qr").evaluate("image => image.naturalWidth") > 100
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / "app.png"), full_page=True)
    device = TotpDevice.objects.get()
    page.get_by_label("Code the app shows now").fill(pyotp.TOTP(secret_of(device)).now())
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("link", name="I have kept them").click()
    page = sam.open(f"/tasks/nda/rulesets/{ruleset.number}/")
    page.get_by_role("radio", name="I approve these instructions for release", exact=True).check()
    page.get_by_label("I understand that my electronic signature").first.check()
    page.get_by_label("Your password, again").first.fill(PASSWORD)
    # A code counts once: this one is of the step after the one that was used.
    following = pyotp.TOTP(secret_of(device)).at(int(time.time()) + 30)
    page.get_by_label("Code of your authenticator app").first.fill(following)
    page.get_by_role("button", name="Sign", exact=True).click()
    expect(page.locator(".signatures")).to_contain_text("Password and authenticator code")


def test_a_text_survives_the_end_of_the_session(person: Callable[..., Person]) -> None:
    """Typed, signed out underneath, signed in again: the text is back in its field."""
    task = make_task()
    make_user("ana", Role.REVIEWER, Domain.LEGAL)
    one = make_instruction(task)
    ana = person("ana")
    page = ana.open(f"/tasks/nda/review/{one.number}/")
    page.keyboard.press("e")
    field = page.locator("textarea[name=text]")
    field.fill("If copies may be kept for a year, then label Breach.")
    page.wait_for_timeout(600)
    UserSession.objects.all().delete()
    page.locator("form:has(textarea[name=text]) button[type=submit]").first.click()
    page.get_by_label("User name").fill("ana")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    expect(page.locator("textarea[name=text]")).to_have_value("If copies may be kept for a year, then label Breach.")
