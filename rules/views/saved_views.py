"""Keeping a view of the queue under an address of its own."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.models import Role
from rules.models import Task
from rules.selectors.saved_views import query_of, saved_view_get
from rules.services import saved_views as services
from rules.views.review import queue_response
from rules.views.review_links import view_of


@roles_required()
@require_GET
def saved_view(request: UserRequest, slug: str, view: str) -> HttpResponse:
    """The queue as the view has it; what the address says beside it narrows further."""
    task = get_object_or_404(Task, slug=slug)
    saved = saved_view_get(task, view, request.user)
    return queue_response(request, task, query_of(saved) | request.GET.dict(), saved=saved)


@roles_required(Role.REVIEWER, Role.SIGNATORY, Role.ADMIN)
@require_POST
def saved_view_new(request: UserRequest, slug: str) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    saved = services.saved_view_save(
        task=task,
        owner=request.user,
        name=request.POST.get("name", ""),
        audience=request.POST.get("audience", ""),
        view=view_of(request, task),
    )
    messages.success(request, _("Kept as “%(name)s”.") % {"name": saved.name})
    return redirect(reverse("saved-view", args=[slug, saved.slug]))


@roles_required(Role.REVIEWER, Role.SIGNATORY, Role.ADMIN)
@require_POST
def saved_view_delete(request: UserRequest, slug: str, view: str) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    saved = saved_view_get(task, view, request.user)
    services.saved_view_delete(saved=saved, by=request.user)
    messages.success(request, _("“%(name)s” is deleted.") % {"name": saved.name})
    return redirect("review-queue", slug)
