"""Second factors: enrolment, use, removal, reset; what the database holds them to."""

import io
from collections.abc import Callable
from typing import Any

import pyotp
import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from pld_app.accounts import account_set_password
from pld_app.canonical import sha256_hex
from pld_app.ceremonies import Act, ceremony_open
from pld_app.errors import InvalidInput
from pld_app.factors import has_second_factor, recovery_codes_renew, totp_begin
from pld_app.models import (
    AuditEvent,
    Ceremony,
    Notification,
    Passkey,
    RecoveryCode,
    SecurityPolicy,
    SsoIdentity,
    TotpDevice,
    User,
)
from pld_app.reauthentication import ProofRefused, reauthenticate, totp_accepts
from pld_app.sign_in import PENDING
from pld_app.totp import secret_new, secret_of, step_of
from rules.models import Task
from rules.services.signing import ruleset_sign
from tests.factories import PASSWORD, audit_actions, make_proof, make_session
from tests.governance.authenticator import Authenticator
from tests.publishing import steps
from tests.publishing.test_database import refused

type ClientOf = Callable[[User], Client]


def test_the_database_holds_factors_to_their_person(sam: User, sue: User) -> None:
    device = TotpDevice.objects.create(user=sam, secret=b"x", last_step=7)
    Authenticator().enrolled(sam)
    SsoIdentity.objects.create(user=sam, issuer="https://id.example", subject="1")
    kinds: list[tuple[Any, list[dict[str, Any]]]] = [
        (TotpDevice, [{"user": sue}, {"last_step": 6}]),
        (Passkey, [{"user": sue}, {"public_key": b"other"}, {"credential_id": b"other"}, {"sign_count": -1}]),
        (SsoIdentity, [{"user": sue}, {"subject": "2"}, {"issuer": "https://other.example"}]),
    ]
    for model, changes in kinds:
        for change in changes:
            refused("keeps its person|only grows|stays bound", lambda: model.objects.update(**change))  # noqa: B023
        refused("append-only", lambda: model.objects.all().delete())  # noqa: B023
        model.objects.update(removed_at=timezone.now())
        refused("keeps its person|only grows|stays bound", lambda: model.objects.update(removed_at=None))  # noqa: B023
    assert TotpDevice.objects.get().pk == device.pk


def test_a_question_is_used_once(sam: User) -> None:
    act = Act(purpose="sign", subject_type="ruleset", subject_id="1", content_sha256="a" * 64, meaning="approved")
    one = ceremony_open(kind="passkey", actor=sam, session_key=make_session(sam), act=act, number=1)
    assert '"nonce"' in one.statement
    assert len(sha256_hex(one.statement)) == 64
    mine = Ceremony.objects.filter(pk=one.pk)
    refused("answered and used once", lambda: mine.update(meaning="reviewed"))
    mine.update(answered_at=timezone.now())
    refused("answered and used once", lambda: mine.update(answered_at=None))
    mine.update(used_at=timezone.now())
    refused("answered and used once", lambda: mine.update(used_at=None))


@pytest.mark.django_db
def test_one_app_a_person(sam: User) -> None:
    TotpDevice.objects.create(user=sam, secret=b"x")
    refused("totp_one_per_person", lambda: TotpDevice.objects.create(user=sam, secret=b"y"))


# Authenticator apps.


def enrolled_app(user: User) -> TotpDevice:
    """A confirmed app of this person, past the pages."""
    device = totp_begin(user=user)
    TotpDevice.objects.filter(pk=device.pk).update(confirmed_at=timezone.now())
    return TotpDevice.objects.get(pk=device.pk)


def code_of(device: TotpDevice, steps: int = 0) -> str:
    """What the app shows now, or so many steps of 30 seconds from now."""
    return pyotp.TOTP(secret_of(device)).at(int(timezone.now().timestamp()) + 30 * steps)


