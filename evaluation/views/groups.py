"""Comparisons: which model may this prompt run on? And the macro-F1 of one release after the other."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods
from django.views.decorators.vary import vary_on_headers

from evaluation.forms import GroupForm
from evaluation.selectors import groups as selectors
from evaluation.services import groups as services
from pld_app.access import UserRequest, roles_required
from pld_app.errors import Refusal
from pld_app.models import Role
from rules.models import Split, Task
from rules.selectors.tasks import task_get

PER_PAGE = 25


@roles_required()
@require_GET
def group_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    page = Paginator(selectors.group_list(task), PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "evaluation/group_list.html", {"task": task, "page": page})


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def group_new(request: UserRequest, slug: str) -> HttpResponse:
    """The form; a POST shows what the comparison would take, and one that confirms this estimate starts it."""
    task = task_get(slug)
    form = GroupForm(request.POST if request.method == "POST" else None, task=task)
    context: dict[str, Any] = {"task": task, "form": form}
    status = 200
    if form.is_valid():
        confirmed = request.POST.get("confirmed", "")
        if confirmed:
            group = services.group_create(task=task, user=request.user, confirmed=confirmed, **form.arguments())
            messages.success(request, _("Comparison %(n)s has started.") % {"n": group.number})
            return redirect("evaluation-group", slug=slug, number=group.number)
        context["matrix"], context["refused"] = _estimate(task, form)
        status = 422 if context["refused"] else 200
    return render(request, "evaluation/group_new.html", context, status=422 if form.errors else status)


def _estimate(task: Task, form: GroupForm) -> tuple[services.Matrix | None, str]:
    try:
        return services.group_estimate(task=task, **form.arguments()), ""
    except Refusal as refusal:
        return None, str(refusal.user_message)


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def group_detail(request: UserRequest, slug: str, number: int) -> HttpResponse:
    group = selectors.group_get(slug, number)
    table = selectors.group_table(group)
    context = {"task": group.task, "group": group, "table": table, "on_validation": group.split == Split.VALIDATION}
    template = "evaluation/group_detail.html" + ("#table" if request.htmx and table.open_runs else "")
    response = render(request, template, context)
    if request.htmx and not table.open_runs:
        response["HX-Refresh"] = "true"
    return response


@roles_required()
@require_GET
def release_figures(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    context = {"task": task, "series": selectors.release_series(task)}
    return render(request, "evaluation/release_figures.html", context)
