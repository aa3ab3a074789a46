"""The fields of a proof, for this person: `{% ceremony form purpose="sign" subject_type="ruleset" subject_id=1 %}`.

Used in every form that signs, publishes, rolls back, withdraws or stops; the form is a `pld_app.forms_proof.ProofForm`.
`subject_field` names a field of the form instead of `subject_id` when the object is chosen in it.
"""

import uuid
from typing import Any

from django import template
from django.template import RequestContext

from pld_app import oidc
from pld_app.forms_proof import ProofForm
from pld_app.models import Ceremony
from pld_app.reauthentication import Factors, factors_of

register = template.Library()


def _factors(request: Any) -> Factors:
    """What the person of this request can prove themselves with, asked once a request."""
    if not hasattr(request, "pld_factors"):
        request.pld_factors = factors_of(request.user, request.session.session_key or "")
    factors: Factors = request.pld_factors
    return factors


def _confirmed(request: Any, purpose: str, subject_type: str) -> Ceremony | None:
    """The answered single sign-on that the browser came back with, if for this form; the service checks the rest."""
    token = request.GET.get("sso", "") or request.POST.get("sso", "")
    try:
        asked = Ceremony.objects.filter(token=uuid.UUID(token), user=request.user, kind="oidc") if token else None
    except ValueError:
        return None
    if asked is None:
        return None
    return asked.filter(
        purpose=purpose, subject_type=subject_type, answered_at__isnull=False, used_at__isnull=True
    ).first()


@register.inclusion_tag("rules/ceremony.html", takes_context=True)
def ceremony(
    context: RequestContext,
    form: ProofForm,
    *,
    purpose: str,
    subject_type: str,
    subject_id: int | str = "",
    subject_field: str = "",
) -> dict[str, object]:
    """What the include shows; each keyword says what the proof will be for."""
    request = context["request"]
    return {
        "form": form,
        "factors": _factors(request),
        "confirmed": _confirmed(request, purpose, subject_type),
        "sso": oidc.is_configured(),
        "goal": request.path,
        "purpose": purpose,
        "subject_type": subject_type,
        "subject_id": subject_id,
        "subject_field": subject_field,
    }