def test_an_app_is_added_with_a_code_and_recovery_codes(sam: User, client_of: ClientOf) -> None:
    browser = client_of(sam)
    assert browser.post("/security/app/begin/").status_code == 409  # the password first
    assert browser.post("/security/unlock/", {"password": "wrong"}).status_code == 422
    assert browser.post("/security/unlock/", {"password": PASSWORD}).status_code == 302
    assert browser.post("/security/app/begin/").headers["Location"] == "/security/app/"
    page = browser.get("/security/app/").content.decode()
    device = TotpDevice.objects.get()
    assert secret_of(device)[:4] in page
    assert secret_of(device).encode() not in bytes(device.secret)
    picture = browser.get("/security/app/code.svg")
    assert picture.headers["Content-Type"] == "image/svg+xml"
    assert b"<svg" in picture.content
    assert browser.post("/security/app/", {"code": "000000"}).status_code == 422
    done = browser.post("/security/app/", {"code": code_of(device)}).content.decode()
    assert done.count("<li><code>") == 10
    assert audit_actions(sam) == ["login.failed", "factor.added"]
    assert [one.kind for one in Notification.objects.filter(user=sam)] == ["factor.changed"]
    # The secret is shown no more.
    assert browser.get("/security/app/").status_code == 302
    assert browser.get("/security/app/code.svg").status_code == 404
    assert secret_of(device) not in str(list(AuditEvent.objects.values_list("data", flat=True)))


