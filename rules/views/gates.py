"""The gates of a task: what is in force, what is proposed, what was before; and a signed exception for a release."""

from typing import Any

from django.contrib import messages
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.models import Role
from rules.forms.gates import GateExceptionForm, GatesDecisionForm, GatesForm
from rules.models import GatePolicy, PolicyVerdict, Task
from rules.selectors import gates as selectors
from rules.selectors.publishing import release_get
from rules.selectors.tasks import task_get
from rules.services.gates import gate_exception_sign, gates_decide, gates_propose
from rules.views.publishing import release_page

PER_PAGE = 25


@roles_required()
@require_GET
def gates(request: UserRequest, slug: str) -> HttpResponse:
    return _page(request, task_get(slug))


def _page(
    request: UserRequest, task: Task, form: GatesForm | None = None, decision_form: GatesDecisionForm | None = None
) -> HttpResponse:
    state = selectors.gate_state(task)
    role = request.user.role
    may_decide = role in {Role.ADMIN, Role.SIGNATORY}
    is_proposer = state.proposed is not None and state.proposed.proposed_by_id == request.user.pk
    shown = {"version": state.proposed.version if state.proposed else 0}
    context: dict[str, Any] = {  # a template's context has no closed type
        "task": task,
        "state": state,
        "validation": selectors.validation(task, state.in_force),
        "form": form or GatesForm.of(task, state.in_force),
        "can_propose": role == Role.ADMIN and state.proposed is None,
        "can_confirm": may_decide and not is_proposer,
        "can_refuse": may_decide,
        "decision_form": decision_form or GatesDecisionForm(initial=shown, auto_id="decision-%s"),
        "page": Paginator(selectors.gate_history(task), PER_PAGE).get_page(request.GET.get("page")),
    }
    failed = (form is not None and form.errors) or (decision_form is not None and decision_form.errors)
    return render(request, "rules/gates.html", context, status=422 if failed else 200)


@roles_required(Role.ADMIN)
@require_POST
def propose(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = GatesForm(request.POST, task=task, auto_id="gates-%s")
    if form.is_valid():
        try:
            with form.refusals(NON_FIELD_ERRORS):
                proposed = gates_propose(task=task, actor=request.user, proof=form.proof(request), **form.points)
                message = _("Proposed %(gates)s. A second administrator or a signatory confirms them.")
                messages.success(request, message % {"gates": proposed})
                return redirect("gates", slug=slug)
        except ValidationError as error:
            form.add_error(None, error.messages)
    return _page(request, task, form=form)


@roles_required(Role.ADMIN, Role.SIGNATORY)
@require_POST
def decide(request: UserRequest, slug: str, version: int, verdict: str) -> HttpResponse:
    found = get_object_or_404(GatePolicy.objects.only("pk"), task__slug=slug, version=version)
    form = GatesDecisionForm(request.POST, auto_id="decision-%s")
    if form.is_valid() and form.cleaned_data["version"] == version:
        with form.refusals():
            decision = gates_decide(policy_id=found.pk, actor=request.user, verdict=verdict, proof=form.proof(request))
            messages.success(request, _decided_words(decision.verdict))
            return redirect("gates", slug=slug)
    return _page(request, task_get(slug), decision_form=form)


def _decided_words(verdict: str) -> str:
    if verdict == PolicyVerdict.CONFIRMED:
        return _("Confirmed. They are in force: what is published from now on must have passed them.")
    return _("Refused. The gates stay as they were.")


@roles_required(Role.SIGNATORY)
@require_POST
def exception(request: UserRequest, slug: str, version: int) -> HttpResponse:
    release = release_get(slug, version)
    form = GateExceptionForm(request.POST, auto_id="exception-%s")
    if form.is_valid():
        with form.refusals(NON_FIELD_ERRORS):
            made = gate_exception_sign(
                release_id=release.pk,
                policy_version=form.cleaned_data["gates"],
                actor=request.user,
                proof=form.proof(request),
                meaning=form.cleaned_data["meaning"],
                reason=form.cleaned_data["reason"],
                expires_at=form.expires_at,
            )
            until = made.expires_at.strftime("%Y-%m-%d")
            messages.success(request, _("Signed. It may be published until the end of %(day)s.") % {"day": until})
            return redirect("release-detail", slug=slug, version=version)
    return release_page(request, release, exception_form=form)
