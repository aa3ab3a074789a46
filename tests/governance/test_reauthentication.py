"""Proofs of identity: for one act, once, fresh, in a living session; attacked through services, ORM, SQL and races."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import Error, connection, transaction
from django.utils import timezone

from pld_app.accounts import account_deactivate, account_set_password
from pld_app.audit import audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, NotAllowed, Refusal
from pld_app.models import (
    AuditEvent,
    Notification,
    Reauthentication,
    ReauthenticationUse,
    Role,
    SecurityPolicy,
    SigningConsent,
    User,
    UserSession,
)
from pld_app.reauthentication import ProofRefused, reauthenticate, reauthentication_use
from rules.models import Meaning, Signature, Task
from tests.factories import (
    PASSWORD,
    audit_actions,
    change_role,
    make_proof,
    make_reauthentication,
    make_session,
    make_task,
    make_user,
)
from tests.publishing import steps
from tests.publishing.test_database import publish_directly, refused, sign_directly, sql


def prove(user: User, subject: Any, **fields: Any) -> Reauthentication:
    proof = make_proof(user, **fields)
    return reauthenticate(actor=user, proof=proof, purpose="sign", subject=subject, content_sha256="a" * 64)


def test_a_proof_is_a_row_with_method_time_and_event(task: Task, sam: User) -> None:
    row = prove(sam, task)
    assert (row.user, row.purpose, row.subject_type, row.subject_id) == (sam, "sign", "task", str(task.pk))
    assert (row.method, row.meaning, row.evidence) == ("password", "", None)
    assert abs((timezone.now() - row.at).total_seconds()) < 5
    assert audit_actions(sam) == ["account.consented", "account.reauthenticated"]
    assert PASSWORD not in str(list(AuditEvent.objects.values_list("data", flat=True)))


def test_c9_the_consent_is_asked_once_and_on_record(task: Task, sam: User) -> None:
    with pytest.raises(InvalidInput, match="Accept once"):
        prove(sam, task, consent=False)
    assert audit_actions(sam) == []
    prove(sam, task)
    prove(sam, task, consent=False)
    given = SigningConsent.objects.get()
    assert "equivalent of my signature by hand" in given.text
    assert audit_actions(sam).count("account.consented") == 1
    refused("append-only", lambda: SigningConsent.objects.update(text="x"))


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "publish"},
        {"subject_id": "0"},
        {"subject_type": "release"},
        {"content_sha256": "b" * 64},
        {"meaning": "reviewed"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_proof_is_for_one_act(task: Task, ana: User, sam: User, change: dict[str, str]) -> None:
    """C5: whatever part of the act differs, the row of the act is refused by the database."""
    ruleset = steps.frozen(task, ana)
    proved = make_reauthentication(sam, ruleset, **({"meaning": Meaning.APPROVED} | change))
    refused("re-authenticate", lambda: sign_directly(ruleset, sam, reauthentication=proved))
    assert not ReauthenticationUse.objects.exists()


def test_c5_a_signature_copied_to_another_ruleset_or_person_is_refused(
    task: Task, ana: User, sam: User, sue: User
) -> None:
    ruleset = steps.frozen(task, ana)
    other = steps.again_frozen(task, ana)
    signature = steps.sign(ruleset, sam)
    copied = signature.reauthentication
    refused("for something else", lambda: sign_directly(other, sam, reauthentication=copied))
    refused("for something else", lambda: sign_directly(ruleset, sue, reauthentication=copied))
    refused("for something else", lambda: sign_directly(other, sam, reauthentication=None))


def test_method_and_time_are_the_proofs_whatever_the_program_says(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    proved = make_reauthentication(sam, ruleset, meaning=Meaning.APPROVED)
    said = {"method": "oidc+passkey", "authenticated_at": steps.minutes_ago(1)}
    signature = sign_directly(ruleset, sam, reauthentication=proved, **said)
    signature.refresh_from_db()
    assert (signature.method, signature.authenticated_at) == ("password", proved.at)


def aged(row: Reauthentication, minutes: float) -> None:
    """Make a proof older, which only the owner of the table can: the guard is switched off for the statement."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE pld_app_reauthentication DISABLE TRIGGER pld_append_only")
        cursor.execute(
            "UPDATE pld_app_reauthentication SET at = at - %s * interval '1 minute' WHERE id = %s", [minutes, row.pk]
        )
        cursor.execute("ALTER TABLE pld_app_reauthentication ENABLE ALWAYS TRIGGER pld_append_only")


