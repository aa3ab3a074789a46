"""Proving again that it is you, for one act on one content: every signature and publication starts here.

`reauthenticate` checks what a person offers and writes a row; the act's own row names it, and triggers in the database
read person, method and time from it (`pld_reauthentication_use`): same person, same purpose, same object and content,
at most five minutes old, in a session that still lives, used once.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import authenticate
from django.db import connection, models, transaction
from django.db.models import Exists, Subquery
from django.db.models.functions import Now
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app import passkeys, totp
from pld_app.assertions import assertion_verify
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.ceremonies import Act, ceremony_take
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import (
    AuditEvent,
    Passkey,
    Reauthentication,
    Role,
    SecurityPolicy,
    SigningConsent,
    SsoIdentity,
    TotpDevice,
    User,
    UserSession,
)
from pld_app.notifications import notify

FAILURES_ALLOWED = 5
WINDOW = timedelta(minutes=15)
# How long one factor is enough after both were given.
SERIES = timedelta(minutes=15)
REFUSED = "signature.refused"
LOCKED = "signature.locked"
CONSENT = gettext_lazy(
    "I understand that my electronic signature here is the legally binding equivalent of my signature by hand, and "
    "that I answer for what is signed with my name."
)


class ProofRefused(InvalidInput):
    """What was offered did not prove it, or too much was wrong before. The attempt is on the audit log."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a person offers, in which session: a first factor (password or single sign-on), a second, or both.

    `passkey` is the browser's answer to the question of `ceremony`; `sso` names an answered single sign-on ceremony.
    """

    session_key: str
    password: str = ""
    code: str = ""
    passkey: str = ""
    ceremony: str = ""
    sso: str = ""
    consent: bool = False
    site: passkeys.Site | None = None

    @property
    def session_sha256(self) -> str:
        return sha256_hex(self.session_key)

    @property
    def first(self) -> str:
        return "oidc" if self.sso else "password" if self.password else ""

    @property
    def second(self) -> str:
        return "passkey" if self.passkey else "totp" if self.code else ""


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What a person can prove themselves with now, and how much of it the next act asks for."""

    has_totp: bool
    has_passkey: bool
    has_sso: bool
    second_is_asked: bool
    """Whether the installation asks this person for a second factor."""
    in_series: bool
    """Whether both were given in this session and the last proof in it is at most 15 minutes old."""
    consent_needed: bool

    @property
    def has_second(self) -> bool:
        return self.has_totp or self.has_passkey

    @property
    def both_needed(self) -> bool:
        return (self.has_second or self.second_is_asked) and not self.in_series


def factors_of(user: User, session_key: str) -> Factors:
    """One query, as the database's guard looks at it."""
    mine = Reauthentication.objects.filter(user=user, session_sha256=sha256_hex(session_key))
    found = User.objects.annotate(
        totp=Exists(TotpDevice.objects.filter(user=user, confirmed_at__isnull=False, removed_at__isnull=True)),
        passkey=Exists(Passkey.objects.filter(user=user, removed_at__isnull=True)),
        sso=Exists(SsoIdentity.objects.filter(user=user, removed_at__isnull=True)),
        asked=Subquery(SecurityPolicy.objects.order_by("-pk").values("second_factor_for_signatories")[:1]),
        recent=Exists(mine.filter(at__gt=Now() - SERIES)),
        both=Exists(mine.filter(method__contains="+")),
        consented=Exists(SigningConsent.objects.filter(user=user)),
    ).get(pk=user.pk)
    return Factors(
        has_totp=found.totp,
        has_passkey=found.passkey,
        has_sso=found.sso,
        second_is_asked=bool(found.asked) and found.role == Role.SIGNATORY,
        in_series=found.recent and found.both,
        consent_needed=not found.consented,
    )


def second_factor_for_signatories() -> bool:
    """What the newest policy of the installation says; without one, no."""
    newest = SecurityPolicy.objects.order_by("-pk").first()
    return newest is not None and newest.second_factor_for_signatories


