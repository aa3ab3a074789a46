"""The inbox of a person: messages, read marks, and what comes by e-mail too."""

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.models import Notification
from pld_app.notifications import mail_choices, mail_choices_set, notifications_read

PER_PAGE = 25


@roles_required()
@require_GET
def inbox(request: UserRequest) -> HttpResponse:
    mine = Notification.objects.filter(user=request.user)
    context = {
        "page": Paginator(mine, PER_PAGE).get_page(request.GET.get("page")),
        "choices": mail_choices(request.user),
        "mail_possible": settings.MAIL_CONFIGURED and bool(request.user.email),
    }
    return render(request, "pld_app/inbox.html", context)


@roles_required()
@require_POST
def inbox_open(request: UserRequest, pk: int) -> HttpResponse:
    """Mark a message as read and go to what it is about."""
    note = Notification.objects.filter(user=request.user, pk=pk).first()
    if note is None:
        return redirect("inbox")
    notifications_read(user=request.user, notification_id=note.pk)
    return redirect(note.url or "inbox")


@roles_required()
@require_POST
def inbox_read_all(request: UserRequest) -> HttpResponse:
    notifications_read(user=request.user)
    return redirect("inbox")


@roles_required()
@require_POST
def inbox_choices(request: UserRequest) -> HttpResponse:
    chosen = set(request.POST.getlist("kind"))
    wanted = {kind.name: kind.name in chosen for kind, _now in mail_choices(request.user)}
    mail_choices_set(user=request.user, wanted=wanted)
    messages.success(request, _("Kept what comes by e-mail."))
    return redirect("inbox")
