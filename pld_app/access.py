"""Least privilege: every view names the roles it is for; there is no superuser."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, cast

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext as _
from django_htmx.middleware import HtmxDetails

from pld_app.errors import NotAllowed
from pld_app.models import Role, User

type View[**P] = Callable[Concatenate[HttpRequest, P], HttpResponseBase]

EVERYONE = frozenset(Role)


class UserRequest(HttpRequest):
    """A request behind `roles_required`: its user is a signed-in account."""

    user: User
    htmx: HtmxDetails


def _who_may(allowed: frozenset[Role], user: User) -> str:
    """Why this page is closed to this account, and whose it is."""
    names = ", ".join(str(role.label).lower() for role in Role if role in allowed)
    words = _(
        "This is for: %(roles)s. You are signed in as %(own)s. Roles are kept apart on purpose; ask somebody of that "
        "role, or an administrator if your account should have it."
    )
    return words % {"roles": names, "own": str(Role(user.role).label).lower()}


def roles_required[**P](
    *roles: Role,
) -> Callable[[Callable[Concatenate[UserRequest, P], HttpResponseBase]], View[P]]:
    """Let only these roles through (none named: every signed-in account); others get 403, strangers the sign-in page.

    The view carries the set as `allowed_roles`; the permission test reads it for every URL and misses none.
    """
    allowed = frozenset(roles) or EVERYONE

    def decorate(view: Callable[Concatenate[UserRequest, P], HttpResponseBase]) -> View[P]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            if request.user.role not in allowed:
                raise NotAllowed(_who_may(allowed, request.user))
            return view(cast(UserRequest, request), *args, **kwargs)

        cast(Any, guarded).allowed_roles = allowed
        return cast(View[P], guarded)

    return decorate
