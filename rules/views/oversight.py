"""The reports a month: administrators and auditors read all of each, reviewers their own row."""

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from pld_app.models import Role
from rules.agreement import FEW_FOR_KAPPA, TOO_FEW
from rules.selectors import oversight as selectors
from rules.selectors.review_counted import WATCHERS
from rules.selectors.review_policy import policy_of
from rules.selectors.tasks import task_get
from rules.services.oversight import JUDGED_FROM
from rules.views.quality import quality_csv

_READERS = (Role.REVIEWER, Role.ADMIN, Role.AUDITOR)
PER_PAGE = 24


@roles_required(*_READERS)
@require_GET
def oversight(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    page = Paginator(selectors.reports_of(task), PER_PAGE).get_page(request.GET.get("page"))
    context = {"task": task, "page": page, "policy": policy_of(task), "judged_from": JUDGED_FROM}
    return render(request, "rules/oversight.html", context)


@roles_required(*_READERS)
@require_GET
def oversight_report(request: UserRequest, slug: str, month: str) -> HttpResponse:
    task = task_get(slug)
    context = {
        "task": task,
        "view": selectors.report_view(task, month, request.user),
        "sees_all": request.user.role in WATCHERS,
        "too_few": TOO_FEW,
        "few_for_kappa": FEW_FOR_KAPPA,
    }
    return render(request, "rules/oversight_report.html", context)


@roles_required(*_READERS)
@require_GET
def oversight_export(request: UserRequest, slug: str, month: str) -> HttpResponse:
    """The rows that the page shows this person, as CSV."""
    task = task_get(slug)
    view = selectors.report_view(task, month, request.user)
    rows = [("all", view.overall)] if view.overall else []
    rows += [("person", one) for one in view.people]
    return quality_csv(rows, f"oversight-{task.slug}-{view.report}.csv")
