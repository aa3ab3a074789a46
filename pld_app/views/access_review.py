"""The access review: every account with its role, last activity, and who granted it when; as a page and as CSV."""

import csv
from collections.abc import Iterator

from django.core.paginator import Paginator
from django.db import transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from pld_app.access_review import Access, access_of, access_rows
from pld_app.audit import audit_record
from pld_app.audit_reading import READERS
from pld_app.spreadsheets import Echo, disarm

PER_PAGE = 50
COLUMNS = (
    *("user_name", "name", "role", "domain", "state", "last_sign_in", "last_activity", "idle_for_a_quarter"),
    *("role_granted_by", "role_granted_at", "event"),
)


@roles_required(*READERS)
@require_GET
def access_review(request: UserRequest) -> HttpResponse:
    page = Paginator(access_rows(), PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "pld_app/access_review.html", {"page": page, "rows": [access_of(one) for one in page]})


@roles_required(*READERS)
@require_GET
def access_review_export(request: UserRequest) -> StreamingHttpResponse:
    """All accounts as CSV; the export is itself an event."""
    with transaction.atomic():
        rows = [access_of(one) for one in access_rows()]
        audit_record("access_review.exported", actor=request.user, subject=request.user, data={"accounts": len(rows)})
    response = StreamingHttpResponse(_lines(rows), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="access-review.csv"'
    return response


def _lines(rows: list[Access]) -> Iterator[str]:
    writer = csv.writer(Echo())
    yield writer.writerow(COLUMNS)
    for row in rows:
        user = row.user
        times = [moment.isoformat() if moment else "" for moment in (user.last_login, row.active_at, row.granted_at)]
        cells = [
            user.username,
            user.display_name,
            user.role,
            user.domain,
            "active" if user.is_active else "closed",
            *times[:2],
            "yes" if row.is_idle else "no",
            row.granted_by,
            times[2],
            str(row.granted_event or ""),
        ]
        yield writer.writerow([disarm(cell) for cell in cells])
