"""The home page and a task's overview and settings."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from pld_app.access import UserRequest, roles_required
from pld_app.models import Role
from rules.forms.tasks import TaskForm
from rules.models import Task
from rules.selectors import tasks as selectors
from rules.services import tasks as services

PER_PAGE = 25


@roles_required()
@require_GET
def home(request: UserRequest) -> HttpResponse:
    page = Paginator(selectors.task_list(request.user), PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "rules/home.html", {"page": page})


@roles_required()
@require_GET
def overview(request: UserRequest, slug: str) -> HttpResponse:
    task = selectors.task_get(slug)
    context = {"task": task, "overview": selectors.task_overview(task, request.user)}
    return render(request, "rules/task_overview.html", context)


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def task_new(request: UserRequest) -> HttpResponse:
    return _task_form(request, None)


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def task_edit(request: UserRequest, slug: str) -> HttpResponse:
    return _task_form(request, selectors.task_get(slug))


def _task_form(request: UserRequest, task: Task | None) -> HttpResponse:
    form = TaskForm(request.POST if request.method == "POST" else None, instance=task)
    if request.method == "POST" and form.is_valid():
        saved = services.task_save(task=form.save(commit=False), user=request.user, changed=form.changed_data)
        messages.success(request, _("Saved %(task)s.") % {"task": saved.name})
        return redirect("task", slug=saved.slug)
    status = 422 if form.errors else 200
    return render(request, "rules/task_form.html", {"form": form, "task": task}, status=status)
