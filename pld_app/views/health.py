"""Liveness for load balancers and the start of the stack, and what lies behind it for administrators and auditors."""

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from pld_app.database.catalog import guard_faults
from pld_app.database.session import database_health
from pld_app.models import Role
from pld_app.transparency.health import log_health


@require_GET
def healthz(_request: HttpRequest) -> JsonResponse:
    """200 when the database answers and its guards are those of the migrations; open to everyone, names nothing."""
    try:
        faults, word = guard_faults(connection), log_health().word
    except DatabaseError:
        return JsonResponse({"status": "the database does not answer"}, status=503)
    if faults:
        return JsonResponse({"status": "a guard is disabled"}, status=503)
    # A sealer that stands still is told here and stops nobody from deciding: the answer stays 200.
    return JsonResponse({"status": "ok", "audit_log": word})


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_GET
def system_health(request: UserRequest) -> HttpResponse:
    """Guards and roles of the database, each fault named, and how the seal of the audit log stands."""
    return render(request, "pld_app/system_health.html", {"database": database_health(connection), "log": log_health()})
