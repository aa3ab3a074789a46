"""Liveness for load balancers and the start of the stack."""

from django.db import DatabaseError, connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET

_AUDIT_GUARDS = 3  # against UPDATE and DELETE, against TRUNCATE, and the one that makes the leaf
_GUARDS = """
SELECT count(*) FILTER (WHERE tgenabled <> 'A'), count(*) FILTER (WHERE tgrelid = 'pld_app_auditevent'::regclass)
FROM pg_trigger WHERE tgname LIKE 'pld\\_%'
"""


@require_GET
def healthz(_request: HttpRequest) -> JsonResponse:
    """200 when the database answers and its guards stand; open to everyone, says nothing else."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_GUARDS)
            disabled, on_audit_log = cursor.fetchone()
    except DatabaseError:
        return JsonResponse({"status": "the database does not answer"}, status=503)
    if disabled or on_audit_log < _AUDIT_GUARDS:
        return JsonResponse({"status": "a guard is disabled"}, status=503)
    return JsonResponse({"status": "ok"})
