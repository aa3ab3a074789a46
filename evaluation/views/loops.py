"""Loops of conflict resolution: begun, watched, let go on; their groups, and what reviewers write from them."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from evaluation.forms_loops import CandidateForm, LoopForm
from evaluation.models import CaseRole, LoopState, ResolutionGroup, ResolutionLoop
from evaluation.selectors import loops as selectors
from evaluation.selectors.runs import source_of
from evaluation.services import loops as services
from evaluation.services.candidates import group_candidate_write
from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput, NotAllowed, Refusal
from pld_app.models import Role
from rules.models import Task
from rules.selectors.tasks import task_get
from rules.views.mining_budget import BudgetForm


@roles_required()
@require_GET
def loop_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    page = Paginator(selectors.loop_list(task), selectors.PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "evaluation/loop_list.html", {"task": task, "page": page})


@roles_required(Role.ADMIN)
@require_http_methods(["GET", "POST"])
def loop_new(request: UserRequest, slug: str) -> HttpResponse:
    """The form; a POST shows what the loop would take, and one that confirms this estimate begins it."""
    task = task_get(slug)
    form = LoopForm(request.POST if request.method == "POST" else None, task=task)
    context: dict[str, Any] = {"task": task, "form": form}
    status = 422 if form.errors else 200
    if form.is_valid():
        confirmed = request.POST.get("confirmed", "")
        if confirmed:
            loop = services.loop_create(task=task, user=request.user, choice=form.choice(), confirmed=confirmed)
            messages.success(request, _("Loop %(n)s has begun.") % {"n": loop.number})
            return redirect("evaluation-loop", slug=slug, number=loop.number)
        context["estimate"], context["refused"] = _estimate(task, form)
        status = 422 if context["refused"] else 200
    return render(request, "evaluation/loop_new.html", context, status=status)


def _estimate(task: Task, form: LoopForm) -> tuple[services.LoopEstimate | None, str]:
    try:
        return services.loop_estimate(task=task, choice=form.choice()), ""
    except Refusal as refusal:
        return None, str(refusal.user_message)


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def loop_detail(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """The newest round, or with `?round=2` an earlier one; htmx asks for the state while it moves by itself."""
    loop = selectors.loop_get(slug, number)
    context = _loop_context(request, loop)
    moves = loop.is_moving or (loop.is_automatic and loop.state == LoopState.WAITING)
    template = "evaluation/loop_detail.html" + ("#state" if request.htmx and moves else "")
    response = render(request, template, context | {"moves": moves})
    if request.htmx and not moves:
        # It has come to rest since the last look: the page has more to show than its state.
        response["HX-Refresh"] = "true"
    return response


def _loop_context(request: UserRequest, loop: ResolutionLoop, budget: BudgetForm | None = None) -> dict[str, Any]:
    course = selectors.loop_course(loop)
    newest = course.rounds[-1] if course.rounds else None
    wanted = request.GET.get("round", "")
    shown = next((row for row in course.rounds if str(row.round.number) == wanted), newest)
    groups = selectors.round_groups(shown.round) if shown else []
    return {
        "task": loop.task,
        "loop": loop,
        "course": course,
        "newest": newest,
        "shown": shown,
        "groups": groups,
        "waiting": services.open_rows(newest.round) if newest and loop.state == LoopState.WAITING else 0,
        "budget_form": (budget or BudgetForm(initial=services.budget_preset(loop)))
        if loop.state == LoopState.PAUSED
        else None,
    }


@roles_required(Role.ADMIN)
@require_POST
def loop_next(request: UserRequest, slug: str, number: int) -> HttpResponse:
    services.loop_next(loop_id=selectors.loop_get(slug, number).pk, user=request.user)
    messages.success(request, _("The texts that stand now are measured."))
    return redirect("evaluation-loop", slug=slug, number=number)


@roles_required(Role.ADMIN)
@require_POST
def loop_cancel(request: UserRequest, slug: str, number: int) -> HttpResponse:
    services.loop_cancel(loop_id=selectors.loop_get(slug, number).pk, user=request.user)
    messages.success(request, _("The loop ends before its next call. What it proposed stays with the reviewers."))
    return redirect("evaluation-loop", slug=slug, number=number)


@roles_required(Role.ADMIN)
@require_POST
def loop_budget(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """Let a paused loop go on within the budget of the form."""
    loop = selectors.loop_get(slug, number)
    form = BudgetForm(request.POST)
    if form.is_valid():
        try:
            services.loop_release(loop_id=loop.pk, user=request.user, **form.cleaned_data)
        except InvalidInput as error:
            form.refused = str(error)
        else:
            messages.success(request, _("The loop goes on within this budget."))
            return redirect("evaluation-loop", slug=slug, number=number)
    context = _loop_context(request, loop, form) | {"moves": False}
    return render(request, "evaluation/loop_detail.html", context, status=422)


@roles_required()
@require_http_methods(["GET", "POST"])
def loop_group(request: UserRequest, slug: str, number: int, pk: int) -> HttpResponse:
    """All cases of a group; a POST of a reviewer sends an instruction of their own for them into review."""
    group = selectors.group_get(slug, number, pk)
    if request.method == "POST":
        return _group_candidate(request, group)
    return _group_page(request, group, None)


def _group_candidate(request: UserRequest, group: ResolutionGroup) -> HttpResponse:
    if request.user.role != Role.REVIEWER:
        raise NotAllowed
    task = group.round.loop.task
    form = CandidateForm(request.POST, labels=task.labels)
    if form.is_valid():
        try:
            row = group_candidate_write(group=group, reviewer=request.user, **form.cleaned_data)
        except InvalidInput as error:
            form.refused = str(error)
        else:
            messages.success(request, _("#%(n)s is in review; a colleague approves it.") % {"n": row.number})
            return redirect("evaluation-loop-group", slug=task.slug, number=group.round.loop.number, pk=group.pk)
    return _group_page(request, group, form)


def _group_page(request: UserRequest, group: ResolutionGroup, form: CandidateForm | None) -> HttpResponse:
    loop = group.round.loop
    kind = CaseRole.RIGHT if request.GET.get("kind") == CaseRole.RIGHT else "wrong"
    if form is None and request.user.role == Role.REVIEWER:
        form = CandidateForm(labels=loop.task.labels, initial={"label": group.label})
    context = {
        "task": loop.task,
        "loop": loop,
        "group": group,
        "stage": selectors.group_stage(group),
        "kind": kind,
        "page": selectors.group_cases(group, kind, request.GET.get("page")),
        "cited": set(group.cited),
        "form": form,
        "written": selectors.written_here(group),
        "source": source_of(group.round.run),
    }
    refused = form is not None and form.is_bound
    return render(request, "evaluation/loop_group.html", context, status=422 if refused else 200)
