"""Liveness for load balancers and the start of the stack."""

from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET


@require_GET
def healthz(_request: HttpRequest) -> JsonResponse:
    """200 when the database answers and its append-only triggers stand; open to everyone, says nothing else."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'pld_%%' AND tgenabled <> 'A'")
        (disabled,) = cursor.fetchone()
    status = "ok" if not disabled else "a guard is disabled"
    return JsonResponse({"status": status}, status=503 if disabled else 200)
