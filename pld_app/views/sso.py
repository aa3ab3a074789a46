"""Single sign-on: to the provider and back, for signing in and for the step-up of a signature."""

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from pld_app import oidc
from pld_app.canonical import sha256_hex
from pld_app.errors import NotAllowed
from pld_app.models import User
from pld_app.sign_in import sign_in_begin
from pld_app.sso import account_of, step_up_answer, step_up_pending

# The question of a sign-in under way, in the session of whoever asked it.
ASKED = "pld.sso"
ASKED_S = 600


def redirect_uri(request: HttpRequest) -> str:
    """Where the provider sends the browser back: under the public address when one is set."""
    path = reverse("sso-callback")
    return f"{settings.PUBLIC_URL}{path}" if settings.PUBLIC_URL else request.build_absolute_uri(path)


def safe_goal(request: HttpRequest, goal: str) -> str:
    """A path of this site, or the start page."""
    ours = url_has_allowed_host_and_scheme(goal, {request.get_host()}, require_https=request.is_secure())
    return goal if ours else "/"


def away(request: HttpRequest, url: str) -> HttpResponse:
    """Send the browser to the provider. Not a redirect: the policy lets forms lead nowhere but here."""
    response = render(request, "registration/sso_away.html", {"url": url})
    response["Refresh"] = f"0; url={url}"
    response["Cache-Control"] = "no-store"
    return response


@require_POST
def sso_start(request: HttpRequest) -> HttpResponse:
    """Begin signing in with the provider."""
    if not oidc.is_configured() or request.user.is_authenticated:
        return redirect("login")
    question = oidc.Question.new()
    request.session.cycle_key()
    request.session[ASKED] = {
        "state": question.state,
        "nonce": question.nonce,
        "verifier": question.verifier,
        "goal": safe_goal(request, request.POST.get("next", "")),
        "since": timezone.now().timestamp(),
    }
    return away(request, oidc.authorization_url(question, redirect_uri=redirect_uri(request), step_up=False))


@never_cache
@require_GET
def sso_callback(request: HttpRequest) -> HttpResponse:
    """The provider's answer: to a sign-in when nobody is signed in, else to the step-up of this person's act."""
    if not oidc.is_configured():
        return redirect("login")
    state, code = request.GET.get("state", "")[:200], request.GET.get("code", "")[:4000]
    if request.user.is_authenticated:
        return _stepped_up(request, request.user, state, code)
    asked: dict[str, Any] = request.session.pop(ASKED, {})
    fresh = asked and timezone.now().timestamp() - asked["since"] < ASKED_S
    if not fresh or not constant_time_compare(asked["state"], state) or not code:
        raise oidc.SsoRefused("state, code or session do not fit")
    question = oidc.Question(state=asked["state"], nonce=asked["nonce"], verifier=asked["verifier"])
    claims = oidc.claims_fetch(question, code=code, redirect_uri=redirect_uri(request))
    user = account_of(claims)
    goal = safe_goal(request, asked["goal"])
    return redirect(goal if sign_in_begin(request=request, user=user, method="oidc", goal=goal) else "login-second")


def _stepped_up(request: HttpRequest, user: User, state: str, code: str) -> HttpResponse:
    session = sha256_hex(request.session.session_key or "")
    ceremony = step_up_pending(user=user, session_sha256=session, state=state) if state and code else None
    if ceremony is None:
        raise NotAllowed
    secret = ceremony.secret
    question = oidc.Question(state=secret["state"], nonce=secret["nonce"], verifier=secret["verifier"])
    claims = oidc.claims_fetch(question, code=code, redirect_uri=redirect_uri(request))
    step_up_answer(ceremony=ceremony, claims=claims)
    goal = safe_goal(request, secret["goal"]).partition("#")[0]
    return redirect(f"{goal}{'&' if '?' in goal else '?'}{urlencode({'sso': ceremony.token})}#ceremony")
