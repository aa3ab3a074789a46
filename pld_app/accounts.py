"""Creating and deactivating accounts."""

from django.contrib.sessions.models import Session
from django.db import transaction
from django.http import Http404
from django.utils.translation import gettext_lazy as _

from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import User


@transaction.atomic
def account_create(
    *, by: User | None, username: str, display_name: str, role: str, password: str, domain: str = "", email: str = ""
) -> User:
    """Create an account with one role; raises ValidationError for a name taken or a reviewer without domain."""
    user = User.objects.create_user(
        username, password, display_name=display_name, role=role, domain=domain, email=email
    )
    audit_record("account.created", actor=by, subject=user, data={"role": role, "domain": domain})
    return user


@transaction.atomic
def account_deactivate(*, user_id: int, by: User) -> User:
    """Close an account; its history stays and its sessions end at once. Nobody closes their own."""
    # Both rows, in one order: two administrators who close each other at one moment must not both succeed.
    locked = {user.pk: user for user in User.objects.select_for_update().filter(pk__in=[user_id, by.pk]).order_by("pk")}
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
    _sessions_end(user)
    audit_record("account.deactivated", actor=by, subject=user)
    return user


def _sessions_end(user: User) -> None:
    mine = [row.pk for row in Session.objects.iterator() if row.get_decoded().get("_auth_user_id") == str(user.pk)]
    Session.objects.filter(pk__in=mine).delete()


@transaction.atomic
def account_set_password(*, user_id: int, password: str, by: User | None = None) -> User:
    """Set a password (`by` None: from the command line); it ends every other session (Django checks its hash)."""
    user = User.objects.select_for_update().get(pk=user_id)
    user.set_password(password)
    user.save(update_fields=["password"])
    audit_record("account.password_set", actor=by, subject=user)
    return user
