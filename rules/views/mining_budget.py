"""Confirming what a mining run may cost, and raising it."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.models import MiningRun, RunState
from rules.selectors.mining_budget import budget_preset, run_spending
from rules.services.mining import mining_run_release


class BudgetForm(forms.Form):
    """`refused` holds why the service did not take the values."""

    max_calls = forms.IntegerField(
        label=gettext_lazy("Most calls"),
        required=False,
        min_value=1,
        max_value=2**31 - 1,
        help_text=gettext_lazy("In all, over the whole run. Empty: no limit on calls."),
    )
    max_cost = forms.DecimalField(
        label=gettext_lazy("Most money"),
        required=False,
        min_value=0,
        max_digits=14,
        decimal_places=6,
        help_text=gettext_lazy("In the currency of the endpoint's prices. Empty: no limit on money."),
    )
    refused: str = ""


def budget_context(run: MiningRun, form: BudgetForm | None = None) -> dict[str, Any]:
    """What templates/rules/mining_budget.html needs."""
    waits = run.state in {RunState.AWAITING, RunState.PAUSED}
    fresh = BudgetForm(initial=budget_preset(run)) if waits else None
    return {"spending": run_spending(run), "budget_form": form or fresh}


@roles_required(Role.ADMIN)
@require_POST
def mining_release(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    """Let the run begin or go on within the budget of the form."""
    run = get_object_or_404(MiningRun.objects.select_related("task"), task__slug=slug, pk=pk)
    form = BudgetForm(request.POST)
    if form.is_valid():
        try:
            mining_run_release(run_id=run.pk, user=request.user, **form.cleaned_data)
        except InvalidInput as error:
            form.refused = str(error)
        else:
            messages.success(request, _("The run goes on within this budget."))
            return redirect("mining-detail", slug=slug, pk=pk)
    context = {"task": run.task, "run": run, **budget_context(run, form)}
    return render(request, "rules/mining_release.html", context, status=422)
