"""Passkeys: the assertion over the manifest, kept as evidence that verifies without this program."""

from typing import Any

from pld_app.assertions import assertion_verify
from pld_app.canonical import sha256_hex
from pld_app.models import Reauthentication, User
from pld_app.passkeys import authentication_options, evidence_of
from pld_app.reauthentication import Act, ceremony_open
from rules.models import Meaning, Task
from tests.factories import make_reauthentication, make_session
from tests.governance.authenticator import SITE, Authenticator
from tests.publishing import steps
from tests.publishing.test_database import refused


def evidence_for(device: Authenticator, user: User, session_key: str, **act: Any) -> dict[str, Any]:
    """What is kept when this passkey confirms this act."""
    ceremony = ceremony_open(kind="passkey", actor=user, session_key=session_key, act=Act(**act), number=1)
    challenge = bytes.fromhex(sha256_hex(ceremony.statement))
    passkey = user.passkeys.get()
    answer = device.get(authentication_options(site=SITE, challenge=challenge, passkeys=[passkey]))
    return evidence_of(site=SITE, answer=answer, statement=ceremony.statement, passkey=passkey)


def test_evidence_of_another_act_is_refused_by_the_database(task: Task, ana: User, sam: User, sue: User) -> None:
    ruleset = steps.frozen(task, ana)
    device, key = Authenticator().enrolled(sam), make_session(sam)
    act = {
        "purpose": "sign",
        "subject_type": "ruleset",
        "subject_id": str(ruleset.pk),
        "content_sha256": ruleset.manifest_sha256,
        "meaning": Meaning.APPROVED.value,
    }
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