def test_a_proof_lives_five_minutes(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    proved = make_reauthentication(sam, ruleset, meaning=Meaning.APPROVED)
    aged(proved, 5.1)
    refused("too old", lambda: sign_directly(ruleset, sam, reauthentication=proved))


@pytest.mark.parametrize("end", ["sign out", "idle", "password", "role", "closed"])
def test_a_proof_dies_with_its_session(task: Task, ana: User, sam: User, ada: User, end: str) -> None:
    ruleset = steps.frozen(task, ana)
    proved = make_reauthentication(sam, ruleset, meaning=Meaning.APPROVED)
    sessions = UserSession.objects.filter(user_id=sam.pk)
    match end:
        case "sign out":
            sessions.delete()
        case "idle":
            sessions.update(expire_date=timezone.now())
        case "password":
            account_set_password(user_id=sam.pk, password="another long password")
        case "role":
            change_role(sam, Role.AUDITOR, by=ada)
        case "closed":
            account_deactivate(user_id=sam.pk, by=ada)
    refused("session has ended|may not sign", lambda: sign_directly(ruleset, sam, reauthentication=proved))


def test_a_publication_takes_its_own_proof(task: Task, ana: User, sam: User, sue: User) -> None:
    release = steps.released(task, ana, sam, sue)
    for wrong in ({"purpose": "roll back"}, {"purpose": "publish", "content_sha256": "0" * 64}):
        proved = make_reauthentication(sam, release, **wrong)
        refused("re-authenticate", lambda p=proved: publish_directly(release, sam, reauthentication=p))  # type: ignore[misc]
    proved = make_reauthentication(sam, release, purpose="publish")
    published = publish_directly(release, sam, reauthentication=proved)
    published.refresh_from_db()
    assert published.authenticated_at == proved.at


def test_an_act_without_a_guarded_row_uses_it_by_the_function(task: Task, ana: User, sam: User) -> None:
    proved = make_reauthentication(sam, steps.frozen(task, ana))
    with transaction.atomic():
        reauthentication_use(proved)
    refused("used already", lambda: reauthentication_use(proved))
    refused("append-only", lambda: ReauthenticationUse.objects.all().delete())


def test_c7_who_may_not_sign_proves_nothing(task: Task, sam: User, ada: User) -> None:
    shared = make_user("desk", Role.SIGNATORY)
    User.objects.filter(pk=shared.pk).update(is_shared=True)
    with pytest.raises(NotAllowed, match="one person's"):
        prove(shared, task)
    key = make_session(sam)
    account_deactivate(user_id=sam.pk, by=ada)
    with pytest.raises(ProofRefused):
        prove(sam, task, session_key=key)
    sol = make_user("sol", Role.SIGNATORY)
    for session_key in ("", "0" * 32, make_session(ada)):
        with pytest.raises(NotAllowed, match="session has ended"):
            prove(sol, task, session_key=session_key)
    assert not Reauthentication.objects.exists()


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("shared", "may not sign"),
        ("closed", "may not sign"),
        ("no session", "session has ended"),
        ("another's session", "session has ended"),
        ("another's event", "own audit event"),
        ("another action", "own audit event"),
        ("unknown method", "reauthentication_method_known"),
        ("passkey without evidence", "passkey_has_evidence"),
        ("password with evidence", "something else|passkey_has_evidence"),
        ("one factor where two are asked", "both factors"),
    ],
)
def test_the_database_makes_no_proof_for(task: Task, ana: User, sam: User, ada: User, who: str, words: str) -> None:
    ruleset = steps.frozen(task, ana)
    key, fields = spoiled(who, sam, ada)
    refused(words, lambda: make_reauthentication(sam, ruleset, session_key=key, **fields))
    assert not Reauthentication.objects.exists()


