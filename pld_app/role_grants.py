"""Giving roles: one administrator asks, a second confirms, and a day passes, unless one of them answers for less.

The database holds each step (migration 0014). What only takes away, closing an account, needs nobody else
(`accounts.account_deactivate`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, Subquery
from django.db.models.functions import Now
from django.http import Http404
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.accounts import account_insert, require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import GrantStep, Role, RoleGrant, RoleGrantStep, User
from pld_app.notifications import kind_register, notify

WAIT = timedelta(hours=24)

kind_register(
    "role.requested",
    label=gettext_lazy("A role waits for a second administrator"),
    text=gettext_lazy("%(by)s asks that %(name)s becomes %(role)s: %(reason)s"),
)
kind_register(
    "role.overridden",
    label=gettext_lazy("A role took effect at once"),
    text=gettext_lazy("%(by)s waived the waiting time of %(name)s, now %(role)s: %(reason)s"),
)


@dataclass(frozen=True)
class Waiting:
    """A grant that waits, with who asked and, once confirmed, by whom and from when it counts."""

    grant: RoleGrant
    confirmed_by: User | None
    counts_from: datetime | None


def grants_waiting() -> list[Waiting]:
    """Grants neither in effect nor refused, oldest first, in two queries."""
    waiting = RoleGrant.objects.waiting().select_related("user", "requested_by").order_by("pk")
    steps = RoleGrantStep.objects.filter(kind=GrantStep.CONFIRMED, grant__in=waiting.values("pk"))
    confirmed = {step.grant_id: step for step in steps.select_related("actor")}
    return [_waiting(grant, confirmed.get(grant.pk)) for grant in waiting]


def _waiting(grant: RoleGrant, step: RoleGrantStep | None) -> Waiting:
    return Waiting(grant, step.actor if step else None, step.at + WAIT if step else None)


@transaction.atomic
def account_propose(*, by: User, role: str, domain: str = "", **columns: Any) -> User:  # as `account_insert` has them
    """Create an account that stays closed until its role is in effect; raises ValidationError as `account_create`."""
    _lock(by)
    user = account_insert(by=by, role=role, domain=domain, is_active=False, **columns)
    _request(user, role, domain, before="", reason=_("A new account."), by=by)
    return user


@transaction.atomic
def role_request(*, user_id: int, role: str, domain: str, reason: str, by: User) -> RoleGrant:
    """Ask that an account gets another role. Nobody asks for their own; raises WrongState while another one waits."""
    user = _lock(by, user_id)[user_id]
    if user.pk == by.pk:
        raise InvalidInput(_("You cannot change your own role; ask another administrator."))
    if not user.is_active:
        raise WrongState(_("This account is closed, and a closed account is not opened again. Make a new one."))
    if (user.role, user.domain) == (role, domain):
        raise WrongState(_("This account has this role already."))
    if not reason.strip():
        raise InvalidInput(_("Say why."))
    if RoleGrant.objects.waiting().filter(user=user).exists():
        raise WrongState(_("A role of this account waits already. Decide on that one first."))
    return _request(user, role, domain, before=user.role, reason=reason.strip()[:300], by=by)


def _request(user: User, role: str, domain: str, *, before: str, reason: str, by: User) -> RoleGrant:
    grant = RoleGrant(user=user, role=role, domain=domain, role_before=before, reason=reason, requested_by=by)
    data: dict[str, Json] = {"before": before, "role": role, "domain": domain, "reason": reason}
    others = User.objects.filter(role=Role.ADMIN, is_active=True).exclude(pk__in=[by.pk, user.pk])
    said = {"by": str(by), "name": str(user), "role": str(grant.get_role_display()), "reason": reason}
    notify(others, "role.requested", url="/accounts/", **said)
    grant.full_clean(exclude=["event"])
    grant.event = audit_record("role.requested", actor=by, subject=user, data=data)
    grant.save()
    return grant


@transaction.atomic
def role_confirm(*, grant_id: int, by: User) -> RoleGrantStep:
    """A second administrator's word; the role takes effect a day later (`roles_apply`)."""
    grant = _open_grant(grant_id, by, second=True)
    if grant.steps.filter(kind=GrantStep.CONFIRMED).exists():
        raise WrongState(_("This role was confirmed already. Reload to see when it takes effect."))
    return _step(grant, GrantStep.CONFIRMED, by)