def reauthenticate(
    *,
    actor: User,
    proof: Proof,
    purpose: str,
    subject: models.Model,
    content_sha256: str = "",
    meaning: str = "",
    task_slug: str = "",
) -> Reauthentication:
    """Check the proof for one act and keep it as a row that the act must name; raises ProofRefused in one wording.

    `content_sha256` is the hash of what was shown: an act on anything else cannot use the row. Five wrong proofs
    within 15 minutes, whatever the factor, lock signing for 15 minutes and tell the person and the administrators. The
    refusal is recorded in its own transaction, which is why this must not run inside another one.
    """
    act = Act(
        purpose=purpose,
        subject_type=subject._meta.model_name or "",
        subject_id=str(subject.pk),
        content_sha256=content_sha256,
        meaning=meaning,
    )
    until: datetime | None = None
    with transaction.atomic(durable=True):
        now = _attempts_lock(actor)
        until = _locked_until(actor, now)
        cause = "locked"
        if until is None:
            _require_complete(actor, proof)
            method, cause, evidence = _check(actor, proof, act, now)
            if not cause:
                return _keep(actor=actor, proof=proof, act=act, method=method, evidence=evidence, task_slug=task_slug)
        data: dict[str, Json] = {"purpose": purpose, "cause": cause}
        audit_record(REFUSED, actor=actor, subject=subject, task_slug=task_slug, data=data)
        if until is None:
            until = _locked_until(actor, now)
            if until is not None:
                _lock_tell(actor, until)
    raise ProofRefused(_locked_words(until) if until else _refused_words(proof))


def _require_complete(actor: User, proof: Proof) -> None:
    """Refuse, without counting it as a wrong proof, what is not a whole proof or comes from who never signs."""
    actor = User.objects.get(pk=actor.pk)
    if actor.is_shared:
        raise NotAllowed(_("This account is shared or a service's, and a signature is one person's. Use your own."))
    live = UserSession.objects.filter(pk=proof.session_key, user_id=actor.pk, expire_date__gt=Now())
    if not live.exists() and actor.is_active:
        raise NotAllowed(_("Your session has ended. Sign in again; nothing was changed."))
    factors = factors_of(actor, proof.session_key)
    if factors.consent_needed and not proof.consent:
        raise InvalidInput(_("Accept once what an electronic signature means here, then repeat."))
    if factors.second_is_asked and not factors.has_second:
        raise InvalidInput(
            _("Signatories need a second factor here. Set one up on the page Your security, then come back.")
        )
    if factors.both_needed and not (proof.first and proof.second):
        raise InvalidInput(
            _("Give both: your password or single sign-on, and your second factor. Nothing was changed.")
        )
    if not (proof.first or proof.second):
        raise InvalidInput(_("Prove that it is you: nothing was entered. Nothing was changed."))


def _check(actor: User, proof: Proof, act: Act, now: datetime) -> tuple[str, str, dict[str, Any] | None]:
    """(method, why it is refused or empty, a passkey's evidence): everything that was offered must be right."""
    evidence = None
    if not User.objects.filter(pk=actor.pk, is_active=True).exists():
        return "", "account", None
    if proof.sso and not _sso_accepts(actor, proof, act, now):
        return "", "oidc", None
    if proof.password and authenticate(username=actor.get_username(), password=proof.password) != actor:
        return "", "password", None
    if proof.passkey:
        evidence = _passkey_accepts(actor, proof, act, now)
        if evidence is None:
            return "", "passkey", None
    elif proof.code and not totp_accepts(actor, proof.code, now):
        return "", "code", None
    # A password given beside single sign-on is checked too, and the stronger name is kept.
    return "+".join(part for part in (proof.first, proof.second) if part), "", evidence


def totp_accepts(user: User, code: str, now: datetime) -> bool:
    """Take a code of the person's authenticator app, once; must run in a transaction."""
    device = (
        TotpDevice.objects.select_for_update()
        .filter(user=user, confirmed_at__isnull=False, removed_at__isnull=True)
        .first()
    )
    step = totp.step_of(device, code, now) if device else None
    if device is None or step is None:
        return False
    TotpDevice.objects.filter(pk=device.pk).update(last_step=step)
    return True


def passkey_accepts(user: User, *, site: passkeys.Site, answer: str, challenge: bytes) -> Passkey | None:
    """The person's passkey that gave this answer to this challenge, its counter moved on; None if none did."""
    try:
        credential_id = passkeys.credential_id_of(answer)
        mine = Passkey.objects.select_for_update().filter(user=user, removed_at__isnull=True)
        passkey = mine.filter(credential_id=credential_id).first()
        if passkey is None:
            return None
        count = passkeys.authentication_verify(site=site, answer=answer, challenge=challenge, passkey=passkey)
    except passkeys.PasskeyRefused:
        return None
    Passkey.objects.filter(pk=passkey.pk).update(sign_count=count, last_used_at=Now())
    return passkey


