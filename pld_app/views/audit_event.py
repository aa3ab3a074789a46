"""One event of the log under an address of its own. Opening it, or taking its proof, writes an event."""

import json

from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from pld_app.audit_reading import READERS, view_recorded
from pld_app.models import AuditEvent
from pld_app.object_links import object_link
from pld_app.transparency.event_proof import event_place, proof_of


@roles_required(*READERS)
@require_GET
def event_detail(request: UserRequest, pk: int) -> HttpResponse:
    with transaction.atomic():
        event = get_object_or_404(AuditEvent, pk=pk)
        context = {
            "event": event,
            "place": event_place(event),
            "body": bytes(event.body).decode(),
            "leaf": bytes(event.leaf).decode(),
            "leaf_hash": bytes(event.leaf_hash).hex(),
            "link": object_link(event.object_type, event.object_id),
        }
        view_recorded(reader=request.user, event=event)
    return render(request, "pld_app/audit_event.html", context)


@roles_required(*READERS)
@require_GET
def event_proof(request: UserRequest, pk: int) -> HttpResponse:
    """The event with its way up to a signed checkpoint, for `manage.py verify_event`."""
    with transaction.atomic():
        event = get_object_or_404(AuditEvent, pk=pk)
        view_recorded(reader=request.user, event=event)
    text = json.dumps(proof_of(event, event_place(event)), ensure_ascii=False, indent=1)
    response = HttpResponse(text, content_type="application/json; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="event-{event.pk}.json"'
    return response
