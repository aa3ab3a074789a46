"""C1 to C9 of the governance statements: what a signature is, as page, export and database have it."""

import json
import re
from collections.abc import Callable
from functools import partial
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from pld_app.accounts import account_deactivate
from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import Method, Reauthentication, Role, TotpDevice, User
from pld_app.reauthentication import ProofRefused
from rules.models import Meaning, PublicationKind, Ruleset, RulesetStatus, Signature, Task
from rules.selectors.signatures import signature_facts, signatures_of
from rules.services.exporting import ExportKind, ruleset_export
from rules.services.signing import ruleset_sign
from rules.services.tokens import token_create
from tests.factories import PROOF, make_proof, make_session, make_user
from tests.governance.test_factors import code_of, enrolled_app
from tests.publishing import steps
from tests.publishing.test_database import refused, sign_directly, sql

type ClientOf = Callable[[User], Client]


def sign(
    ruleset: Ruleset, signer: User, meaning: Meaning = Meaning.APPROVED, conditions: str = "", **proof: Any
) -> Signature:
    return ruleset_sign(
        ruleset_id=ruleset.pk,
        signer=signer,
        proof=make_proof(signer, **proof),
        meaning=meaning,
        conditions=conditions,
        manifest_sha256=ruleset.manifest_sha256,
    )


def exported(ruleset: Ruleset, kind: ExportKind) -> str:
    chunks = ruleset_export(ruleset=ruleset, kind=kind, actor=None).chunks
    return "".join(one.decode() if isinstance(one, bytes) else one for one in chunks)


