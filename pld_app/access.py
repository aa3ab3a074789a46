"""Least privilege: every view names the roles it is for; there is no superuser."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, cast
from urllib.parse import urlsplit

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
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


# The fields in which people write at length: what stands in them is handed back, whatever happens to the request.
KEPT = ("text", "note", "reason", "body")


def kept_text(request: HttpRequest) -> dict[str, str]:
    """What was typed in this request, by field."""
    return {key: value for key, value in request.POST.items() if key in KEPT and isinstance(value, str) and value}


def _to_sign_in(request: HttpRequest) -> HttpResponseBase:
    """To the sign-in page and back to where a page can be shown; a text under way is shown first, to be copied."""
    if request.method in {"GET", "HEAD"}:
        return redirect_to_login(request.get_full_path())
    before = urlsplit(page_before(request))
    back = before.path + (f"?{before.query}" if before.query else "")
    kept = kept_text(request)
    # A page with scripts keeps the text itself (static/js/draft.js) and brings it back after signing in.
    if not kept or "HX-Request" in request.headers:
        return redirect_to_login(back)
    context = {"kept": kept, "sign_in": redirect_to_login(back).url}
    return render(request, "session_ended.html", context, status=401)


def page_before(request: HttpRequest) -> str:
    """Where the person came from if that was here: a link of another site must not look like ours."""
    before = request.headers.get("Referer", "")
    ours = url_has_allowed_host_and_scheme(before, {request.get_host()}, require_https=request.is_secure())
    return before if ours else "/"


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
                return _to_sign_in(request)
            if request.user.role not in allowed:
                raise NotAllowed(_who_may(allowed, request.user))
            return view(cast(UserRequest, request), *args, **kwargs)

        cast(Any, guarded).allowed_roles = allowed
        return cast(View[P], guarded)

    return decorate
