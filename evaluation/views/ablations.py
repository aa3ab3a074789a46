"""Ablations: the list, estimating and starting one, watching it, reading what it found, taking it out."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from evaluation import exports_ablation as exports
from evaluation.forms_ablation import AblationForm, RaiseForm
from evaluation.models import Ablation
from evaluation.selectors import ablations as selectors
from evaluation.services import ablations as services
from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput, Refusal
from pld_app.models import Role
from rules.models import RunState
from rules.selectors.tasks import task_get

PER_PAGE = 25


@roles_required()
@require_GET
def ablation_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    page = Paginator(selectors.ablation_list(task), PER_PAGE).get_page(request.GET.get("page"))
    context = {"task": task, "page": page, "has_runs": selectors.ablatable_runs(task).exists()}
    return render(request, "evaluation/ablation_list.html", context)


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def ablation_new(request: UserRequest, slug: str) -> HttpResponse:
    """The form; a POST shows what the ablation would take, and one that confirms this estimate starts it."""
    task = task_get(slug)
    posted = request.POST if request.method == "POST" else None
    form = AblationForm(posted, task=task, run=request.GET.get("run", ""))
    context: dict[str, Any] = {"task": task, "form": form}
    status = 422 if form.errors else 200
    if form.is_valid():
        confirmed = request.POST.get("confirmed", "")
        if confirmed:
            made = services.ablation_create(user=request.user, confirmed=confirmed, **form.arguments())
            messages.success(request, _("Ablation %(n)s has started.") % {"n": made.number})
            return redirect("evaluation-ablation", slug=slug, number=made.number)
        context["plan"], context["refused"] = _plan(form)
        status = 422 if context["refused"] else 200
    return render(request, "evaluation/ablation_new.html", context, status=status)


def _plan(form: AblationForm) -> tuple[services.AblationPlan | None, str]:
    try:
        return services.ablation_plan(**form.arguments()), ""
    except Refusal as refusal:
        return None, str(refusal.user_message)


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def ablation_detail(request: UserRequest, slug: str, number: int) -> HttpResponse:
    ablation = selectors.ablation_get(slug, number)
    if request.htmx and not ablation.is_final and ablation.state != RunState.PAUSED:
        return render(request, "evaluation/ablation_detail.html#progress", _context(ablation))
    sort = request.GET.get("sort", "position")
    table = selectors.ablation_table(ablation, sort)
    form = RaiseForm(initial=_raised(ablation)) if ablation.state == RunState.PAUSED else None
    context = _context(ablation) | {"table": table, "sort": sort, "raise_form": form}
    response = render(request, "evaluation/ablation_detail.html", context)
    if request.htmx:
        # It has ended or paused since the last look: the page has more to show than its progress.
        response["HX-Refresh"] = "true"
    return response


def _context(ablation: Ablation) -> dict[str, Any]:
    return {"task": ablation.task, "ablation": ablation, "run": ablation.run}


def _raised(ablation: Ablation) -> dict[str, Any]:
    """What is left, on top of what is used."""
    open_calls = max(1, ablation.total - ablation.done)
    return {"max_calls": ablation.calls_used + open_calls, "max_cost": ablation.max_cost}


@roles_required(Role.ADMIN)
@require_POST
def ablation_cancel(request: UserRequest, slug: str, number: int) -> HttpResponse:
    services.ablation_cancel(ablation_id=selectors.ablation_get(slug, number).pk, user=request.user)
    messages.success(request, _("The ablation stops before its next model call. What was measured is kept."))
    return redirect("evaluation-ablation", slug=slug, number=number)


@roles_required(Role.ADMIN)
@require_POST
def ablation_raise(request: UserRequest, slug: str, number: int) -> HttpResponse:
    ablation = selectors.ablation_get(slug, number)
    form = RaiseForm(request.POST)
    if not form.is_valid():
        raise InvalidInput(
            _("Say how many calls it may make in all, and how much money it may cost if that is bounded.")
        )
    services.ablation_raise(ablation_id=ablation.pk, user=request.user, **form.cleaned_data)
    messages.success(request, _("The ablation goes on within this budget."))
    return redirect("evaluation-ablation", slug=slug, number=number)


@roles_required()
@require_GET
def ablation_export(request: UserRequest, slug: str, number: int, kind: str) -> HttpResponse:
    if kind not in exports.KINDS:
        raise Http404
    ablation = selectors.ablation_get(slug, number)
    text = exports.ablation_export(ablation=ablation, kind=kind, actor=request.user)
    response = HttpResponse(text, content_type=exports.KINDS[kind])
    response["Content-Disposition"] = f'attachment; filename="{slug}-ablation-{number}.{kind}"'
    return response
