"""Signing: the password again, the meaning in words, bound to the hash of the manifest that was shown."""

from datetime import datetime, timedelta
from typing import Literal

from django.contrib.auth import authenticate
from django.db import models, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, User
from rules.exceptions import Stale
from rules.manifest import Manifest
from rules.models import Meaning, RuleRead, Ruleset, RulesetStatus, Signature
from rules.selectors import rulesets as selectors
from rules.selectors.policy import unread_by
from rules.services.refusals import database_refusals
from rules.services.rulesets import ruleset_lock
from rules.transitions import ruleset_move

FAILURES_ALLOWED = 5
WINDOW = timedelta(minutes=15)
REFUSED = "signature.refused"

type Purpose = Literal["sign", "publish", "roll back", "withdraw", "policy", "stop", "schedule"]


class PasswordRefused(InvalidInput):
    """The password was wrong, or too many were. The attempt is on the audit log."""


def password_confirm(
    *, actor: User, password: str, subject: models.Model, task_slug: str, purpose: Purpose
) -> datetime:
    """Check the password again and return the database's time of it; raises PasswordRefused, in one wording.

    Five wrong ones within 15 minutes lock signing for this person for 15 minutes. The refusal is recorded in its own
    transaction, which is why this must not run inside another one.
    """
    with transaction.atomic(durable=True):
        now = _attempts_lock(actor)
        until = _locked_until(actor, now)
        if until is None and authenticate(username=actor.get_username(), password=password) == actor:
            return now
        data: dict[str, Json] = {"purpose": purpose, "cause": "locked" if until else "password"}
        audit_record(REFUSED, actor=actor, subject=subject, task_slug=task_slug, data=data)
        until = until or _locked_until(actor, now)
    raise PasswordRefused(_locked_words(until) if until else _("The password is not right. Nothing was changed."))


def _attempts_lock(actor: User) -> datetime:
    """One attempt of a person at a time, so that parallel guesses are counted; returns the database's time."""
    row = User.objects.select_for_update(no_key=True).annotate(server_time=Now()).get(pk=actor.pk)
    server_time: datetime = row.server_time
    return server_time


def _locked_until(actor: User, now: datetime) -> datetime | None:
    wrong = AuditEvent.objects.filter(actor=actor, action=REFUSED, data__cause="password").order_by("-pk")
    times = list(wrong.values_list("at", flat=True)[:FAILURES_ALLOWED])
    if len(times) < FAILURES_ALLOWED or times[0] - times[-1] > WINDOW or now >= times[0] + WINDOW:
        return None
    return times[0] + WINDOW


def _locked_words(until: datetime) -> str:
    return _(
        "Five wrong passwords within 15 minutes: signing is locked for you until %(time)s UTC. "
        "If it was not you, tell an administrator."
    ) % {"time": until.strftime("%H:%M")}


@database_refusals()
@transaction.atomic
def rule_read(*, ruleset_id: int, instruction_id: int, reader: User) -> bool:
    """Remember that this signer opened an instruction of a ruleset in sign-off; False when it was remembered before.

    Raises Stale when the ruleset is no longer in sign-off or does not hold it.
    """
    ruleset = ruleset_lock(ruleset_id)
    item = ruleset.items.select_related("instruction").filter(instruction=instruction_id).first()
    if ruleset.status != RulesetStatus.IN_SIGN_OFF or item is None:
        raise Stale(_("This ruleset is not in sign-off. Reload to see how it stands."))
    if ruleset.reads.filter(instruction=instruction_id, reader=reader).exists():
        return False
    data: dict[str, Json] = {"number": item.instruction.number, "manifest_sha256": ruleset.manifest_sha256}
    event = audit_record("ruleset.rule_read", actor=reader, subject=ruleset, task_slug=ruleset.task.slug, data=data)
    RuleRead.objects.create(ruleset=ruleset, instruction=item.instruction, reader=reader, event=event)
    return True


def ruleset_sign(*, ruleset_id: int, signer: User, password: str, meaning: str, manifest_sha256: str) -> Signature:
    """Sign the manifest that was shown. The signature that completes the policy also makes the ruleset signed.

    Raises InvalidInput without a meaning, PasswordRefused, NotAllowed for who may not sign, Stale when the ruleset is
    no longer the one that was shown.
    """
    if meaning not in Meaning.values:
        raise InvalidInput(_("Choose what your signature means."))
    ruleset = Ruleset.objects.select_related("task").get(pk=ruleset_id)
    _require_signable(ruleset, signer, manifest_sha256)
    at = password_confirm(actor=signer, password=password, subject=ruleset, task_slug=ruleset.task.slug, purpose="sign")
    return _sign(ruleset_id, signer, Meaning(meaning), manifest_sha256, at)


@database_refusals()
@transaction.atomic
def _sign(
    ruleset_id: int, signer: User, meaning: Meaning, manifest_sha256: str, authenticated_at: datetime
) -> Signature:
    # Locked first: two signers at once are counted one after the other, and a withdrawal waits or wins.
    ruleset = ruleset_lock(ruleset_id)
    manifest = _require_signable(ruleset, signer, manifest_sha256)
    signature = Signature(
        ruleset=ruleset,
        manifest_sha256=manifest_sha256,
        signer=signer,
        signer_name=str(signer),
        signer_role=signer.role,
        signer_domain=signer.domain,
        meaning=meaning,
        authenticated_at=authenticated_at,
    )
    state = selectors.signature_state(manifest.policy, [*ruleset.signatures.all(), signature])
    data: dict[str, Json] = {
        "manifest_sha256": manifest_sha256,
        "meaning": meaning.value,
        "signatures": state.have,
        "completes": state.is_complete,
    }
    event = audit_record("ruleset.signed", actor=signer, subject=ruleset, task_slug=ruleset.task.slug, data=data)
    signature.event = event
    signature.full_clean(validate_unique=False)
    signature.save()
    if state.is_complete:
        ruleset_move(ruleset, RulesetStatus.SIGNED)
        ruleset.version += 1
        ruleset.save(update_fields=["status", "version"])
    return signature


def _require_signable(ruleset: Ruleset, signer: User, manifest_sha256: str) -> Manifest:
    """The manifest to sign; raises when this ruleset, this hash or this person cannot be signed for."""
    manifest = selectors.ruleset_manifest(ruleset)
    if manifest is None or ruleset.status != RulesetStatus.IN_SIGN_OFF:
        raise Stale(_("This ruleset is not in sign-off. Reload to see how it stands."))
    if manifest_sha256 != ruleset.manifest_sha256:
        raise Stale(_("This is not the manifest you were shown. Reload and read it before you sign."))
    if not signer.is_active or signer.role not in manifest.policy.signer_roles:
        raise NotAllowed(_("Your role may not sign this ruleset."))
    reason = selectors.exclusion_reason(ruleset, signer)
    if reason:
        raise NotAllowed(_("You may not sign this ruleset: %(why)s.") % {"why": reason})
    if ruleset.signatures.filter(signer=signer).exists():
        raise Stale(_("You have already signed this ruleset."))
    if manifest.policy.read_changed_first and unread_by(ruleset, signer.pk):
        raise InvalidInput(_("Open every edited or conflicting instruction on the signing page before you sign."))
    return manifest
