"""Signing: who you are again, the meaning in words, bound to the hash of the manifest that was shown."""

from dataclasses import dataclass

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import Reauthentication, Role, User
from pld_app.reauthentication import Proof, ProofRefused, reauthenticate
from rules.exceptions import Stale
from rules.manifest import Manifest
from rules.models import COUNTED, Meaning, RuleRead, Ruleset, RulesetStatus, Signature
from rules.selectors import rulesets as selectors
from rules.selectors.policy import unread_by
from rules.services.refusals import database_refusals
from rules.services.rulesets import ruleset_lock
from rules.transitions import ruleset_move

__all__ = ["Proof", "ProofRefused", "reauthenticate", "rule_read", "ruleset_sign"]


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


@dataclass(frozen=True)
class _Said:
    """What a signature says about which manifest."""

    meaning: Meaning
    conditions: str
    manifest_sha256: str


def ruleset_sign(
    *, ruleset_id: int, signer: User, proof: Proof, meaning: str, manifest_sha256: str, conditions: str = ""
) -> Signature:
    """Sign the manifest that was shown. The signature that completes the policy also makes the ruleset signed.

    Who worked on it signs as its author, which counts for nothing; a rejection keeps it from being signed at all.
    Raises InvalidInput without a meaning or its words, ProofRefused, NotAllowed for who may not sign, Stale when the
    ruleset is no longer the one that was shown.
    """
    if meaning not in Meaning.values:
        raise InvalidInput(_("Choose what your signature means."))
    said = _Said(Meaning(meaning), conditions.strip()[:1000], manifest_sha256)
    if (said.meaning in {Meaning.CONDITIONS, Meaning.REJECTED}) != bool(said.conditions):
        raise InvalidInput(_("Write the conditions, or why you reject it; for any other meaning leave it empty."))
    ruleset = Ruleset.objects.select_related("task").get(pk=ruleset_id)
    _require_signable(ruleset, signer, said)
    proved = reauthenticate(
        actor=signer,
        proof=proof,
        purpose="sign",
        subject=ruleset,
        content_sha256=manifest_sha256,
        meaning=meaning,
        task_slug=ruleset.task.slug,
    )
    return _sign(ruleset_id, signer, said, proved)


@database_refusals()
@transaction.atomic
def _sign(ruleset_id: int, signer: User, said: _Said, proved: Reauthentication) -> Signature:
    # Locked first: two signers at once are counted one after the other, and a withdrawal waits or wins.
    ruleset = ruleset_lock(ruleset_id)
    manifest = _require_signable(ruleset, signer, said)
    signature = Signature(
        ruleset=ruleset,
        manifest_sha256=said.manifest_sha256,
        signer=signer,
        signer_name=str(signer),
        signer_role=signer.role,
        signer_domain=signer.domain,
        meaning=said.meaning,
        conditions=said.conditions,
        reauthentication=proved,
        method=proved.method,
        authenticated_at=proved.at,
    )
    state = selectors.signature_state(manifest.policy, [*ruleset.signatures.all(), signature])
    data: dict[str, Json] = {
        "manifest_sha256": said.manifest_sha256,
        "meaning": said.meaning.value,
        "conditions": said.conditions,
        "method": proved.method,
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


def _require_signable(ruleset: Ruleset, signer: User, said: _Said) -> Manifest:
    """The manifest to sign; raises when this ruleset, this hash or this person cannot be signed for."""
    manifest = selectors.ruleset_manifest(ruleset)
    if manifest is None or ruleset.status != RulesetStatus.IN_SIGN_OFF:
        raise Stale(_("This ruleset is not in sign-off. Reload to see how it stands."))
    if said.manifest_sha256 != ruleset.manifest_sha256:
        raise Stale(_("This is not the manifest you were shown. Reload and read it before you sign."))
    if said.meaning == Meaning.AUTHORED:
        if not signer.is_active or signer.role != Role.REVIEWER or not selectors.has_worked_on(ruleset, signer):
            raise NotAllowed(_("Only a reviewer who composed or worded it signs as its author."))
    elif not signer.is_active or signer.role not in manifest.policy.signer_roles:
        raise NotAllowed(_("Your role may not sign this ruleset."))
    elif reason := selectors.exclusion_reason(ruleset, signer):
        raise NotAllowed(_("You may not sign this ruleset: %(why)s.") % {"why": reason})
    if ruleset.signatures.filter(signer=signer).exists():
        raise Stale(_("You have already signed this ruleset."))
    if said.meaning in COUNTED and manifest.policy.read_changed_first and unread_by(ruleset, signer.pk):
        raise InvalidInput(_("Open every edited or conflicting instruction on the signing page before you sign."))
    return manifest
