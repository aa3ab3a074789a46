"""Creating and deactivating accounts, and asking which role one has. Roles are given in `role_grants`."""

from typing import Any

from django.db import transaction
from django.http import Http404
from django.utils.translation import gettext_lazy as _

from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import Role, User


def require_role(person: User, *roles: Role) -> None:
    """Raises NotAllowed unless this is an active account in one of these roles."""
    if not person.is_active or person.role not in roles:
        raise NotAllowed


@transaction.atomic
def account_create(**columns: Any) -> User:  # each column its own type, as `account_insert` names them
    """Create an open account from the command line, the first administrator above all; columns as `account_insert`.

    An administrator proposes one instead (`role_grants.account_propose`), and a second one confirms its role.
    """
    return account_insert(by=None, is_active=True, **columns)


def account_insert(
    *,
    by: User | None,
    username: str,
    display_name: str,
    role: str,
    password: str,
    is_active: bool,
    domain: str = "",
    email: str = "",
    is_shared: bool = False,
) -> User:
    """Write an account and its event; raises ValidationError for a name taken or a reviewer without domain."""
    fields = {"display_name": display_name, "role": role, "domain": domain, "email": email}
    user = User.objects.create_user(username, password, is_shared=is_shared, is_active=is_active, **fields)
    data: dict[str, Json] = {"role": role, "domain": domain}
    if is_shared:
        data["is_shared"] = True
    audit_record("account.created", actor=by, subject=user, data=data)
    return user


@transaction.atomic
def account_deactivate(*, user_id: int, by: User) -> User:
    """Close an account; its history stays and its sessions end at once. Nobody closes their own."""
    # Both rows, in one order: two administrators who close each other at one moment must not both succeed.
    locked = {
        user.pk: user
        for user in User.objects.select_for_update(no_key=True).filter(pk__in=[user_id, by.pk]).order_by("pk")
    }
    if user_id not in locked:
        raise Http404
    user = locked[user_id]
    if user.pk == by.pk:
        raise InvalidInput(_("You cannot close your own account; ask another administrator."))
    if not locked[by.pk].is_active:
        raise NotAllowed
    if not user.is_active:
        raise WrongState(_("This account is closed already."))
    user.is_active = False
    user.save(update_fields=["is_active"])
    audit_record("account.deactivated", actor=by, subject=user)
    return user


@transaction.atomic
def account_set_password(*, user_id: int, password: str, by: User | None = None) -> User:
    """Set a password (`by` None: from the command line); it ends every session (a trigger, and Django by its hash)."""
    user = User.objects.select_for_update().get(pk=user_id)
    user.set_password(password)
    user.save(update_fields=["password"])
    audit_record("account.password_set", actor=by, subject=user)
    return user
