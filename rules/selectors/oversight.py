"""The oversight reports of a task, as far as a person may read them."""

from dataclasses import dataclass
from datetime import date

from django.db.models import QuerySet
from django.http import Http404
from django.shortcuts import get_object_or_404

from pld_app.canonical import canonical_json, sha256_hex
from pld_app.models import User
from rules.models import OversightReport, Task
from rules.oversight import quality_from
from rules.selectors.quality import Quality
from rules.selectors.review_counted import WATCHERS


@dataclass(frozen=True, slots=True)
class ReportView:
    """A report: `overall` for administrators and auditors, `people` all of them or the reader alone."""

    report: OversightReport
    overall: Quality | None
    people: list[Quality]

    @property
    def is_intact(self) -> bool:
        """Whether the rows are still those whose hash the event names."""
        digest = sha256_hex(canonical_json(self.report.rows))
        named: object = self.report.event.data.get("rows_sha256")
        return digest == self.report.rows_sha256 == named


def reports_of(task: Task) -> QuerySet[OversightReport]:
    """Newest month first."""
    return OversightReport.objects.filter(task=task).select_related("event")


def report_view(task: Task, month: str, user: User) -> ReportView:
    """The report of a month such as 2026-10, or 404."""
    try:
        first = date.fromisoformat(f"{month}-01")
    except ValueError as error:
        raise Http404 from error
    report = get_object_or_404(reports_of(task), month=first)
    rows = [quality_from(row) for row in report.rows]
    overall, people = rows[0], rows[1:]
    if user.role in WATCHERS:
        return ReportView(report, overall, people)
    return ReportView(report, None, [one for one in people if one.user_id == user.pk])
