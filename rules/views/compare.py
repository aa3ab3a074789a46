"""Any two rulesets or releases of a task beside each other, as a page and as data."""

from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from pld_app.audit import audit_record
from pld_app.canonical import canonical_json
from rules.models import Task
from rules.selectors import compare as selectors
from rules.selectors.tasks import task_get
from rules.views.rulesets import EXPORTERS


@roles_required()
@require_GET
def ruleset_compare(request: UserRequest, slug: str) -> HttpResponse:
    """`old` and `new` name a ruleset ("7") or a release ("v3"); without both, only the choice is offered."""
    task = task_get(slug)
    offered = selectors.choices(task)
    context = {
        "task": task,
        "offered": offered,
        "old": request.GET.get("old", ""),
        "new": request.GET.get("new", ""),
        "view": "side" if request.GET.get("view") == "side" else "inline",
        "compared": _compared(request, task),
        "can_export": request.user.role in EXPORTERS,
    }
    return render(request, "rules/ruleset_compare.html", context)


def _compared(request: UserRequest, task: Task) -> selectors.Comparison | None:
    old, new = request.GET.get("old", ""), request.GET.get("new", "")
    if not (old and new):
        return None
    return selectors.comparison(selectors.side_get(task, old), selectors.side_get(task, new))


@roles_required(*EXPORTERS)
@require_GET
def ruleset_compare_export(request: UserRequest, slug: str, old: str, new: str) -> HttpResponse:
    task = task_get(slug)
    compared = selectors.comparison(selectors.side_get(task, old), selectors.side_get(task, new))
    data = canonical_json(selectors.comparison_json(compared)) + b"\n"
    with transaction.atomic():
        subject = compared.new.ruleset
        audit_record(
            "comparison.exported", actor=request.user, subject=subject, task_slug=slug, data={"old": old, "new": new}
        )
    response = HttpResponse(data, content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="{slug}-compare-{old}-{new}.json"'
    response["Cache-Control"] = "no-store"
    return response