def _passkey_accepts(actor: User, proof: Proof, act: Act, now: datetime) -> dict[str, Any] | None:
    ceremony = ceremony_take(actor, proof.session_sha256, act, now, kind="passkey", token=proof.ceremony)
    if ceremony is None or proof.site is None:
        return None
    challenge = bytes.fromhex(sha256_hex(ceremony.statement))
    passkey = passkey_accepts(actor, site=proof.site, answer=proof.passkey, challenge=challenge)
    if passkey is None:
        return None
    evidence = passkeys.evidence_of(
        site=proof.site, answer=proof.passkey, statement=ceremony.statement, passkey=passkey
    )
    # What is kept must verify by itself, as an auditor will verify it.
    assertion_verify(evidence)
    return evidence


def _sso_accepts(actor: User, proof: Proof, act: Act, now: datetime) -> bool:
    ceremony = ceremony_take(actor, proof.session_sha256, act, now, kind="oidc", token=proof.sso)
    return ceremony is not None and ceremony.answered_at is not None


def _keep(
    *, actor: User, proof: Proof, act: Act, method: str, evidence: dict[str, Any] | None, task_slug: str
) -> Reauthentication:
    data: dict[str, Json] = {
        "purpose": act.purpose,
        "object_type": act.subject_type,
        "object_id": act.subject_id,
        "content_sha256": act.content_sha256,
        "meaning": act.meaning,
        "method": method,
    }
    if proof.consent:
        consent_give(user=actor)
    event = audit_record("account.reauthenticated", actor=actor, subject=actor, task_slug=task_slug, data=data)
    row = Reauthentication.objects.create(
        user=actor,
        purpose=act.purpose,
        subject_type=act.subject_type,
        subject_id=act.subject_id,
        content_sha256=act.content_sha256,
        meaning=act.meaning,
        method=method,
        session_sha256=proof.session_sha256,
        evidence=evidence,
        event=event,
    )
    # The database writes the time.
    row.refresh_from_db(fields=["at"])
    return row


@transaction.atomic
def consent_give(*, user: User) -> SigningConsent:
    """Record that this person accepts what their e-signature means; once, further calls give the first row."""
    given = SigningConsent.objects.filter(user=user).first()
    if given is not None:
        return given
    event = audit_record("account.consented", actor=user, subject=user, data={"text": str(CONSENT)})
    return SigningConsent.objects.create(user=user, text=str(CONSENT), event=event)


def reauthentication_use(reauthentication: Reauthentication) -> None:
    """Use a proof for an act that keeps no row of its own with a guard; must run in the act's transaction.

    Raises the database's refusal (a `pld: re-authenticate` IntegrityError) when it is used, too old or not of a living
    session.
    """
    one = reauthentication
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pld_reauthentication_use(%s, %s, %s, %s, %s, %s)",
            [one.pk, one.user_id, one.purpose, one.subject_type, one.subject_id, one.content_sha256],
        )


# Failures and the lock.


def _attempts_lock(actor: User) -> datetime:
    """One attempt of a person at a time, so that parallel guesses are counted; returns the database's time."""
    row = User.objects.select_for_update(no_key=True).annotate(server_time=Now()).get(pk=actor.pk)
    server_time: datetime = row.server_time
    return server_time


def _locked_until(actor: User, now: datetime) -> datetime | None:
    wrong = AuditEvent.objects.filter(actor=actor, action=REFUSED).exclude(data__cause="locked").order_by("-pk")
    times = list(wrong.values_list("at", flat=True)[:FAILURES_ALLOWED])
    if len(times) < FAILURES_ALLOWED or times[0] - times[-1] > WINDOW or now >= times[0] + WINDOW:
        return None
    return times[0] + WINDOW


def _lock_tell(actor: User, until: datetime) -> None:
    audit_record(LOCKED, actor=actor, subject=actor, data={"until": until.isoformat()})
    administrators = User.objects.filter(role=Role.ADMIN, is_active=True)
    notify([actor, *administrators], "signing.locked", name=str(actor), until=until.strftime("%Y-%m-%d %H:%M"))


def _locked_words(until: datetime) -> str:
    return _(
        "Five wrong proofs of who you are within 15 minutes: signing is locked for you until %(time)s UTC. "
        "If it was not you, tell an administrator."
    ) % {"time": until.strftime("%H:%M")}


def _refused_words(proof: Proof) -> str:
    """By what was offered, not by what was wrong: a guesser of two things must not learn that one is right."""
    if proof.first and proof.second:
        return _("One of the two is not right. Nothing was changed.")
    if proof.password:
        return _("The password is not right. Nothing was changed.")
    if proof.code:
        return _("The code is not right, or was used already. Wait for the next one. Nothing was changed.")
    return _("This did not prove that it is you, or was for something else. Repeat it. Nothing was changed.")
