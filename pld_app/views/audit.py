"""The auditor's view of the log: search, page, export. Reading and exporting it write an event each."""

import csv
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from django.db import transaction
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from pld_app.audit_reading import READERS, export_recorded, search_recorded
from pld_app.audit_search import AuditSearch, EventPage, Facet, Facets, events_page, facets, searches_for
from pld_app.errors import InvalidInput
from pld_app.forms_audit import AuditFilter
from pld_app.models import AuditEvent, AuditQuery
from pld_app.models.audit import kind_word
from pld_app.spreadsheets import Echo, disarm

COLUMNS = (
    *("id", "at", "actor", "role", "action", "object_type", "object_id", "object", "task", "data", "request_id"),
    *("chain", "seq", "leaf_hash"),
)
_NOTHING = EventPage([], None, None)


@roles_required(*READERS)
@require_GET
def event_list(request: UserRequest) -> HttpResponse:
    return list_response(request, request.GET.dict())


def list_response(request: UserRequest, asked: Mapping[str, Any], saved: AuditQuery | None = None) -> HttpResponse:
    """The events that `asked` finds. What is shown and that it was shown are one transaction."""
    form = AuditFilter(asked)
    context: dict[str, Any] = {  # a template's context has no closed type
        "form": form,
        "page": _NOTHING,
        "saved": saved,
        "searches": searches_for(request.user),
    }
    if not form.is_valid():
        return render(request, "pld_app/audit_list.html", context, status=422)
    search = form.search()
    with transaction.atomic():
        context["page"] = events_page(search, before=_key(asked, "before"), after=_key(asked, "after"))
        context["facets"] = counted = facets(search)
        search_recorded(reader=request.user, search=search, found=counted)
    context |= {"search": search, "query": search.query, "narrow": narrowings(search, counted)}
    return render(request, "pld_app/audit_list.html", context)


def _key(asked: Mapping[str, Any], name: str) -> int | None:
    """The id of an event in the address; anything else is the first page."""
    value = str(asked.get(name, ""))
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


_NARROW = (
    ("actor", "actor", gettext_lazy("Who")),
    ("action", "action", gettext_lazy("Action")),
    ("object_type", "object_type", gettext_lazy("Kind of object")),
    ("task_slug", "task", gettext_lazy("Task")),
)


def narrowings(search: AuditSearch, counted: Facets) -> list[tuple[object, list[tuple[Facet, str, str]]]]:
    """For each field that is still open: its values with counts, what people call them, and the search narrowed so."""
    found: list[tuple[object, list[tuple[Facet, str, str]]]] = []
    for column, name, label in _NARROW:
        values = counted.by_field.get(column, [])
        if len(values) > 1 and not getattr(search, name):
            rows = []
            for one in values:
                word = kind_word(one.value) if name == "object_type" else one.name
                parts = [search.query, urlencode({name: one.value})]
                rows.append((one, word, "&".join(part for part in parts if part)))
            found.append((label, rows))
    return found


@roles_required(*READERS)
@require_GET
def event_export(request: UserRequest, kind: str) -> StreamingHttpResponse:
    """The events found as CSV or JSON Lines, streamed; the export is itself an event."""
    if kind not in {"csv", "json"}:
        raise Http404
    form = AuditFilter(request.GET)
    if not form.is_valid():
        # Not an empty file: it would look as if nothing had happened.
        raise InvalidInput(_("The filter has an unknown value, so nothing was exported. Correct it and export again."))
    search = form.search()
    events = search.events()
    with transaction.atomic():
        last = AuditEvent.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        events = events.filter(pk__lte=last)
        export_recorded(reader=request.user, kind=kind, search=search, count=events.count())
    rows = events.iterator(chunk_size=1000)
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
        "chain": event.chain,
        "seq": event.seq,
        "leaf_hash": bytes(event.leaf_hash).hex(),
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
