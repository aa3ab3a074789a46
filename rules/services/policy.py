"""Changing what is asked of a task's signers: one administrator proposes, a second person confirms."""

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import Reauthentication, Role, User
from pld_app.reauthentication import Proof, reauthenticate
from rules.exceptions import InvalidTransition, Stale
from rules.models import PolicyDecision, PolicyVerdict, SignOffPolicy, Task
from rules.selectors import policy as selectors
from rules.services.refusals import database_refusals

POINTS = (
    "signers_required",
    "signer_roles",
    "signatories_required",
    "domains",
    "miners_may_sign",
    "publisher_may_have_signed",
    "read_changed_first",
)


def policy_propose(
    *, task: Task, actor: User, proof: Proof, reason: str, expected: int | None = None, **points: Any
) -> SignOffPolicy:
    """Propose the next version, after proving again who one is; `points` are the fields named in POINTS.

    `expected` is the version in force that the person saw. Raises InvalidInput without a reason or when nothing would
    change, Stale when another proposal or version came first, NotAllowed for anyone but an administrator.
    """
    require_role(actor, Role.ADMIN)
    if not reason.strip():
        raise InvalidInput(_("Say why you propose it."))
    state = selectors.policy_state(task)
    _require_news(state, points, expected)
    proved = reauthenticate(actor=actor, proof=proof, purpose="policy", subject=task, task_slug=task.slug)
    return _propose(_Proposal(task.pk, actor, proved, reason.strip()[:300], expected), points)


@dataclass(frozen=True)
class _Proposal:
    task_id: int
    actor: User
    proved: Reauthentication
    reason: str
    expected: int | None


def _require_news(state: selectors.PolicyState, points: dict[str, Any], expected: int | None) -> None:
    if state.proposed is not None:
        raise Stale(_("A proposal waits for its decision already. Decide on it or have it refused first."))
    if expected is not None and state.in_force.version != expected:
        raise Stale(_("The policy changed since you opened this page. Look at it and repeat."))
    if all(_same(getattr(state.in_force, name), value) for name, value in points.items()):
        raise InvalidInput(_("This is the policy in force. Change something, or leave it as it is."))


def _same(old: object, new: object) -> bool:
    return sorted(old) == sorted(new) if isinstance(old, list) and isinstance(new, list) else old == new


@database_refusals()
@transaction.atomic
def _propose(proposal: _Proposal, points: dict[str, Any]) -> SignOffPolicy:
    task = Task.objects.select_for_update().get(pk=proposal.task_id)
    state = selectors.policy_state(task)
    _require_news(state, points, proposal.expected)
    values = {name: getattr(state.in_force, name) for name in POINTS} | points
    policy = SignOffPolicy(
        task=task,
        version=1 + task.policies.count(),
        proposed_by=proposal.actor,
        reason=proposal.reason,
        reauthentication=proposal.proved,
        authenticated_at=proposal.proved.at,
        **values,
    )
    data: dict[str, Json] = {"version": policy.version, "reason": policy.reason, **values}
    policy.event = audit_record(
        "policy.proposed", actor=policy.proposed_by, subject=task, task_slug=task.slug, data=data
    )
    policy.full_clean(validate_unique=False)
    policy.save()
    return policy


def policy_decide(*, policy_id: int, actor: User, verdict: str, proof: Proof) -> PolicyDecision:
    """Confirm a proposal, which puts it in force, or refuse it; after proving again who one is.

    Confirming takes another administrator or a signatory; refusing is open to the proposer too. Raises NotAllowed,
    InvalidTransition when it was decided already.
    """
    if verdict not in PolicyVerdict.values:
        raise InvalidInput(_("Confirm or refuse the proposal."))
    policy = SignOffPolicy.objects.select_related("task").get(pk=policy_id)
    require_role(actor, Role.ADMIN, Role.SIGNATORY)
    if verdict == PolicyVerdict.CONFIRMED and policy.proposed_by_id == actor.pk:
        raise NotAllowed(_("You proposed this: a second administrator or a signatory confirms it."))
    if PolicyDecision.objects.filter(policy=policy).exists():
        raise InvalidTransition(_("This proposal was decided already. Reload to see how."))
    proved = reauthenticate(actor=actor, proof=proof, purpose="policy", subject=policy, task_slug=policy.task.slug)
    return _decide(policy_id, actor, PolicyVerdict(verdict), proved)


@database_refusals()
@transaction.atomic
def _decide(policy_id: int, actor: User, verdict: PolicyVerdict, proved: Reauthentication) -> PolicyDecision:
    policy = SignOffPolicy.objects.select_related("task").get(pk=policy_id)
    # The task's row is the lock of everything about its policy: two words at once come one after the other.
    task = Task.objects.select_for_update().get(pk=policy.task_id)
    if PolicyDecision.objects.filter(policy=policy).exists():
        raise InvalidTransition(_("This proposal was decided already. Reload to see how."))
    data: dict[str, Json] = {
        "version": policy.version,
        "before": selectors.policy_in_force(task).version,
        **{name: getattr(policy, name) for name in POINTS},
    }
    event = audit_record(f"policy.{verdict}", actor=actor, subject=task, task_slug=task.slug, data=data)
    return PolicyDecision.objects.create(
        policy=policy,
        verdict=verdict,
        actor=actor,
        actor_name=str(actor),
        actor_role=actor.role,
        reauthentication=proved,
        method=proved.method,
        authenticated_at=proved.at,
        event=event,
    )