def spoiled(who: str, sam: User, ada: User) -> tuple[str, dict[str, Any]]:
    """A session's key and fields of a proof, one thing of which is not as it must be."""
    key = make_session(sam)
    fields: dict[str, dict[str, Any]] = {
        "another's event": {"event": audit_record("account.reauthenticated", actor=ada, subject=sam)},
        "another action": {"event": audit_record("account.consented", actor=sam, subject=sam)},
        "unknown method": {"method": "fax"},
        "passkey without evidence": {"method": "password+passkey"},
        "password with evidence": {"evidence": {"statement": "{}", "client_data": "e30"}},
    }
    if who in {"shared", "closed"}:
        User.objects.filter(pk=sam.pk).update(**{"is_shared": True} if who == "shared" else {"is_active": False})
    if who == "one factor where two are asked":
        event = audit_record("security_policy.set", actor=ada, subject=ada)
        SecurityPolicy.objects.create(second_factor_for_signatories=True, by=ada, event=event)
    if who == "another's session":
        key = make_session(ada)
    return "nobody" if who == "no session" else key, fields.get(who, {})


def test_the_database_makes_no_proof_before_the_consent(task: Task, sam: User) -> None:
    event = audit_record("account.reauthenticated", actor=sam, subject=sam)
    statement = (
        "INSERT INTO pld_app_reauthentication (user_id, purpose, subject_type, subject_id, content_sha256, meaning,"
        " method, session_sha256, event_id) VALUES (%s, 'sign', 'task', '1', '', '', 'password', %s, %s)"
    )
    refused("accept once", sql(statement, sam.pk, sha256_hex(make_session(sam)), event.pk))


def test_c8_five_failures_lock_and_tell(task: Task, sam: User, ada: User) -> None:
    for _attempt in range(5):
        with pytest.raises(ProofRefused):
            prove(sam, task, password="wrong")
    with pytest.raises(ProofRefused, match="locked"):
        prove(sam, task)
    assert sorted(Notification.objects.values_list("user__username", "kind")) == [
        ("ada", "signing.locked"),
        ("sam", "signing.locked"),
    ]
    assert audit_actions(sam) == ["signature.locked"]
    refusals = AuditEvent.objects.filter(action="signature.refused").order_by("pk")
    assert [one.data["cause"] for one in refusals] == ["password"] * 5 + ["locked"]


def test_nothing_entered_is_no_failure(task: Task, sam: User) -> None:
    for _attempt in range(6):
        with pytest.raises(InvalidInput, match="nothing was entered"):
            prove(sam, task, password="")
    prove(sam, task)


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Run each in a thread with a connection of its own; a refusal is its outcome."""

    def run(act: Callable[[], object]) -> object:
        try:
            return act()
        except (Refusal, Error) as refusal:
            return refusal
        finally:
            connection.close()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


@pytest.mark.django_db(transaction=True)
def test_a_proof_is_used_once_by_two_connections() -> None:
    task, ana, sam = make_task(), make_user("ana", Role.REVIEWER, "legal"), make_user("sam", Role.SIGNATORY)
    ruleset = steps.frozen(task, ana, 1)
    for _round in range(20):
        proved = make_reauthentication(sam, ruleset)

        def use(proved: Reauthentication = proved) -> object:
            with transaction.atomic():
                reauthentication_use(proved)
            return "used"

        outcomes = at_once(use, use)
        assert outcomes.count("used") == 1, outcomes
    assert ReauthenticationUse.objects.count() == 20


@pytest.mark.django_db(transaction=True)
def test_no_signature_after_the_account_is_taken_away() -> None:
    """Test 20: deactivation or another role against signing; who commits first decides, and nothing slips past."""
    task, ana, ada = make_task(), make_user("ana", Role.REVIEWER, "legal"), make_user("ada", Role.ADMIN)
    ruleset = steps.frozen(task, ana, 1)
    signed = 0
    for number in range(25):
        signer = make_user(f"s{number}", Role.SIGNATORY)
        proved = make_reauthentication(signer, ruleset, meaning=Meaning.REVIEWED)

        def sign(signer: User = signer, proved: Reauthentication = proved) -> object:
            with transaction.atomic():
                signature = sign_directly(ruleset, signer, reauthentication=proved, meaning=Meaning.REVIEWED)
                return signature.pk

        def take(signer: User = signer, number: int = number) -> object:
            if number % 2:
                return account_deactivate(user_id=signer.pk, by=ada)
            change_role(signer, Role.AUDITOR, by=ada)
            return None

        outcome, _taken = at_once(sign, take)
        # The row's own time is the database's, under a share lock on the account that the change waits for.
        ever = Signature.objects.filter(signer=signer).exists()
        assert ever == isinstance(outcome, int)
        signed += ever
        refused("session has ended|used already|may not sign", lambda: sign(signer, proved))  # noqa: B023
    assert Signature.objects.count() == signed
