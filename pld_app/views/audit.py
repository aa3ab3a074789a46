"""The auditor's view of the log: filter, page, export."""

import csv
import json
from collections.abc import Iterator
from datetime import datetime, time
from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from pld_app.audit import audit_record
from pld_app.errors import InvalidInput
from pld_app.models import AuditEvent, Role, User
from pld_app.models.audit import kind_word
from pld_app.spreadsheets import Echo, disarm

PER_PAGE = 50
COLUMNS = ("id", "at", "actor", "role", "action", "object_type", "object_id", "object", "task", "data", "request_id")


class AuditFilter(forms.Form):
    """Filters of the log, all optional; an unknown value is an error, not an empty page."""

    actor = forms.ModelChoiceField(User.objects.all(), required=False, label=_("Who"), empty_label=_("All"))
    action = forms.ChoiceField(required=False, label=_("Action"))
    object_type = forms.ChoiceField(required=False, label=_("Kind of object"))
    object = forms.CharField(required=False, label=_("Object"), max_length=200)
    since = forms.DateField(required=False, label=_("From"), widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, label=_("To"), widget=forms.DateInput(attrs={"type": "date"}))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, word in (("action", str), ("object_type", kind_word)):
            known = AuditEvent.objects.order_by(name).values_list(name, flat=True).distinct()
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = [("", _("All")), *((value, word(value)) for value in known)]

    def events(self) -> QuerySet[AuditEvent]:
        """The events that match, newest first; none when the filter is invalid."""
        events = AuditEvent.objects.order_by("-pk")
        if not self.is_valid():
            return events.none()
        chosen = self.cleaned_data
        exact = {name: chosen[name] for name in ("actor", "action", "object_type") if chosen[name]}
        events = events.filter(**exact)
        if chosen["object"]:
            events = events.filter(object_label__icontains=chosen["object"])
        if chosen["since"]:
            events = events.filter(at__gte=_midnight(datetime.combine(chosen["since"], time.min)))
        if chosen["until"]:
            events = events.filter(at__lte=_midnight(datetime.combine(chosen["until"], time.max)))
        return events


def _midnight(moment: datetime) -> datetime:
    return timezone.make_aware(moment)


@roles_required(Role.AUDITOR, Role.ADMIN)
@require_GET
def event_list(request: UserRequest) -> HttpResponse:
    form = AuditFilter(request.GET)
    page = Paginator(form.events(), PER_PAGE).get_page(request.GET.get("page"))
    query = request.GET.copy()
    query.pop("page", None)
    context = {"form": form, "page": page, "query": query.urlencode()}
    return render(request, "pld_app/audit_list.html", context, status=422 if form.errors else 200)


@roles_required(Role.AUDITOR, Role.ADMIN)
@require_GET
def event_export(request: UserRequest, kind: str) -> StreamingHttpResponse:
    """The filtered log as CSV or JSON Lines, streamed; the export is itself an event."""
    if kind not in {"csv", "json"}:
        raise Http404
    form = AuditFilter(request.GET)
    if not form.is_valid():
        # Not an empty file: it would look as if nothing had happened.
        raise InvalidInput(_("The filter has an unknown value, so nothing was exported. Correct it and export again."))
    events = form.events()
    with transaction.atomic():
        last = events.values_list("pk", flat=True).first() or 0
        audit_record(
            "audit.exported",
            actor=request.user,
            subject=request.user,
            data={"kind": kind, "query": request.GET.urlencode()},
        )
    rows = events.filter(pk__lte=last).iterator(chunk_size=1000)
    lines = _csv_lines(rows) if kind == "csv" else _json_lines(rows)
    content_type = "text/csv; charset=utf-8" if kind == "csv" else "application/x-ndjson"
    response = StreamingHttpResponse(lines, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="audit.{"csv" if kind == "csv" else "jsonl"}"'
    return response


def _record(event: AuditEvent) -> dict[str, Any]:
    return {
        "id": event.pk,
        "at": event.at.isoformat(),
        "actor": event.actor_name,
        "role": event.actor_role,
        "action": event.action,
        "object_type": event.object_type,
        "object_id": event.object_id,
        "object": event.object_label,
        "task": event.task_slug,
        "data": event.data,
        "request_id": event.request_id,
    }


def _json_lines(events: Iterator[AuditEvent]) -> Iterator[str]:
    for event in events:
        yield json.dumps(_record(event), ensure_ascii=False, sort_keys=True) + "\n"


def _csv_lines(events: Iterator[AuditEvent]) -> Iterator[str]:
    writer = csv.writer(Echo())
    yield writer.writerow(COLUMNS)
    for event in events:
        record = _record(event)
        record["data"] = json.dumps(record["data"], ensure_ascii=False, sort_keys=True)
        yield writer.writerow([disarm(str(record[name])) for name in COLUMNS])
