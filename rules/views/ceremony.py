"""Questions of a ceremony: to a passkey, asked by a script, and to the sign-on provider, asked by the browser."""

from dataclasses import dataclass

from django.http import HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from pld_app import oidc
from pld_app.access import UserRequest, roles_required
from pld_app.ceremonies import Act, ceremony_open, passkey_question
from pld_app.errors import InvalidInput
from pld_app.models import Role
from pld_app.passkeys import site_of
from pld_app.sso import step_up_open
from pld_app.views.sso import away, redirect_uri, safe_goal
from rules.selectors.ceremony import ceremony_subject

WHO = (Role.SIGNATORY, Role.REVIEWER, Role.ADMIN)


@dataclass(frozen=True)
class _Asked:
    act: Act
    number: int | None
    session_key: str


def _asked(request: UserRequest) -> _Asked:
    """The act that the form around the ceremony is about; the content's hash is the server's own."""
    said = request.POST
    purpose = said.get("ceremony_purpose", "")[:30]
    subject_type = said.get("ceremony_subject_type", "")
    field = said.get("ceremony_subject_field", "")
    subject = ceremony_subject(subject_type, said.get(field, "") if field else said.get("ceremony_subject_id", ""))
    if not purpose or subject is None:
        raise InvalidInput
    act = Act(
        purpose=purpose,
        subject_type=subject_type,
        subject_id=subject.pk,
        content_sha256=subject.content_sha256,
        meaning=said.get("meaning", "")[:30],
    )
    return _Asked(act, subject.number, request.session.session_key or "")


@roles_required(*WHO)
@require_POST
def ceremony_passkey(request: UserRequest) -> HttpResponse:
    """JSON for the script: the token of the question, and what the browser is asked."""
    asked = _asked(request)
    ceremony = ceremony_open(
        kind="passkey", actor=request.user, session_key=asked.session_key, act=asked.act, number=asked.number
    )
    question = passkey_question(ceremony=ceremony, site=site_of(request), user=request.user)
    response = JsonResponse(question)
    response["Cache-Control"] = "no-store"
    return response


@roles_required(*WHO)
@require_POST
def ceremony_sso(request: UserRequest) -> HttpResponse:
    """Send the browser to the provider, which authenticates the person anew for this act, and back to the form."""
    if not oidc.is_configured():
        raise InvalidInput(_("This installation has no single sign-on. Use your password."))
    asked = _asked(request)
    goal = safe_goal(request, request.POST.get("ceremony_goal", ""))
    _ceremony, question = step_up_open(
        actor=request.user, session_key=asked.session_key, act=asked.act, number=asked.number, goal=goal
    )
    return away(request, oidc.authorization_url(question, redirect_uri=redirect_uri(request), step_up=True))
