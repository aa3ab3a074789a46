"""Pages of what a run found: conflicts, what became of standing instructions, suspect labels."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.models import Role
from rules.models import ConflictKind, MatchKind, MiningRun, RunMatch, TextProposal
from rules.selectors import findings as selectors
from rules.selectors.tasks import task_get
from rules.services.changes import change_dismiss
from rules.services.proposals import proposal_dismiss


@roles_required()
@require_GET
def conflict_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    run = selectors.latest_run(task)
    kind = _chosen(request, ConflictKind.values)
    context: dict[str, Any] = {"task": task, "run": run, "kind": kind}
    if run is not None:
        context["page"], context["conflicts"] = selectors.conflict_page(
            run, kind, request.user, request.GET.get("page")
        )
        counts = selectors.conflict_counts(run)
        context["kinds"] = [(one.value, one.label, counts[one.value]) for one in ConflictKind]
    return render(request, "rules/conflict_list.html", context)


@roles_required()
@require_GET
def mining_changes(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    task = task_get(slug)
    run = get_object_or_404(MiningRun.objects.select_related("task"), task=task, pk=pk)
    kind = _chosen(request, [MatchKind.REWORDED, *MatchKind.values])
    counts = selectors.match_counts(run)
    page, changes = selectors.change_page(run, kind, request.user, request.GET.get("page"))
    context = {
        "task": task,
        "run": run,
        "kind": kind,
        "kinds": [(one.value, one.label, counts[one.value]) for one in MatchKind],
        "page": page,
        "changes": changes,
    }
    return render(request, "rules/mining_changes.html", context)


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_GET
def mining_suspects(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    task = task_get(slug)
    run = get_object_or_404(MiningRun.objects.select_related("task"), task=task, pk=pk)
    page, suspects = selectors.suspect_page(run, request.GET.get("page"))
    return render(request, "rules/mining_suspects.html", {"task": task, "run": run, "page": page, "suspects": suspects})


@roles_required(Role.REVIEWER)
@require_POST
def instruction_change_dismiss(request: UserRequest, slug: str, number: int, pk: int) -> HttpResponse:
    match = get_object_or_404(RunMatch, instruction__task__slug=slug, instruction__number=number, pk=pk)
    change_dismiss(match_id=match.pk, reviewer=request.user)
    messages.success(request, _("Dismissed. Your text stays, and the same proposal does not come again."))
    return redirect("instruction-detail", slug=slug, number=number)


@roles_required(Role.REVIEWER)
@require_POST
def instruction_proposal_dismiss(request: UserRequest, slug: str, number: int, pk: int) -> HttpResponse:
    proposal = get_object_or_404(TextProposal, instruction__task__slug=slug, instruction__number=number, pk=pk)
    proposal_dismiss(proposal_id=proposal.pk, reviewer=request.user)
    messages.success(request, _("Dismissed. Your text stays, and the same proposal does not come again."))
    return redirect("instruction-detail", slug=slug, number=number)


def _chosen(request: UserRequest, known: list[str]) -> str:
    """The kind asked for, or the first of those known."""
    kind = request.GET.get("kind", "")
    return kind if kind in known else str(known[0])
