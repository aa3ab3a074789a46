"""Passkeys: enrolment, signing in, and the assertion over the manifest, which verifies without this program."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from pld_app.assertions import EvidenceInvalid, assertion_verify, unb64
from pld_app.canonical import sha256_hex
from pld_app.ceremonies import Act, ceremony_open
from pld_app.models import AuditEvent, Ceremony, Passkey, Reauthentication, User
from pld_app.passkeys import Site, authentication_options, evidence_of
from pld_app.views.security import UNLOCKED
from rules.models import Meaning, Ruleset, Signature, Task
from rules.selectors.signatures import signatures_of
from tests.factories import PASSWORD, PROOF, audit_actions, make_reauthentication, make_session
from tests.governance.authenticator import SITE, Authenticator
from tests.publishing import steps
from tests.publishing.test_database import refused

type ClientOf = Callable[[User], Client]


def evidence_for(device: Authenticator, user: User, session_key: str, **act: Any) -> dict[str, Any]:
    """What is kept when this passkey confirms this act."""
    ceremony = ceremony_open(kind="passkey", actor=user, session_key=session_key, act=Act(**act), number=1)
    challenge = bytes.fromhex(sha256_hex(ceremony.statement))
    passkey = user.passkeys.get()
    answer = device.get(authentication_options(site=SITE, challenge=challenge, passkeys=[passkey]))
    return evidence_of(site=SITE, answer=answer, statement=ceremony.statement, passkey=passkey)


def act_of(ruleset: Ruleset, meaning: str = "approved") -> dict[str, str]:
    return {
        "purpose": "sign",
        "subject_type": "ruleset",
        "subject_id": str(ruleset.pk),
        "content_sha256": ruleset.manifest_sha256,
        "meaning": meaning,
    }


def test_evidence_of_another_act_is_refused_by_the_database(task: Task, ana: User, sam: User, sue: User) -> None:
    ruleset = steps.frozen(task, ana)
    device, key = Authenticator().enrolled(sam), make_session(sam)
    act = act_of(ruleset)
    good = evidence_for(device, sam, key, **act)
    assertion_verify(good)
    fields = {"method": "password+passkey", "meaning": Meaning.APPROVED, "session_key": key}
    for change in ("purpose", "subject_type", "subject_id", "content_sha256", "meaning"):
        other = evidence_for(device, sam, key, **(act | {change: "other"}))
        refused("something else", lambda: make_reauthentication(sam, ruleset, evidence=other, **fields))  # noqa: B023
    changed = good | {"statement": good["statement"].replace('"at":"2', '"at":"3')}
    refused("something else", lambda: make_reauthentication(sam, ruleset, evidence=changed, **fields))
    elsewhere = good | {"public_key": "AAAA"}
    refused("no passkey of the account", lambda: make_reauthentication(sam, ruleset, evidence=elsewhere, **fields))
    make_reauthentication(sam, ruleset, evidence=good, **fields)
    refused("reauthentication_evidence_once", lambda: make_reauthentication(sam, ruleset, evidence=good, **fields))
    assert Reauthentication.objects.count() == 1


# Enrolment.


def unlocked(browser: Client) -> Client:
    session = browser.session
    session[UNLOCKED] = timezone.now().timestamp()
    session.save()
    return browser


def add(browser: Client, device: Authenticator, name: str = "Laptop") -> Any:
    options = browser.post("/security/passkeys/options/").json()
    return browser.post("/security/passkeys/", {"name": name, "passkey": device.create(options)})


def test_a_passkey_is_added_named_renamed_and_removed(sam: User, client_of: ClientOf) -> None:
    browser, device = client_of(sam), Authenticator()
    assert browser.post("/security/passkeys/options/").status_code == 409  # the password first
    unlocked(browser)
    options = browser.post("/security/passkeys/options/").json()
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert options["rp"]["id"] == "testserver"
    answer = browser.post("/security/passkeys/", {"name": "Laptop", "passkey": device.create(options)})
    assert answer.content.decode().count("<li><code>") == 10  # recovery codes with the first factor
    kept = Passkey.objects.get()
    assert (kept.user, kept.name, bytes(kept.public_key)) == (sam, "Laptop", device.cose)
    assert "Laptop" in browser.get("/security/").content.decode()
    assert browser.post(f"/security/passkeys/{kept.pk}/rename/", {"name": "Work"}).status_code == 302
    assert browser.post(f"/security/passkeys/{kept.pk}/rename/", {"name": " "}).status_code == 422
    assert browser.post(f"/security/passkeys/{kept.pk}/remove/").status_code == 302
    assert browser.post(f"/security/passkeys/{kept.pk}/remove/").status_code == 422
    assert audit_actions(sam) == ["factor.added", "factor.renamed", "factor.removed"]


def test_a_challenge_to_a_new_passkey_counts_once_and_here(sam: User, sue: User, client_of: ClientOf) -> None:
    browser = unlocked(client_of(sam))
    options = browser.post("/security/passkeys/options/").json()
    device = Authenticator()
    answer = device.create(options)
    assert browser.post("/security/passkeys/", {"name": "x", "passkey": answer}).status_code == 200
    assert browser.post("/security/passkeys/", {"name": "x", "passkey": answer}).status_code == 422
    # The same device again, on this account or another.
    assert add(browser, device).status_code == 409
    assert add(unlocked(client_of(sue)), device).status_code == 409
    assert Passkey.objects.count() == 1


@pytest.mark.parametrize(
    "device",
    [
        Authenticator(verified=False),
        Authenticator(site=Site("testserver", "https://evil.example")),
        Authenticator(site=Site("evil.example", "http://testserver")),
    ],
    ids=["without PIN", "another origin", "another site"],
)
def test_a_device_that_does_not_check_its_person_or_is_elsewhere_is_refused(
    sam: User, client_of: ClientOf, device: Authenticator
) -> None:
    assert add(unlocked(client_of(sam)), device).status_code == 422
    assert not Passkey.objects.exists()


@pytest.mark.parametrize("answer", ["", "{}", "null", "7", '{"id": 1}', '{"id": "AA", "response": null}', "\u00e9"])
def test_whatever_a_browser_sends_is_an_answer_or_a_refusal(sam: User, client_of: ClientOf, answer: str) -> None:
    browser = unlocked(client_of(sam))
    browser.post("/security/passkeys/options/")
    assert browser.post("/security/passkeys/", {"name": "x", "passkey": answer}).status_code == 422


# Signing in.


def asked_at_sign_in(browser: Client) -> dict[str, Any]:
    browser.post("/sign-in/", {"username": "sam", "password": PASSWORD})
    question: dict[str, Any] = json.loads(browser.get("/sign-in/second/").context["question"])
    return question


def test_signing_in_with_a_passkey(sam: User) -> None:
    device, browser = Authenticator().enrolled(sam), Client()
    question = asked_at_sign_in(browser)
    assert question["userVerification"] == "required"
    answer = device.get(question)
    assert browser.post("/sign-in/second/", {"passkey": answer}).status_code == 302
    assert AuditEvent.objects.get(action="login.succeeded").data["method"] == "password+passkey"
    assert Passkey.objects.get().sign_count == 1
    # The answer counts once: the next sign-in asks something else.
    other = Client()
    asked_at_sign_in(other)
    assert other.post("/sign-in/second/", {"passkey": answer}).status_code == 422


def test_a_copied_passkey_is_noticed_by_its_counter(sam: User) -> None:
    device, browser = Authenticator(count=9).enrolled(sam), Client()
    assert browser.post("/sign-in/second/", {"passkey": device.get(asked_at_sign_in(browser))}).status_code == 302
    device.count = 5
    again = Client()
    assert again.post("/sign-in/second/", {"passkey": device.get(asked_at_sign_in(again))}).status_code == 422


def test_a_removed_passkey_opens_nothing(sam: User) -> None:
    device = Authenticator().enrolled(sam)
    Authenticator().enrolled(sam, "Phone")
    Passkey.objects.filter(name="Laptop").update(removed_at=timezone.now())
    browser = Client()
    assert browser.post("/sign-in/second/", {"passkey": device.get(asked_at_sign_in(browser))}).status_code == 422


# Signing a ruleset.


class Signing:
    """A signatory with a passkey before a ruleset in sign-off."""

    def __init__(self, task: Task, ana: User, sam: User, browser: Client) -> None:
        self.ruleset, self.browser, self.device = steps.frozen(task, ana), browser, Authenticator().enrolled(sam)
        self.path = f"/tasks/nda/rulesets/{self.ruleset.number}/"

    def ask(self, **fields: str) -> dict[str, Any]:
        act = {
            "ceremony_purpose": "sign",
            "ceremony_subject_type": "ruleset",
            "ceremony_subject_id": str(self.ruleset.pk),
            "meaning": "approved",
        }
        asked: dict[str, Any] = self.browser.post("/ceremony/passkey/", act | fields).json()
        return asked

    def sign(self, asked: dict[str, Any], **fields: str) -> Any:
        form = {"manifest_sha256": self.ruleset.manifest_sha256, "meaning": "approved", **PROOF}
        form |= {"ceremony": asked["ceremony"], "passkey": self.device.get(asked["options"])}
        return self.browser.post(f"{self.path}sign/", form | fields)


@pytest.fixture
def signing(task: Task, ana: User, sam: User, client_of: ClientOf) -> Signing:
    return Signing(task, ana, sam, client_of(sam))


def test_a_signature_keeps_what_the_passkey_confirmed(signing: Signing, abe: User, client_of: ClientOf) -> None:
    assert signing.sign(signing.ask()).status_code == 302
    signature = Signature.objects.get()
    assert signature.method == "password+passkey"
    assert signature.reauthentication is not None
    said = assertion_verify(signature.reauthentication.evidence or {})
    assert said["subject"] == {
        "type": "ruleset",
        "id": str(signing.ruleset.pk),
        "number": signing.ruleset.number,
    }
    assert (said["content_sha256"], said["meaning"]) == (signing.ruleset.manifest_sha256, "approved")
    assert (said["signer"]["username"], said["schema"]) == ("sam", "pld-ceremony/v1")
    (facts,) = signatures_of(Ruleset.objects.get())
    assert (facts.fault, facts.as_json()["evidence"]) == ("", signature.reauthentication.evidence)
    assert "What the passkey confirmed" in client_of(abe).get(signing.path).content.decode()


@pytest.mark.parametrize(
    ("asked", "signed"),
    [
        ({"meaning": "reviewed"}, {}),
        ({"ceremony_purpose": "publish"}, {}),
        ({}, {"meaning": "reviewed"}),
        ({}, {"ceremony": ""}),
        ({}, {"ceremony": "00000000-0000-4000-8000-000000000000"}),
        ({}, {"passkey": "{}"}),
        ({}, {"password": "wrong"}),
    ],
    ids=str,
)
def test_what_was_not_confirmed_is_not_signed(signing: Signing, asked: dict[str, str], signed: dict[str, str]) -> None:
    assert signing.sign(signing.ask(**asked), **signed).status_code == 422
    assert not Signature.objects.exists()
    assert AuditEvent.objects.filter(action="signature.refused").count() == 1


def test_a_confirmation_for_another_ruleset_signs_nothing(signing: Signing, task: Task, ana: User) -> None:
    other = steps.again_frozen(task, ana)
    assert signing.sign(signing.ask(ceremony_subject_id=str(other.pk))).status_code == 422
    assert not Signature.objects.exists()


def test_a_question_to_a_passkey_waits_five_minutes(signing: Signing) -> None:
    asked = signing.ask()
    one = Ceremony.objects.get()
    fields = {
        name.attname: getattr(one, name.attname) for name in Ceremony._meta.fields if name.name not in {"id", "at"}
    }
    Ceremony.objects.create(
        **(fields | {"token": "11111111-1111-4111-8111-111111111111", "at": steps.minutes_ago(5.1)})
    )
    assert signing.sign(asked, ceremony="11111111-1111-4111-8111-111111111111").status_code == 422


def test_the_question_is_about_what_the_server_knows(signing: Signing) -> None:
    for fields in ({"ceremony_subject_type": "user"}, {"ceremony_subject_id": "0"}, {"ceremony_subject_id": "x"}):
        act = {"ceremony_purpose": "sign", "ceremony_subject_type": "ruleset", "ceremony_subject_id": "1"}
        assert signing.browser.post("/ceremony/passkey/", act | fields).status_code == 422


# The evidence by itself.


@pytest.fixture
def evidence(task: Task, ana: User, sam: User) -> dict[str, Any]:
    device = Authenticator().enrolled(sam)
    return evidence_for(device, sam, make_session(sam), **act_of(steps.frozen(task, ana, 1)))


def test_no_changed_character_of_the_evidence_verifies(evidence: dict[str, Any]) -> None:
    """Every character of the statement, and of each signed part, one after the other."""
    assertion_verify(evidence)
    survived = []
    for name in ("statement", "authenticator_data", "client_data", "signature", "origin", "rp_id", "public_key"):
        value = evidence[name]
        for at in range(len(value)):
            other = "A" if value[at] != "A" else "B"
            try:
                assertion_verify(evidence | {name: value[:at] + other + value[at + 1 :]})
            except EvidenceInvalid:
                continue
            survived.append((name, at))
    assert survived == []


@pytest.mark.parametrize("missing", ["statement", "public_key_pem", "signature", "rp_id"])
def test_evidence_with_a_part_missing_or_unknown_is_refused(evidence: dict[str, Any], missing: str) -> None:
    with pytest.raises(EvidenceInvalid):
        assertion_verify({name: value for name, value in evidence.items() if name != missing})
    with pytest.raises(EvidenceInvalid):
        assertion_verify(evidence | {"more": "x"})


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_openssl_verifies_it_too(evidence: dict[str, Any], tmp_path: Path) -> None:
    """As an auditor would: the key, the signed bytes and the signature, and stock tools."""
    client = unb64(evidence["client_data"])
    (tmp_path / "key.pem").write_text(evidence["public_key_pem"])
    (tmp_path / "signed").write_bytes(unb64(evidence["authenticator_data"]) + bytes.fromhex(sha256_hex(client)))
    (tmp_path / "signature").write_bytes(unb64(evidence["signature"]))
    command = "openssl dgst -sha256 -verify key.pem -signature signature signed"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verified OK" in done.stdout