@pytest.mark.parametrize(("offset", "accepted"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_one_step_of_clock_skew_is_allowed(sam: User, offset: int, accepted: bool) -> None:
    device = enrolled_app(sam)
    now = timezone.now()
    code = pyotp.TOTP(secret_of(device)).at(int(now.timestamp()) + 30 * offset)
    assert totp_accepts(sam, code, now) is accepted


def test_no_code_counts_twice_nor_an_older_one_after_it(sam: User) -> None:
    device = enrolled_app(sam)
    now = timezone.now()
    older, newer = (pyotp.TOTP(secret_of(device)).at(int(now.timestamp()) + 30 * step) for step in (0, 1))
    assert totp_accepts(sam, newer, now)
    assert not totp_accepts(sam, newer, now)
    assert not totp_accepts(sam, older, now)


@given(st.text(max_size=12))
def test_any_text_is_a_code_or_is_not(text: str) -> None:
    """Nothing that is typed breaks the check; and only six digits could ever be one."""
    device = TotpDevice(secret=secret_new()[1])
    assert step_of(device, text, timezone.now()) is None or text.strip().replace(" ", "").isdigit()


def test_secrets_move_to_a_new_key_and_open_with_either(sam: User, settings: Settings) -> None:
    device = enrolled_app(sam)
    secret, old = secret_of(device), settings.FACTOR_KEYS
    settings.FACTOR_KEYS = [Fernet.generate_key().decode(), *old]
    assert secret_of(device) == secret
    call_command("factor_keys_rotate", stdout=io.StringIO())
    device.refresh_from_db()
    settings.FACTOR_KEYS = settings.FACTOR_KEYS[:1]
    assert secret_of(device) == secret
    settings.FACTOR_KEYS = old
    with pytest.raises(ImproperlyConfigured):
        secret_of(device)


# Signing in with them.


def password_step(username: str = "sam") -> tuple[Client, Any]:
    browser = Client()
    return browser, browser.post("/sign-in/?next=/inbox/", {"username": username, "password": PASSWORD})


def test_signing_in_takes_the_second_factor_of_who_has_one(sam: User) -> None:
    device = enrolled_app(sam)
    browser, response = password_step()
    assert response.headers["Location"] == "/sign-in/second/"
    assert browser.get("/inbox/").status_code == 302  # not yet
    before = browser.session.session_key
    assert "Sam, the first step was right" in browser.get("/sign-in/second/").content.decode()
    assert browser.post("/sign-in/second/", {"code": "000000"}).status_code == 422
    response = browser.post("/sign-in/second/", {"code": code_of(device)})
    assert response.headers["Location"] == "/inbox/"
    assert browser.get("/inbox/").status_code == 200
    assert browser.session.session_key != before
    assert audit_actions(sam) == ["login.failed", "login.succeeded"]
    assert AuditEvent.objects.get(action="login.succeeded").data["method"] == "password+totp"


def test_the_second_step_is_no_way_around_the_first(sam: User) -> None:
    device = enrolled_app(sam)
    browser = Client()
    assert browser.post("/sign-in/second/", {"code": code_of(device)}).headers["Location"] == "/sign-in/"
    browser, _response = password_step()
    User.objects.get(pk=sam.pk).set_password("x")
    account_set_password(user_id=sam.pk, password="another long password")
    assert browser.post("/sign-in/second/", {"code": code_of(device)}).headers["Location"] == "/sign-in/"
    assert "_auth_user_id" not in browser.session


def test_the_second_step_waits_as_the_first_does(sam: User) -> None:
    device = enrolled_app(sam)
    browser, _response = password_step()
    answers = [browser.post("/sign-in/second/", {"code": f"00000{n}"}).status_code for n in range(5)]
    assert answers == [422] * 4 + [429]
    assert browser.post("/sign-in/second/", {"code": code_of(device)}).status_code == 429
    assert password_step()[1].status_code == 429  # one limit for both steps


def test_five_minutes_are_enough_for_the_second_step(sam: User) -> None:
    device = enrolled_app(sam)
    browser, _response = password_step()
    session = browser.session
    session[PENDING] = session[PENDING] | {"since": timezone.now().timestamp() - 301}
    session.save()
    assert browser.post("/sign-in/second/", {"code": code_of(device)}).headers["Location"] == "/sign-in/"


def test_a_recovery_code_signs_in_once_and_signs_nothing(sam: User, task: Task) -> None:
    enrolled_app(sam)
    codes = recovery_codes_renew(user=sam)
    browser, _response = password_step()
    assert browser.post("/sign-in/second/", {"code": codes[0].upper()}).status_code == 302
    again, _response = password_step()
    assert again.post("/sign-in/second/", {"code": codes[0]}).status_code == 422
    with pytest.raises(ProofRefused):
        reauthenticate(actor=sam, proof=make_proof(sam, code=codes[1]), purpose="sign", subject=task)
    renewed = recovery_codes_renew(user=sam)
    assert again.post("/sign-in/second/", {"code": codes[2]}).status_code == 422
    assert again.post("/sign-in/second/", {"code": renewed[0]}).status_code == 302
    assert not RecoveryCode.objects.filter(digest__contains=renewed[1].replace("-", "")).exists()


def test_an_administrator_resets_another_and_the_person_is_told(sam: User, ada: User, client_of: ClientOf) -> None:
    enrolled_app(sam)
    Authenticator().enrolled(sam)
    browser, admin = client_of(sam), client_of(ada)
    assert "App and passkey" in admin.get("/accounts/").content.decode()
    assert admin.post(f"/accounts/{sam.pk}/factors/reset/").status_code == 302
    assert not has_second_factor(sam)
    assert browser.get("/").status_code == 302
    assert audit_actions(sam) == ["factor.reset"]
    assert Notification.objects.get(user=sam).text == (
        "Ada removed the authenticator app, passkeys and recovery codes of your account."
    )
    assert admin.post(f"/accounts/{sam.pk}/factors/reset/").status_code == 409
    assert admin.post(f"/accounts/{ada.pk}/factors/reset/").status_code == 422


def test_an_installation_may_ask_signatories_for_a_second_factor(
    task: Task, ana: User, sam: User, ada: User, client_of: ClientOf
) -> None:
    admin = client_of(ada)
    assert admin.post("/accounts/policy/", {"second_factor": "yes"}).status_code == 302
    assert admin.post("/accounts/policy/", {"second_factor": "yes"}).status_code == 409
    ruleset = steps.frozen(task, ana)
    with pytest.raises(InvalidInput, match="Signatories need a second factor"):
        steps.sign(ruleset, sam)
    assert "until then you cannot sign" in client_of(sam).get("/security/").content.decode()
    device = enrolled_app(sam)
    proof = make_proof(sam, code=code_of(device))
    ruleset_sign(
        ruleset_id=ruleset.pk, signer=sam, proof=proof, meaning="approved", manifest_sha256=ruleset.manifest_sha256
    )
    refused("append-only", lambda: SecurityPolicy.objects.all().delete())