def test_c1_a_signature_holds_name_role_time_meaning_and_method(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    facts = signature_facts(sign(ruleset, sam, Meaning.REVIEWED), ruleset)
    assert (facts.name, facts.username, facts.role, facts.meaning, facts.method) == (
        "Sam",
        "sam",
        "signatory",
        "reviewed",
        "password",
    )
    signature = Signature.objects.get()
    assert signature.signer_id == sam.pk
    assert abs((timezone.now() - signature.at).total_seconds()) < 5
    # The name is copied: it reads the same after the person is called otherwise.
    User.objects.filter(pk=sam.pk).update(display_name="Samantha")
    assert signatures_of(Ruleset.objects.get(pk=ruleset.pk))[0].name == "Sam"


def test_c2_the_meaning_is_of_a_closed_list_and_chosen(task: Task, ana: User, sam: User, client_of: ClientOf) -> None:
    ruleset = steps.frozen(task, ana)
    path = f"/tasks/nda/rulesets/{ruleset.number}/"
    for person, offered in ((sam, set(Meaning) - {Meaning.AUTHORED}), (ana, {Meaning.AUTHORED})):
        page = client_of(person).get(path).content.decode()
        assert set(re.findall(r'type="radio" name="meaning" value="(\w+)"', page)) == offered
        assert "checked" not in page
    for meaning in ("", "rubber-stamped"):
        with pytest.raises(InvalidInput, match="what your signature means"):
            sign(ruleset, sam, meaning)  # type: ignore[arg-type]  # what is not of the list
    refused("signature_meaning_known", lambda: sign_directly(ruleset, sam, meaning="rubber"))
    # Those of the list that a ruleset's signature does not say are rows and acts of their own.
    assert set(PublicationKind.values) == {"publish", "rollback"}


def test_c2_conditions_are_written_bound_and_shown_everywhere(
    task: Task, ana: User, sam: User, sue: User, abe: User, client_of: ClientOf
) -> None:
    ruleset, words = steps.frozen(task, ana), "Only for contracts under German law."
    for meaning, conditions in ((Meaning.CONDITIONS, " "), (Meaning.APPROVED, words), (Meaning.REJECTED, "")):
        with pytest.raises(InvalidInput, match="Write the conditions"):
            sign(ruleset, sam, meaning, conditions=conditions)
        refused(
            "conditions_in_words", partial(sign_directly, ruleset, sam, meaning=meaning, conditions=conditions.strip())
        )
    # The words of the row are those of its event, which the log seals.
    other = audit_record("ruleset.signed", actor=sam, subject=ruleset, data={"conditions": "None."})
    forged = partial(sign_directly, ruleset, sam, meaning=Meaning.CONDITIONS, conditions=words, event=other)
    refused("own audit event", forged)
    form = {"manifest_sha256": ruleset.manifest_sha256, "meaning": Meaning.CONDITIONS.value, "conditions": words}
    assert client_of(sam).post(f"/tasks/nda/rulesets/{ruleset.number}/sign/", form | PROOF).status_code == 302
    sign(ruleset, sue, Meaning.REVIEWED)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.SIGNED  # it counts as an approval
    assert words in client_of(abe).get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode()
    assert json.loads(exported(ruleset, ExportKind.JSON))["signatures"][0]["conditions"] == words
    assert words in exported(ruleset, ExportKind.CSV)


def test_c2_a_rejection_keeps_it_from_being_signed(
    task: Task, ana: User, sam: User, sue: User, client_of: ClientOf
) -> None:
    tom = make_user("tom", Role.SIGNATORY)
    ruleset = steps.frozen(task, ana)
    sign(ruleset, sam, Meaning.REJECTED, conditions="Rule 2 contradicts clause 9.")
    for signer in (sue, tom):
        sign(ruleset, signer)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.IN_SIGN_OFF
    refused("signatures are missing", lambda: Ruleset.objects.filter(pk=ruleset.pk).update(status="signed"))
    page = client_of(ana).get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode()
    assert "Somebody rejected it" in page
    assert "contradicts clause 9" in page


def test_c2_an_author_signs_as_such_and_it_counts_for_nothing(
    task: Task, ana: User, ben: User, sam: User, sue: User
) -> None:
    ruleset = steps.frozen(task, ana)
    for person in (ben, sam):  # who did not work on it
        with pytest.raises(NotAllowed, match="signs as its author"):
            sign(ruleset, person, Meaning.AUTHORED)
        refused("signs as its author|may not sign", partial(sign_directly, ruleset, person, meaning=Meaning.AUTHORED))
    sign(ruleset, ana, Meaning.AUTHORED)
    sign(ruleset, sam)
    refused("signatures are missing", lambda: Ruleset.objects.filter(pk=ruleset.pk).update(status="signed"))
    sign(ruleset, sue, Meaning.REVIEWED)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.SIGNED
    assert [one.meaning for one in signatures_of(ruleset)] == ["authored", "approved", "reviewed"]


def test_c3_a_living_session_alone_signs_nothing(task: Task, ana: User, sam: User, client_of: ClientOf) -> None:
    ruleset = steps.frozen(task, ana)
    form = {"manifest_sha256": ruleset.manifest_sha256, "meaning": "approved", "consent": "on"}
    response = client_of(sam).post(f"/tasks/nda/rulesets/{ruleset.number}/sign/", form)
    assert response.status_code == 422
    assert "nothing was entered" in response.content.decode()
    assert not Signature.objects.exists()


def test_c3_the_first_signature_of_a_session_takes_both_factors(task: Task, ana: User, sam: User) -> None:
    first, second, third = (steps.frozen(task, ana, 1), steps.again_frozen(task, ana), steps.again_frozen(task, ana))
    device, key = enrolled_app(sam), make_session(sam)
    proofs: list[dict[str, Any]] = [{}, {"password": "", "code": code_of(device)}]
    for proof in proofs:
        with pytest.raises(InvalidInput, match="Give both"):
            sign(first, sam, session_key=key, **proof)
    assert sign(first, sam, session_key=key, code=code_of(device)).method == Method.PASSWORD_TOTP
    assert sign(second, sam, session_key=key).method == Method.PASSWORD  # within 15 minutes one is enough
    # Another session of the same person begins anew; and so does this one after 15 idle minutes.
    with pytest.raises(InvalidInput, match="Give both"):
        sign(third, sam)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE pld_app_reauthentication DISABLE TRIGGER pld_append_only")
        cursor.execute("UPDATE pld_app_reauthentication SET at = at - interval '16 minutes'")
        cursor.execute("ALTER TABLE pld_app_reauthentication ENABLE ALWAYS TRIGGER pld_append_only")
    with pytest.raises(InvalidInput, match="Give both"):
        sign(third, sam, session_key=key)


def changed_underneath(ruleset: Ruleset, manifest: bytes) -> None:
    """One character of the manifest changes, as only the owner of the table can change it."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE rules_ruleset DISABLE TRIGGER USER")
        cursor.execute("UPDATE rules_ruleset SET manifest = %s WHERE id = %s", [manifest, ruleset.pk])
        cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'rules_ruleset'::regclass AND NOT tgisinternal")
        for (name,) in cursor.fetchall():
            cursor.execute(f"ALTER TABLE rules_ruleset ENABLE ALWAYS TRIGGER {name}")


def test_c4_one_changed_character_and_the_page_says_no_longer_valid(
    task: Task, ana: User, sam: User, abe: User, client_of: ClientOf
) -> None:
    ruleset = steps.frozen(task, ana)
    sign(ruleset, sam)
    ruleset.refresh_from_db()
    browser, path = client_of(abe), f"/tasks/nda/rulesets/{ruleset.number}/"
    assert "no longer valid" not in browser.get(path).content.decode()
    changed_underneath(ruleset, bytes(ruleset.manifest or b"").replace(b"clause 1 allows", b"clause 7 allows"))
    page = browser.get(path).content.decode()
    assert "no longer valid" in page
    assert "The manifest is not the one that was signed." in page


def test_c5_a_copied_signature_does_not_verify(task: Task, ana: User, sam: User) -> None:
    """The database refuses the copy (test_reauthentication.py); and one that is there all the same is noticed."""
    ruleset, other = steps.frozen(task, ana), steps.again_frozen(task, ana)
    signature = sign(ruleset, sam)
    assert signature_facts(signature, ruleset).fault == ""
    assert signature_facts(signature, other).fault == "It is over another ruleset."
    signature.ruleset = other
    assert signature_facts(signature, other).fault
    signature.ruleset, signature.meaning = ruleset, Meaning.REVIEWED
    assert signature_facts(signature, ruleset).fault == "The proof of identity was for something else."


def test_c6_page_json_and_csv_say_the_same(
    task: Task, ana: User, sam: User, sue: User, abe: User, client_of: ClientOf
) -> None:
    ruleset = steps.signed(task, ana, sam, sue)
    page = unescape(client_of(abe).get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode())
    said = json.loads(exported(ruleset, ExportKind.JSON))["signatures"]
    csv = exported(ruleset, ExportKind.CSV)
    facts = signatures_of(ruleset)
    assert len(facts) == 2
    for one, in_json in zip(facts, said, strict=True):
        assert in_json == one.as_json()
        assert f"<strong>{one.name}</strong>, {one.role_label}" in page
        assert f'<time datetime="{one.signed_at}">{one.signed_at_short}</time>' in page
        assert one.meaning_label in page
        assert f"{one.method_label}, over" in page
        assert one.manifest_sha256 in page
        assert one.line in csv
        assert one.signed_at.startswith(one.signed_at_short[:10])


def test_c7_a_closed_accounts_signature_stays_and_verifies(
    task: Task, ana: User, sam: User, sue: User, ada: User, abe: User, client_of: ClientOf
) -> None:
    ruleset = steps.frozen(task, ana)
    sign(ruleset, sam)
    account_deactivate(user_id=sam.pk, by=ada)
    ruleset.refresh_from_db()
    (facts,) = signatures_of(ruleset)
    assert (facts.name, facts.fault) == ("Sam", "")
    assert "Sam" in client_of(abe).get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode()
    refused("append-only", sql("DELETE FROM pld_app_user WHERE id = %s", sam.pk))  # an account is never used again
    User.objects.filter(pk=sue.pk).update(is_shared=True)
    with pytest.raises(NotAllowed, match="shared or a service's"):
        sign(ruleset, sue)


def test_c7_a_token_signs_nothing(task: Task, ana: User, sam: User, ada: User) -> None:
    ruleset = steps.frozen(task, ana)
    _token, secret = token_create(task=task, name="student", actor=ada)
    form = {"manifest_sha256": ruleset.manifest_sha256, "meaning": "approved", **PROOF}
    path = f"/tasks/nda/rulesets/{ruleset.number}/sign/"
    response = Client().post(path, form, headers={"Authorization": f"Bearer {secret}"})
    assert response.headers["Location"].startswith("/sign-in/")
    assert not Signature.objects.exists()


def test_c8_failures_of_any_factor_lock_together(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    device, key = enrolled_app(sam), make_session(sam)
    for number in range(5):
        wrong: dict[str, Any] = {"code": "000000"} if number % 2 else {"password": "wrong", "code": code_of(device)}
        with pytest.raises(ProofRefused, match="locked" if number == 4 else "One of the two"):
            sign(ruleset, sam, session_key=key, **wrong)
    with pytest.raises(ProofRefused, match="locked"):
        sign(ruleset, sam, session_key=key, code=code_of(device))
    assert not Reauthentication.objects.exists()


def test_c9_the_form_asks_for_the_consent_once(task: Task, ana: User, sam: User, client_of: ClientOf) -> None:
    ruleset, other = steps.frozen(task, ana, 1), steps.again_frozen(task, ana)
    browser, path = client_of(sam), f"/tasks/nda/rulesets/{ruleset.number}/"
    assert "equivalent of my signature by hand" in browser.get(path).content.decode()
    form = {"manifest_sha256": ruleset.manifest_sha256, "meaning": "approved", "password": PROOF["password"]}
    response = browser.post(f"{path}sign/", form)
    assert (response.status_code, "Accept once" in response.content.decode()) == (422, True)
    assert browser.post(f"{path}sign/", form | {"consent": "on"}).status_code == 302
    assert "by hand" not in browser.get(f"/tasks/nda/rulesets/{other.number}/").content.decode()


def test_c37_the_fields_take_paste_and_password_managers(task: Task, ana: User, sam: User, client_of: ClientOf) -> None:
    ruleset = steps.frozen(task, ana)
    enrolled_app(sam)
    page = client_of(sam).get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode()
    assert 'autocomplete="current-password"' in page
    assert 'autocomplete="one-time-code"' in page
    assert "onpaste" not in page
    assert TotpDevice.objects.filter(user=sam).exists()
