"""How one person reads and which keys they press."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from rules.models import ReadingFont
from rules.review_keys import ACTIONS, PRESETS
from rules.selectors.review_preference import preference_of
from rules.services import preferences as services


@roles_required()
@require_http_methods(["GET", "POST"])
def preferences(request: UserRequest) -> HttpResponse:
    """One's own typeface and keys; refused keys come back as they were typed, with what is wrong with them."""
    error = ""
    if request.method == "POST":
        try:
            return _saved(request)
        except InvalidInput as refusal:
            error = str(refusal.user_message)
    stored = preference_of(request.user)
    sent = request.POST if error else {}
    keys = {action: sent.get(f"key-{action}", stored.own_keys[action]) for action in PRESETS}
    context = {
        "error": error,
        "fonts": ReadingFont.choices,
        "font": sent.get("font", stored.font),
        "keys_on": bool(sent.get("keys_on")) if error else stored.keys_on,
        "rows": [(action, name, keys[action], PRESETS[action]) for action, (_key, name) in ACTIONS.items()],
    }
    return render(request, "rules/preferences.html", context, status=422 if error else 200)


def _saved(request: UserRequest) -> HttpResponse:
    if "reset" in request.POST:
        services.preference_reset_keys(user=request.user)
        messages.success(request, _("All keys are as they came."))
        return redirect("preferences")
    chosen = {action: request.POST.get(f"key-{action}", "") for action in PRESETS}
    font = request.POST.get("font", ReadingFont.SERIF)
    services.preference_save(user=request.user, font=font, keys_on=bool(request.POST.get("keys_on")), keys=chosen)
    messages.success(request, _("Saved."))
    return redirect("preferences")
