"""Setting gates: one administrator proposes, a second person confirms; and the signed exception from them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import Reauthentication, Role, User
from pld_app.reauthentication import Proof, reauthenticate
from rules.exceptions import InvalidTransition, Stale
from rules.hooks import DatasetOffer, datasets_offered
from rules.models import (
    ExceptionMeaning,
    GateDecision,
    GateException,
    GatePolicy,
    PolicyVerdict,
    Release,
    Task,
)
from rules.selectors import gates as selectors
from rules.services.refusals import database_refusals

LONGEST_EXCEPTION = timedelta(days=90)
POINTS = (
    "student",
    "dataset_sha256",
    "split",
    "minimum_n",
    "min_macro_f1",
    "max_drop",
    "max_malformed_rate",
    "max_prompt_tokens",
    "label_floors",
    "staging_too",
    "revalidate_days",
    "grace_days",
)


def gates_propose(
    *, task: Task, actor: User, proof: Proof, reason: str, expected: int | None = None, **points: Any
) -> GatePolicy:
    """Propose the task's next gates, after proving again who one is; `points` are the fields named in POINTS.

    Points left out are not set, whatever was in force. `expected` is the version in force that the person saw (0:
    none). Raises InvalidInput for gates that nothing could pass, Stale when another proposal or version came first,
    NotAllowed for anyone but an administrator.
    """
    require_role(actor, Role.ADMIN)
    if not reason.strip():
        raise InvalidInput(_("Say why you propose it."))
    _require_news(task, expected)
    policy = GatePolicy(task=task, proposed_by=actor, reason=reason.strip()[:300], **points)
    policy.label_floors = {label: f"{Decimal(floor):.3f}" for label, floor in policy.label_floors.items()}
    _require_possible(policy)
    policy.full_clean(exclude=["version", "event", "reauthentication"], validate_unique=False)
    proved = reauthenticate(actor=actor, proof=proof, purpose="gates", subject=task, task_slug=task.slug)
    return _propose(policy, proved, expected)


def _require_news(task: Task, expected: int | None) -> None:
    state = selectors.gate_state(task)
    if state.proposed is not None:
        raise Stale(_("A proposal waits for its decision already. Decide on it or have it refused first."))
    if expected is not None and (state.in_force.version if state.in_force else 0) != expected:
        raise Stale(_("The gates changed since you opened this page. Look at them and repeat."))


def _require_possible(policy: GatePolicy) -> None:
    """A gate that no run over this dataset could pass is refused here, not found out when somebody wants to publish."""
    if not policy.dataset_sha256:
        return
    offer = next((one for one in datasets_offered(policy.task) if one.sha256 == policy.dataset_sha256), None)
    if offer is None:
        raise InvalidInput(_("Choose a frozen dataset of this task."))
    policy.dataset_name = offer.name[:160]
    size = offer.size(policy.split)
    if policy.minimum_n > size:
        text = _("The split holds %(n)d examples, so no evaluation could have %(least)d. Ask for fewer.")
        raise InvalidInput(text % {"n": size, "least": policy.minimum_n})
    _require_labels(policy, offer)


def _require_labels(policy: GatePolicy, offer: DatasetOffer) -> None:
    absent = [label for label in policy.label_floors if not offer.counts.get(policy.split, {}).get(label)]
    if absent:
        text = _("The split holds no example of %(labels)s, so a floor for it could never be passed.")
        raise InvalidInput(text % {"labels": ", ".join(sorted(absent))})


@database_refusals()
@transaction.atomic
def _propose(policy: GatePolicy, proved: Reauthentication, expected: int | None) -> GatePolicy:
    task = Task.objects.select_for_update().get(pk=policy.task_id)
    _require_news(task, expected)
    policy.version = 1 + task.gate_policies.count()
    policy.reauthentication = proved
    policy.event = audit_record(
        "gates.proposed", actor=policy.proposed_by, subject=task, task_slug=task.slug, data=_said(policy)
    )
    policy.save()
    policy.refresh_from_db()
    return policy


def _said(policy: GatePolicy) -> dict[str, Json]:
    """The gates as an event keeps them: figures as text."""
    return {
        "version": policy.version,
        "gates": [f"{gate} {label} {threshold}".replace("  ", " ") for gate, label, threshold in policy.thresholds],
        "student": policy.student.slug if policy.student else "",
        "dataset_sha256": policy.dataset_sha256,
        "split": policy.split,
        "minimum_n": policy.minimum_n,
        "staging_too": policy.staging_too,
        "revalidate_days": policy.revalidate_days,
        "grace_days": policy.grace_days,
        "reason": policy.reason,
    }


def gates_decide(*, policy_id: int, actor: User, verdict: str, proof: Proof) -> GateDecision:
    """Confirm proposed gates, which puts them in force, or refuse them; after proving again who one is.

    Confirming takes another administrator or a signatory; refusing is open to the proposer too.
    """
    if verdict not in PolicyVerdict.values:
        raise InvalidInput(_("Confirm or refuse the proposal."))
    policy = GatePolicy.objects.select_related("task", "student").get(pk=policy_id)
    require_role(actor, Role.ADMIN, Role.SIGNATORY)
    if verdict == PolicyVerdict.CONFIRMED and policy.proposed_by_id == actor.pk:
        raise NotAllowed(_("You proposed these gates: a second administrator or a signatory confirms them."))
    _require_undecided(policy)
    proved = reauthenticate(actor=actor, proof=proof, purpose="gates", subject=policy, task_slug=policy.task.slug)
    return _decide(policy, actor, PolicyVerdict(verdict), proved)


def _require_undecided(policy: GatePolicy) -> None:
    if GateDecision.objects.filter(policy=policy).exists():
        raise InvalidTransition(_("This proposal was decided already. Reload to see how."))


@database_refusals()
@transaction.atomic
def _decide(policy: GatePolicy, actor: User, verdict: PolicyVerdict, proved: Reauthentication) -> GateDecision:
    task = Task.objects.select_for_update().get(pk=policy.task_id)
    _require_undecided(policy)
    event = audit_record(f"gates.{verdict}", actor=actor, subject=task, task_slug=task.slug, data=_said(policy))
    return GateDecision.objects.create(
        policy=policy,
        verdict=verdict,
        actor=actor,
        actor_name=str(actor),
        actor_role=actor.role,
        reason="",
        reauthentication=proved,
        event=event,
    )


@dataclass(frozen=True, kw_only=True)
class _Exception:
    release: Release
    policy: GatePolicy
    actor: User
    meaning: str
    reason: str
    expires_at: datetime


def gate_exception_sign(
    *, release_id: int, policy_version: int, actor: User, proof: Proof, meaning: str, reason: str, expires_at: datetime
) -> GateException:
    """Let a release be published past its gates until `expires_at` (aware UTC, at most 90 days off), as a signed act.

    `policy_version` is that of the gates the person saw. Raises InvalidInput without reason, meaning or date, Stale
    when the gates changed, NotAllowed for anyone but a signatory who neither composed nor edited it.
    """
    require_role(actor, Role.SIGNATORY)
    if not reason.strip():
        raise InvalidInput(_("Say why it is published all the same."))
    if meaning not in ExceptionMeaning.values:
        raise InvalidInput(_("Choose what your signature means."))
    if not timezone.now() < expires_at <= timezone.now() + LONGEST_EXCEPTION:
        raise InvalidInput(_("An exception expires at a time to come, at most 90 days off."))
    release = Release.objects.select_related("task").get(pk=release_id)
    policy = selectors.gates_in_force(release.task)
    if policy is None or policy.version != policy_version:
        raise Stale(_("The gates changed since you opened this page. Look at how the release stands now."))
    proved = reauthenticate(
        actor=actor,
        proof=proof,
        purpose="gate exception",
        subject=release,
        content_sha256=release.manifest_sha256,
        meaning=meaning,
        task_slug=release.task.slug,
    )
    act = _Exception(
        release=release,
        policy=policy,
        actor=actor,
        meaning=meaning,
        reason=reason.strip()[:300],
        expires_at=expires_at,
    )
    return _except(act, proved)


@database_refusals()
@transaction.atomic
def _except(act: _Exception, proved: Reauthentication) -> GateException:
    task = Task.objects.select_for_update().get(pk=act.release.task_id)
    data: dict[str, Json] = {
        "version": act.release.version,
        "gates": act.policy.version,
        "manifest_sha256": act.release.manifest_sha256,
        "meaning": act.meaning,
        "reason": act.reason,
        "expires_at": act.expires_at.isoformat(),
        "method": proved.method,
    }
    event = audit_record("gates.excepted", actor=act.actor, subject=act.release, task_slug=task.slug, data=data)
    return GateException.objects.create(
        release=act.release,
        policy=act.policy,
        manifest_sha256=act.release.manifest_sha256,
        meaning=act.meaning,
        expires_at=act.expires_at,
        actor=act.actor,
        actor_name=str(act.actor),
        actor_role=act.actor.role,
        reason=act.reason,
        reauthentication=proved,
        event=event,
    )
