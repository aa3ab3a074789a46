"""The sign-off policy of a task: what is in force, what is proposed, what was before."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.models import Role
from rules.forms.policy import PolicyDecisionForm, PolicyForm
from rules.models import PolicyVerdict, SignOffPolicy, Task
from rules.selectors import policy as selectors
from rules.selectors.tasks import task_get
from rules.services.policy import policy_decide, policy_propose

PER_PAGE = 25


@roles_required()
@require_GET
def policy(request: UserRequest, slug: str) -> HttpResponse:
    return _page(request, task_get(slug))


def _page(
    request: UserRequest, task: Task, form: PolicyForm | None = None, decision_form: PolicyDecisionForm | None = None
) -> HttpResponse:
    state = selectors.policy_state(task)
    role = request.user.role
    shown = {"version": state.proposed.version if state.proposed else 0}
    is_proposer = state.proposed is not None and state.proposed.proposed_by_id == request.user.pk
    context: dict[str, Any] = {  # a template's context has no closed type
        "task": task,
        "state": state,
        "form": form or PolicyForm.of(state.in_force),
        "can_propose": role == Role.ADMIN and state.proposed is None,
        "can_confirm": role in {Role.ADMIN, Role.SIGNATORY} and not is_proposer,
        "can_refuse": role in {Role.ADMIN, Role.SIGNATORY},
        "decision_form": decision_form or PolicyDecisionForm(initial=shown, auto_id="decision-%s"),
        "page": Paginator(selectors.policy_history(task), PER_PAGE).get_page(request.GET.get("page")),
    }
    failed = (form is not None and form.errors) or (decision_form is not None and decision_form.errors)
    return render(request, "rules/policy.html", context, status=422 if failed else 200)


@roles_required(Role.ADMIN)
@require_POST
def propose(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = PolicyForm(request.POST, auto_id="policy-%s")
    if form.is_valid():
        with form.refusals():
            proposed = policy_propose(task=task, actor=request.user, proof=form.proof(request), **form.said)
            message = _("Proposed %(policy)s. A second administrator or a signatory confirms it.")
            messages.success(request, message % {"policy": proposed})
            return redirect("policy", slug=slug)
    return _page(request, task, form=form)


@roles_required(Role.ADMIN, Role.SIGNATORY)
@require_POST
def decide(request: UserRequest, slug: str, version: int, verdict: str) -> HttpResponse:
    found = get_object_or_404(SignOffPolicy.objects.only("pk"), task__slug=slug, version=version)
    form = PolicyDecisionForm(request.POST, auto_id="decision-%s")
    if form.is_valid() and form.cleaned_data["version"] == version:
        with form.refusals():
            decision = policy_decide(policy_id=found.pk, actor=request.user, verdict=verdict, proof=form.proof(request))
            messages.success(request, _decided_words(decision.verdict))
            return redirect("policy", slug=slug)
    return _page(request, task_get(slug), decision_form=form)


def _decided_words(verdict: str) -> str:
    if verdict == PolicyVerdict.CONFIRMED:
        return _("Confirmed. It is in force: rulesets frozen before it have to be frozen again.")
    return _("Refused. The policy stays as it was.")
