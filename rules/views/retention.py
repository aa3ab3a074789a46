"""Retention periods and legal holds: for administrators and second persons, to be read by auditors."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.forms.retention import HoldForm, HoldReleaseForm, RetentionForm, SecondForm
from rules.models import Erasure, LegalHold, PolicyVerdict, RetentionPolicy
from rules.selectors import retention as selectors
from rules.services import retention as services

PER_PAGE = 25
READERS = (Role.ADMIN, Role.AUDITOR, Role.SIGNATORY)


@roles_required(*READERS)
@require_GET
def retention(request: UserRequest) -> HttpResponse:
    return _page(request)


def _page(request: UserRequest, second: SecondForm | HoldReleaseForm | None = None, **forms: Any) -> HttpResponse:
    """`second` is a second person's form that came back with errors, in place of the empty one of its row."""
    role = request.user.role
    page = Paginator(selectors.holds(), PER_PAGE).get_page(request.GET.get("page"))
    context: dict[str, Any] = {  # a template's context has no closed type
        "kept": selectors.retention_table(),
        "proposals": [(one, _form_of(SecondForm, one.pk, second)) for one in selectors.proposals()],
        "page": page,
        "holds": [(one, _form_of(HoldReleaseForm, one.pk, second)) for one in page],
        "erasures": Erasure.objects.select_related("decision")[:PER_PAGE],
        "prunable": selectors.prunable(),
        "can_act": role == Role.ADMIN,
        "can_decide": role in services.DECIDERS,
        "form": RetentionForm(auto_id="retention-%s"),
        "hold_form": HoldForm(auto_id="hold-%s"),
    }
    failed = second is not None or any(form.errors for form in forms.values())
    return render(request, "rules/retention.html", context | forms, status=422 if failed else 200)


def _ids(pk: int) -> str:
    """A form of each row has ids of its own: two elements of one page never share one."""
    return f"row{pk}-%s"


def _form_of[F: (SecondForm, HoldReleaseForm)](kind: type[F], pk: int, came_back: object) -> F:
    return came_back if isinstance(came_back, kind) and came_back.auto_id == _ids(pk) else kind(auto_id=_ids(pk))


@roles_required(Role.ADMIN)
@require_POST
def propose(request: UserRequest) -> HttpResponse:
    form = RetentionForm(request.POST, auto_id="retention-%s")
    if form.is_valid():
        try:
            services.retention_propose(actor=request.user, **form.cleaned_data)
        except InvalidInput as refusal:
            form.add_error(None, str(refusal))
        else:
            messages.success(request, _("Proposed. Another administrator or a signatory confirms it."))
            return redirect("retention")
    return _page(request, form=form)


@roles_required(*services.DECIDERS)
@require_POST
def decide(request: UserRequest, pk: int, verdict: str) -> HttpResponse:
    policy = get_object_or_404(RetentionPolicy.objects.only("pk"), pk=pk)
    form = SecondForm(request.POST, auto_id=_ids(pk))
    if form.is_valid():
        with form.refusals():
            services.retention_decide(
                policy_id=policy.pk, actor=request.user, verdict=verdict, proof=form.proof(request)
            )
            confirmed = verdict == PolicyVerdict.CONFIRMED
            messages.success(request, _("Confirmed.") if confirmed else _("Refused. Nothing was changed."))
            return redirect("retention")
    return _page(request, form)


@roles_required(Role.ADMIN)
@require_POST
def hold_new(request: UserRequest) -> HttpResponse:
    form = HoldForm(request.POST, auto_id="hold-%s")
    if form.is_valid():
        hold = services.hold_place(actor=request.user, **form.cleaned_data)
        messages.success(request, _("%(what)s is held from now on: nothing of it is removed.") % {"what": hold})
        return redirect("retention")
    return _page(request, hold_form=form)


@roles_required(*services.DECIDERS)
@require_POST
def hold_end(request: UserRequest, pk: int) -> HttpResponse:
    hold = get_object_or_404(LegalHold.objects.only("pk"), pk=pk)
    form = HoldReleaseForm(request.POST, auto_id=_ids(pk))
    if form.is_valid():
        with form.refusals():
            services.hold_release(hold_id=hold.pk, actor=request.user, proof=form.proof(request), **form.said)
            messages.success(request, _("The hold is released: periods and erasures count again."))
            return redirect("retention")
    return _page(request, form)