@transaction.atomic
def role_override(*, grant_id: int, by: User, reason: str) -> User:
    """Put a confirmed role into effect at once; not by who asked for it. Administrators and auditors are told."""
    grant = _open_grant(grant_id, by, second=True)
    if not reason.strip():
        raise InvalidInput(_("Say why it cannot wait."))
    if not grant.steps.filter(kind=GrantStep.CONFIRMED).exists():
        raise WrongState(_("A second administrator confirms this role first."))
    _step(grant, GrantStep.OVERRIDDEN, by, reason=reason.strip()[:300])
    watchers = User.objects.filter(role__in=[Role.ADMIN, Role.AUDITOR], is_active=True).exclude(pk=by.pk)
    said = {"by": str(by), "name": str(grant.user), "role": str(grant.get_role_display()), "reason": reason.strip()}
    notify(watchers, "role.overridden", url="/accounts/", **said)
    return _apply(grant)


@transaction.atomic
def role_refuse(*, grant_id: int, by: User) -> RoleGrantStep:
    """Take a role back before it is in effect: any administrator, who asked for it too."""
    return _step(_open_grant(grant_id, by, second=False), GrantStep.REFUSED, by)


def roles_apply() -> int:
    """Put into effect what was confirmed a day ago, each in its own transaction; returns how many."""
    steps = RoleGrantStep.objects.filter(grant=OuterRef("pk"), kind=GrantStep.CONFIRMED, at__lte=Now() - WAIT)
    due = RoleGrant.objects.waiting().filter(Q(Exists(steps)) & _may_still_open())
    return sum(_apply_due(pk) for pk in due.values_list("pk", flat=True))


def _may_still_open() -> Q:
    """A role of an account that was closed meanwhile waits for nothing."""
    return Q(role_before="") | Q(user__is_active=True)


@transaction.atomic
def _apply_due(grant_id: int) -> int:
    user_id = Subquery(RoleGrant.objects.filter(pk=grant_id).values("user_id")[:1])
    User.objects.select_for_update(no_key=True).get(pk=user_id)
    grant = RoleGrant.objects.waiting().filter(_may_still_open(), pk=grant_id).select_related("user").first()
    if grant is None:  # another worker, a refusal or a closed account was faster
        return 0
    _apply(grant)
    return 1


def _apply(grant: RoleGrant) -> User:
    """The account's row is locked. Its sessions end with the change (a trigger)."""
    user, before = grant.user, str(grant.user.get_role_display())
    data: dict[str, Json] = {
        "before": grant.role_before,
        "after": grant.role,
        "domain_before": user.domain,
        "domain_after": grant.domain,
        "grant": grant.pk,
    }
    event = audit_record("account.role_changed", actor=None, subject=user, data=data)
    # The step first: its guard looks at the account as it stands before.
    RoleGrantStep.objects.create(grant=grant, user=user, kind=GrantStep.APPLIED, actor=None, event=event)
    user.role, user.domain, user.is_active = grant.role, grant.domain, True
    user.full_clean()
    user.save(update_fields=["role", "domain", "is_active"])
    if grant.role_before:
        said = {"by": str(grant.requested_by), "before": before, "after": str(user.get_role_display())}
        notify([user], "role.changed", **said)
    return user


def _step(grant: RoleGrant, kind: GrantStep, by: User, *, reason: str = "") -> RoleGrantStep:
    data: dict[str, Json] = {"role": grant.role, "domain": grant.domain, "reason": reason}
    event = audit_record(f"role.{kind.value}", actor=by, subject=grant.user, data=data)
    return RoleGrantStep.objects.create(grant=grant, user=grant.user, kind=kind, actor=by, reason=reason, event=event)


def _lock(by: User, *user_ids: int) -> dict[int, User]:
    """The accounts' rows, locked in one order; raises Http404, or NotAllowed unless `by` is an administrator now."""
    rows = User.objects.select_for_update(no_key=True).filter(pk__in={*user_ids, by.pk}).order_by("pk")
    locked = {user.pk: user for user in rows}
    _require_all(locked, user_ids)
    require_role(locked[by.pk], Role.ADMIN)
    return locked


def _require_all(locked: dict[int, User], user_ids: Iterable[int]) -> None:
    if not all(pk in locked for pk in user_ids):
        raise Http404


def _open_grant(grant_id: int, by: User, *, second: bool) -> RoleGrant:
    """The grant, its account locked; raises NotAllowed where a `second` person is asked and this is not one."""
    known = RoleGrant.objects.filter(pk=grant_id).values_list("user_id", flat=True).first()
    if known is None:
        raise Http404
    locked = _lock(by, known)
    grant = RoleGrant.objects.waiting().filter(pk=grant_id).select_related("requested_by").first()
    if grant is None:
        raise WrongState(_("This role was decided already. Reload to see how."))
    grant.user = locked[known]
    if second and grant.role_before and not grant.user.is_active:
        raise WrongState(_("This account is closed, and a closed account is not opened again. Make a new one."))
    if second and by.pk in {grant.requested_by_id, grant.user_id}:
        raise NotAllowed(_("A second administrator confirms this role: not who asked for it, nor who gets it."))
    return grant
