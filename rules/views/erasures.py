"""Erasures: what would go and what would stay, the request, the second person's word."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.forms.retention import ErasureForm, SecondForm
from rules.models import Erasure, PolicyVerdict
from rules.selectors.retention import Text, text_as_it_stands
from rules.services import erasing
from rules.services.retention import DECIDERS
from rules.views.retention import READERS


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def erasure_new(request: UserRequest) -> HttpResponse:
    """First look at what would go and what would stay, then ask for it: `preview` is the first button."""
    form = ErasureForm(request.POST if request.method == "POST" else None, auto_id="erasure-%s")
    texts: list[Text] = []
    if form.is_bound and form.is_valid():
        said = form.cleaned_data
        try:
            if "preview" not in request.POST:
                made = erasing.erasure_request(actor=request.user, **said)
                messages.success(request, _("Asked for. Nothing is erased before a second person confirms."))
                return redirect("retention-erasure", made.pk)
            texts = erasing.texts_to_erase(said["kind"], said["numbers"])
        except InvalidInput as refusal:
            form.add_error("numbers", str(refusal))
    context = {"form": form, "texts": texts, "held": any(text.is_held for text in texts)}
    return render(request, "rules/erasure_new.html", context, status=422 if form.errors else 200)


@roles_required(*READERS)
@require_GET
def erasure(request: UserRequest, pk: int) -> HttpResponse:
    return _page(request, pk, SecondForm(auto_id="second-%s"))


def _page(request: UserRequest, pk: int, form: SecondForm) -> HttpResponse:
    found = get_object_or_404(Erasure.objects.select_related("decision", "event"), pk=pk)
    is_open = not hasattr(found, "decision")
    can_refuse = is_open and request.user.role in DECIDERS
    context = {
        "erasure": found,
        "items": [(one, *text_as_it_stands(one.kind, one.object_id)) for one in found.items.all()],
        "is_open": is_open,
        "can_refuse": can_refuse,
        "can_confirm": can_refuse and found.actor_id != request.user.pk,
        "form": form,
    }
    return render(request, "rules/erasure.html", context, status=422 if form.errors else 200)


@roles_required(*DECIDERS)
@require_POST
def decide(request: UserRequest, pk: int, verdict: str) -> HttpResponse:
    found = get_object_or_404(Erasure.objects.only("pk"), pk=pk)
    form = SecondForm(request.POST, auto_id="second-%s")
    if form.is_valid():
        with form.refusals():
            erasing.erasure_decide(erasure_id=found.pk, actor=request.user, verdict=verdict, proof=form.proof(request))
            erased = verdict == PolicyVerdict.CONFIRMED
            messages.success(request, _("Erased.") if erased else _("Refused. Nothing was changed."))
            return redirect("retention-erasure", pk)
    return _page(request, pk, form)
