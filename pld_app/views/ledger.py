"""The ledger of model calls: which were made, for which run, what they cost, and what came back."""

from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.db.models import Count, QuerySet, Sum
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from pld_app.model_edge import Outcome
from pld_app.model_edge.ledger import DUPLICATE
from pld_app.models import ModelCall, ModelEndpoint, Role

PER_PAGE = 25
RUNS_SHOWN = 25
_TOTALS = {
    "calls": Count("pk"),
    "attempts": Sum("attempts"),
    "prompt_tokens": Sum("prompt_tokens"),
    "completion_tokens": Sum("completion_tokens"),
    "cost": Sum("cost"),
}
# What a list shows; replies, texts and vectors stay in the table until one call is opened.
_LONG = ("text", "vectors", "raw_reply")
_PURPOSES = (
    ("extract", _("Extract micro-rules")),
    ("embed", _("Embed")),
    ("synthesize", _("Write instructions")),
    ("evaluate", _("Evaluate")),
)


class LedgerFilter(forms.Form):
    """Filters of the ledger, all optional; an unknown value is an error, not an empty page."""

    endpoint = forms.ModelChoiceField(
        ModelEndpoint.objects.all(), required=False, label=_("Endpoint"), empty_label=_("All")
    )
    purpose = forms.ChoiceField(required=False, label=_("Purpose"), choices=[("", _("All")), *_PURPOSES])
    outcome = forms.ChoiceField(
        required=False,
        label=_("Outcome"),
        choices=[("", _("All")), *((value, value.replace("_", " ")) for value in (*map(str, Outcome), DUPLICATE))],
    )
    run = forms.CharField(required=False, label=_("Run"), max_length=120)

    def calls(self) -> QuerySet[ModelCall]:
        """The calls that match, newest first; none when the filter is invalid."""
        calls = ModelCall.objects.order_by("-pk")
        if not self.is_valid():
            return calls.none()
        chosen = {name: value for name, value in self.cleaned_data.items() if value}
        return calls.filter(**chosen)


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_GET
def ledger_list(request: UserRequest) -> HttpResponse:
    form = LedgerFilter(request.GET)
    calls = form.calls()
    page = Paginator(calls.select_related("endpoint").defer(*_LONG), PER_PAGE).get_page(request.GET.get("page"))
    runs = calls.order_by().values("run").annotate(**_TOTALS).order_by("-cost", "run")[:RUNS_SHOWN]
    context: dict[str, Any] = {"form": form, "page": page, "totals": calls.aggregate(**_TOTALS), "runs": runs}
    return render(request, "pld_app/ledger_list.html", context, status=422 if form.errors else 200)


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_GET
def ledger_call(request: UserRequest, pk: int) -> HttpResponse:
    """One call with its reply as it came, shown as text."""
    call = get_object_or_404(ModelCall.objects.select_related("endpoint").defer("vectors"), pk=pk)
    return render(request, "pld_app/ledger_call.html", {"call": call})
