"""Withdrawing a ruleset: a draft is put aside, a frozen one is revoked by a signed row that stays for ever."""

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import Reauthentication, User
from pld_app.reauthentication import Proof, reauthenticate
from rules.exceptions import InvalidTransition, Stale
from rules.models import Release, Revocation, Ruleset, RulesetStatus, Task
from rules.services.announcing import announced
from rules.services.refusals import database_refusals
from rules.services.rulesets import may_withdraw, ruleset_lock
from rules.transitions import ruleset_move


def ruleset_withdraw(*, ruleset_id: int, actor: User, reason: str, proof: Proof | None = None) -> Ruleset:
    """Withdraw a ruleset with a reason: nothing of it is signed, released, published or served any more.

    One that is frozen takes a proof of identity; what channels serve falls back at once to the last valid release
    before it, or to nothing.
    """
    ruleset = Ruleset.objects.select_related("task").get(pk=ruleset_id)
    _require_withdrawable(ruleset, actor, reason)
    if ruleset.status == RulesetStatus.DRAFT:
        return _draft_withdraw(ruleset_id, actor, reason)
    if proof is None:
        raise InvalidInput(_("Prove again that it is you to withdraw what is frozen."))
    proved = reauthenticate(
        actor=actor,
        proof=proof,
        purpose="withdraw",
        subject=ruleset,
        content_sha256=ruleset.manifest_sha256,
        task_slug=ruleset.task.slug,
    )
    return _revoke(ruleset, actor, reason, proved)


def _require_withdrawable(ruleset: Ruleset, actor: User, reason: str) -> None:
    if ruleset.status == RulesetStatus.WITHDRAWN:
        raise InvalidTransition(_("This ruleset was withdrawn already."))
    if not may_withdraw(ruleset, actor):
        raise NotAllowed
    if not reason.strip():
        raise InvalidInput(_("Say why you withdraw this ruleset."))


@database_refusals()
@transaction.atomic
def _draft_withdraw(ruleset_id: int, actor: User, reason: str) -> Ruleset:
    ruleset = ruleset_lock(ruleset_id)
    if ruleset.status != RulesetStatus.DRAFT:
        raise Stale(_("This ruleset was frozen or withdrawn while you worked on it. Reload to see it."))
    ruleset_move(ruleset, RulesetStatus.WITHDRAWN)
    ruleset.withdrawn_reason = reason.strip()[:300]
    ruleset.version += 1
    ruleset.save(update_fields=["status", "withdrawn_reason", "version"])
    data: dict[str, Json] = {"reason": ruleset.withdrawn_reason, "released": False}
    audit_record("ruleset.withdrawn", actor=actor, subject=ruleset, task_slug=ruleset.task.slug, data=data)
    return ruleset


@database_refusals()
@transaction.atomic
def _revoke(shown: Ruleset, actor: User, reason: str, proved: Reauthentication) -> Ruleset:
    # The order of locks of a publication: task, then ruleset.
    task = Task.objects.select_for_update().get(pk=shown.task_id)
    ruleset = ruleset_lock(shown.pk)
    _require_withdrawable(ruleset, actor, reason)
    data: dict[str, Json] = {
        "reason": reason.strip()[:300],
        "released": Release.objects.filter(ruleset=ruleset).exists(),
        "manifest_sha256": ruleset.manifest_sha256,
        "method": proved.method,
    }
    with announced(task, "withdrawn"):
        event = audit_record("ruleset.withdrawn", actor=actor, subject=ruleset, task_slug=task.slug, data=data)
        Revocation.objects.create(
            ruleset=ruleset,
            actor=actor,
            actor_name=str(actor),
            actor_role=actor.role,
            reason=reason.strip()[:300],
            reauthentication=proved,
            event=event,
        )
    # The database moved the ruleset with the row.
    ruleset.refresh_from_db()
    return ruleset
