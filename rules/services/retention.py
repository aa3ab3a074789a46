"""How long texts are kept and what a legal hold keeps longer: proposals, second words, holds."""

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import Reauthentication, Role, User
from pld_app.reauthentication import Proof, reauthenticate
from rules.models import (
    HoldRelease,
    HoldScope,
    LegalHold,
    PolicyVerdict,
    RetentionDecision,
    RetentionPolicy,
    Task,
)
from rules.models.retention import DEFAULT_MONTHS
from rules.selectors.retention import policies_in_force, policy_for
from rules.services.refusals import database_refusals

DECIDERS = (Role.ADMIN, Role.SIGNATORY)


def installation_policy() -> RetentionPolicy:
    """The installation's policy in force; its first, of 84 months, is made when it is first needed."""
    found = policies_in_force().filter(task=None).first()
    return found or RetentionPolicy.objects.create(months=DEFAULT_MONTHS)


@database_refusals()
@transaction.atomic
def retention_propose(*, task: Task | None, months: int, reason: str, actor: User) -> RetentionPolicy:
    """Propose another period for a task, or with None for the installation; nothing changes before a second word."""
    require_role(actor, Role.ADMIN)
    if not reason.strip():
        raise InvalidInput(_("Say why you propose it."))
    replaces = policy_for(task) or installation_policy()
    if replaces.months == months and replaces.task_id == (task.pk if task else None):
        raise InvalidInput(_("This is the period in force. Change it, or leave it as it is."))
    policy = RetentionPolicy(
        task=task, months=months, replaces=replaces, reason=reason.strip()[:300], proposed_by=actor
    )
    slug = task.slug if task else ""
    data: dict[str, Json] = {"before": replaces.months, "after": months, "task": slug, "reason": policy.reason}
    policy.event = audit_record("retention.proposed", actor=actor, subject=replaces, task_slug=slug, data=data)
    policy.full_clean(exclude=["at"])
    policy.save()
    return policy


def require_second(actor: User, first_id: int | None, verdict: str = PolicyVerdict.CONFIRMED) -> None:
    """Raises NotAllowed for who does not decide on such acts, and for confirming one's own."""
    require_role(actor, *DECIDERS)
    if verdict not in PolicyVerdict.values:
        raise InvalidInput(_("Confirm or refuse it."))
    if verdict == PolicyVerdict.CONFIRMED and first_id == actor.pk:
        raise NotAllowed(_("This was your own act: another administrator or a signatory decides on it."))


def retention_decide(*, policy_id: int, actor: User, verdict: str, proof: Proof) -> RetentionDecision:
    """Confirm a proposed period, which puts it in force, or refuse it, after proving again who one is."""
    policy = RetentionPolicy.objects.select_related("task").get(pk=policy_id)
    require_second(actor, policy.proposed_by_id, verdict)
    slug = policy.task.slug if policy.task else ""
    proved = reauthenticate(actor=actor, proof=proof, purpose="retention", subject=policy, task_slug=slug)
    return _retention_decide(policy, actor, verdict, proved)


@database_refusals()
@transaction.atomic
def _retention_decide(
    policy: RetentionPolicy, actor: User, verdict: str, proved: Reauthentication
) -> RetentionDecision:
    if RetentionDecision.objects.filter(policy=policy).exists():
        raise WrongState(_("This was decided already. Reload to see how."))
    slug = policy.task.slug if policy.task else ""
    data: dict[str, Json] = {"months": policy.months, "task": slug}
    event = audit_record(f"retention.{verdict}", actor=actor, subject=policy, task_slug=slug, data=data)
    return RetentionDecision.objects.create(
        policy=policy,
        verdict=verdict,
        actor=actor,
        actor_name=str(actor),
        actor_role=actor.role,
        reauthentication=proved,
        event=event,
    )


@database_refusals()
@transaction.atomic
def hold_place(
    *, actor: User, scope: str, reason: str, task: Task | None = None, object_type: str = "", object_id: str = ""
) -> LegalHold:
    """Keep what it covers from being pruned or erased, from now on. One administrator's act: it only ever keeps."""
    require_role(actor, Role.ADMIN)
    if not reason.strip():
        raise InvalidInput(_("Say why it is held."))
    hold = LegalHold(
        scope=scope,
        task=task if scope == HoldScope.TASK else None,
        object_type=object_type.strip() if scope == HoldScope.OBJECT else "",
        object_id=object_id.strip() if scope == HoldScope.OBJECT else "",
        actor=actor,
        actor_name=str(actor),
        actor_role=actor.role,
        reason=reason.strip()[:300],
    )
    hold.full_clean(exclude=["event"])
    slug = hold.task.slug if hold.task else ""
    data: dict[str, Json] = {"scope": scope, "what": str(hold), "reason": hold.reason}
    hold.event = audit_record("hold.placed", actor=actor, subject=actor, task_slug=slug, data=data)
    hold.save()
    return hold


def hold_release(*, hold_id: int, actor: User, reason: str, proof: Proof) -> HoldRelease:
    """Lift a hold: another person than who placed it, after proving again who one is."""
    hold = LegalHold.objects.select_related("task").get(pk=hold_id)
    require_second(actor, hold.actor_id)
    if not reason.strip():
        raise InvalidInput(_("Say why it is released."))
    slug = hold.task.slug if hold.task else ""
    proved = reauthenticate(actor=actor, proof=proof, purpose="hold", subject=hold, task_slug=slug)
    return _hold_release(hold, actor, reason.strip()[:300], proved)


@database_refusals()
@transaction.atomic
def _hold_release(hold: LegalHold, actor: User, reason: str, proved: Reauthentication) -> HoldRelease:
    if HoldRelease.objects.filter(hold=hold).exists():
        raise WrongState(_("This hold was released already."))
    slug = hold.task.slug if hold.task else ""
    data: dict[str, Json] = {"what": str(hold), "reason": reason}
    event = audit_record("hold.released", actor=actor, subject=hold, task_slug=slug, data=data)
    return HoldRelease.objects.create(
        hold=hold,
        actor=actor,
        actor_name=str(actor),
        actor_role=actor.role,
        reason=reason,
        reauthentication=proved,
        event=event,
    )
