"""Drift: how releases do over time, when production is asked again, and what that may cost."""

from decimal import Decimal
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from evaluation.forms_reevaluation import PlanForm
from evaluation.models import Cause
from evaluation.selectors import drift as selectors
from evaluation.services import reevaluation as services
from pld_app.access import UserRequest, roles_required
from pld_app.errors import Refusal
from pld_app.model_edge import EndpointMisconfigured
from pld_app.models import Role
from rules.models import ChannelName, Task
from rules.selectors.publishing import current_release, release_get
from rules.selectors.tasks import task_get

PER_PAGE = 25


@roles_required()
@require_GET
def drift(request: UserRequest, slug: str) -> HttpResponse:
    return _page(request, task_get(slug))


def _page(request: UserRequest, task: Task, form: PlanForm | None = None) -> HttpResponse:
    plan = services.plan_of(task)
    context: dict[str, Any] = {  # a template's context has no closed type
        "task": task,
        "series": selectors.drift_series(task),
        "plan": plan,
        "spent": services.spent(task),
        "served": current_release(task, ChannelName.PRODUCTION),
        "page": Paginator(selectors.reevaluations(task), PER_PAGE).get_page(request.GET.get("page")),
    }
    context["estimate"], context["estimate_refused"] = _estimate(task)
    if request.user.role == Role.ADMIN:
        context["form"] = form or PlanForm.of(plan)
    return render(request, "evaluation/drift.html", context, status=422 if form else 200)


def _estimate(task: Task) -> tuple[Decimal | None, str]:
    """What one re-evaluation of production could cost, or why there can be none."""
    served = current_release(task, ChannelName.PRODUCTION)
    if served is None:
        return None, _("Production serves nothing, so there is nothing to ask again.")
    served.task = task
    try:
        wanted = services.targets(task, services.plan_of(task))
        return sum((services.reevaluation_estimate(served, one) for one in wanted), Decimal(0)), ""
    except Refusal as refusal:
        return None, str(refusal.user_message)
    except EndpointMisconfigured as error:
        return None, str(error)


@roles_required(Role.ADMIN)
@require_POST
def plan_save(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = PlanForm(request.POST, auto_id="plan-%s")
    if not form.is_valid():
        return _page(request, task, form=form)
    services.plan_set(task=task, actor=request.user, **form.cleaned_data)
    messages.success(request, _("Confirmed. It counts from now on."))
    return redirect("evaluation-drift", slug=slug)


@roles_required(Role.ADMIN)
@require_POST
def reevaluate(request: UserRequest, slug: str, version: int) -> HttpResponse:
    release = release_get(slug, version)
    started = services.reevaluation_start(release=release, cause=Cause.PERSON, user=request.user)
    messages.success(
        request, _("%(release)s is asked again as evaluation %(n)d.") % {"release": release, "n": started.run.number}
    )
    return redirect("evaluation-detail", slug=slug, number=started.run.number)
