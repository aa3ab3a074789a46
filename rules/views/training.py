"""Training records: a reviewer reads their own, administrators and auditors all; administrators grant and end them."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.forms.training import TrainingEndForm, TrainingForm
from rules.models import TrainingRecord
from rules.selectors import training as selectors
from rules.services import training as services

PER_PAGE = 25


@roles_required(Role.REVIEWER, Role.ADMIN, Role.AUDITOR)
@require_GET
def training(request: UserRequest) -> HttpResponse:
    return _page(request, None)


def _page(request: UserRequest, form: TrainingForm | None) -> HttpResponse:
    is_reviewer = request.user.role == Role.REVIEWER
    records = selectors.newest_records().order_by("person__display_name", "domain", "pk")
    history = TrainingRecord.objects.select_related("person", "granted_by")
    if is_reviewer:
        records, history = records.filter(person=request.user), history.filter(person=request.user)
    may_grant = request.user.role == Role.ADMIN
    context = {
        "page": Paginator(records, PER_PAGE).get_page(request.GET.get("page")),
        "history": history[:PER_PAGE],
        "today": selectors.database_today(),
        "untrained": [] if is_reviewer else selectors.untrained_reviewers(),
        "admins": selectors.admins_named(),
        "may_grant": may_grant,
        "form": (form or TrainingForm()) if may_grant else None,
        "end_form": TrainingEndForm(),
    }
    return render(request, "rules/training.html", context, status=422 if form else 200)


@roles_required(Role.ADMIN)
@require_POST
def training_grant(request: UserRequest) -> HttpResponse:
    form = TrainingForm(request.POST)
    if form.is_valid():
        try:
            record = services.training_grant(admin=request.user, **form.cleaned_data)
        except InvalidInput as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, _("Recorded for %(name)s.") % {"name": record.person})
            return redirect("training")
    return _page(request, form)


@roles_required(Role.ADMIN)
@require_POST
def training_end(request: UserRequest, pk: int) -> HttpResponse:
    record = get_object_or_404(TrainingRecord, pk=pk)
    form = TrainingEndForm(request.POST)
    if not form.is_valid():
        raise InvalidInput(_("Say why it ends, in at most 300 characters."))
    services.training_end(record_id=record.pk, note=form.cleaned_data["note"], admin=request.user)
    messages.success(request, _("Ended: it counts no more from this moment."))
    return redirect("training")
