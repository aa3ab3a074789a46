"""Giving an instruction to a reviewer or a pool, and saying when one is away."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import Refusal
from pld_app.models import Role, User
from rules.forms.assignments import AbsenceForm, AssignmentForm
from rules.models import Absence
from rules.selectors import review as selectors
from rules.services import assignments as services
from rules.views.review_links import card_url, view_of


@roles_required(Role.REVIEWER, Role.ADMIN)
@require_http_methods(["GET", "POST"])
def assignment(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """Whose work an instruction is, and the form that changes it."""
    instruction = selectors.instruction_get(slug, number)
    current = getattr(instruction, "assignment", None)
    form = AssignmentForm(request.POST if request.method == "POST" else None, current=current)
    view = view_of(request, instruction.task)
    if request.method == "POST" and form.is_valid():
        try:
            said = _assign(request, instruction.pk, form)
        except Refusal as refusal:
            form.add_error(None, str(refusal.user_message))
        else:
            messages.success(request, said % {"number": number})
            return redirect(card_url(instruction.task, number, view))
    context = {"form": form, "task": instruction.task, "instruction": instruction, "current": current, "view": view}
    return render(request, "rules/assignment.html", context, status=422 if form.errors else 200)


def _assign(request: UserRequest, instruction_id: int, form: AssignmentForm) -> str:
    sent = form.cleaned_data
    if not sent["to"]:
        services.assignment_clear(instruction_id=instruction_id, by=request.user)
        return _("Instruction %(number)s is nobody's in particular now.")
    services.assignment_set(
        instruction_id=instruction_id, by=request.user, person=form.person, pool=form.pool, due_on=sent["due_on"]
    )
    return _("Instruction %(number)s is assigned.")


@roles_required(Role.REVIEWER, Role.ADMIN)
@require_http_methods(["GET", "POST"])
def absences(request: UserRequest) -> HttpResponse:
    """Who is away and who stands in; a reviewer says it of themselves, an administrator of anybody."""
    is_admin = request.user.role == Role.ADMIN
    form = AbsenceForm(request.POST if request.method == "POST" else None, by=request.user)
    if request.method == "POST" and form.is_valid():
        try:
            services.absence_set(by=request.user, **form.cleaned_data)
        except Refusal as refusal:
            form.add_error(None, str(refusal.user_message))
        else:
            messages.success(request, _("Noted. Work goes to the deputy on those days, and comes back by itself."))
            return redirect("absences")
    rows = Absence.objects.select_related("person", "deputy").filter(ends_on__gte=timezone.now().date())
    page = Paginator(rows.order_by("starts_on", "person__display_name"), 25).get_page(request.GET.get("page"))
    context = {"form": form, "page": page, "is_admin": is_admin}
    return render(request, "rules/absences.html", context, status=422 if form.errors else 200)


@roles_required(Role.REVIEWER, Role.ADMIN)
@require_POST
def absence_end(request: UserRequest, pk: int) -> HttpResponse:
    person = get_object_or_404(User, pk=pk)
    services.absence_end(person=person, by=request.user)
    messages.success(request, _("%(name)s is back.") % {"name": person})
    return redirect("absences")
