"""The student's side: who is told of changes, and what was served when."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.forms.student import ServedForm, WebhookForm
from rules.models import ChannelName, Task, WebhookDelivery, WebhookTarget
from rules.selectors import served as served_selectors
from rules.selectors.tasks import task_get
from rules.services.webhooks import webhook_create, webhook_retire

PER_PAGE = 25


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_GET
def webhooks(request: UserRequest, slug: str) -> HttpResponse:
    return _page(request, task_get(slug), WebhookForm(auto_id="webhook-%s"))


def _page(request: UserRequest, task: Task, form: WebhookForm) -> HttpResponse:
    deliveries = WebhookDelivery.objects.filter(target__task=task).select_related("target")
    context = {
        "task": task,
        "form": form,
        "can_manage": request.user.role == Role.ADMIN,
        "targets": task.webhooks.select_related("created_by"),
        "page": Paginator(deliveries, PER_PAGE).get_page(request.GET.get("page")),
    }
    return render(request, "rules/webhooks.html", context, status=422 if form.errors else 200)


@roles_required(Role.ADMIN)
@require_POST
def webhook_new(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = WebhookForm(request.POST, auto_id="webhook-%s")
    if form.is_valid():
        try:
            target = webhook_create(task=task, actor=request.user, **form.cleaned_data)
        except InvalidInput as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, _("%(name)s will be told of every change.") % {"name": target})
            return redirect("webhooks", slug=slug)
    return _page(request, task, form)


@roles_required(Role.ADMIN)
@require_POST
def webhook_end(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    target = get_object_or_404(WebhookTarget.objects.only("pk"), task__slug=slug, pk=pk)
    target = webhook_retire(target_id=target.pk, actor=request.user)
    messages.success(request, _("%(name)s is told nothing any more.") % {"name": target})
    return redirect("webhooks", slug=slug)


@roles_required()
@require_GET
def served(request: UserRequest, slug: str) -> HttpResponse:
    """What a channel served at a moment, who approved, signed and published it, and who fetched it.

    Without a question: what production serves now, so that the present is one click away.
    """
    task = task_get(slug)
    now = {"channel": ChannelName.PRODUCTION, "at": timezone.now().strftime("%Y-%m-%dT%H:%M:%S")}
    form = ServedForm(request.GET if "at" in request.GET else now, auto_id="served-%s")
    answer = None
    if form.is_valid():
        # The field knows whole seconds: what went live within this one is served now all the same.
        at = form.cleaned_data["at"] if "at" in request.GET else timezone.now()
        answer = served_selectors.served(task, form.cleaned_data["channel"], at)
    context = {
        "task": task,
        "form": form,
        "answer": answer,
        "at": form.cleaned_data.get("at"),
        "page": Paginator(served_selectors.reads(task), PER_PAGE).get_page(request.GET.get("page")),
    }
    return render(request, "rules/served.html", context)
