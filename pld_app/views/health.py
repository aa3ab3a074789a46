"""Liveness for load balancers and the start of the stack, and what lies behind it for administrators and auditors."""

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from pld_app.access import UserRequest, roles_required
from pld_app.database.catalog import guard_faults
from pld_app.database.session import database_health
from pld_app.models import Role


@require_GET
def healthz(_request: HttpRequest) -> JsonResponse:
    """200 when the database answers and its guards are those of the migrations; open to everyone, names nothing."""
    try:
        faults = guard_faults(connection)
    except DatabaseError:
        return JsonResponse({"status": "the database does not answer"}, status=503)
    if faults:
        return JsonResponse({"status": "a guard is disabled"}, status=503)
    return JsonResponse({"status": "ok"})


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_GET
def system_health(request: UserRequest) -> HttpResponse:
    """Guards and roles of the database, each fault named."""
    return render(request, "pld_app/system_health.html", {"database": database_health(connection)})
