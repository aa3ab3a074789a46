"""Writing the audit log: one event per business action, in that action's transaction."""

from collections.abc import Mapping
from typing import cast

import structlog
from django.conf import settings
from django.db import models, transaction

from pld_app.models import AuditEvent, User

type Json = str | int | bool | list["Json"] | Mapping[str, "Json"] | None

SYSTEM_NAME = "system"


def audit_record(
    action: str,
    *,
    actor: User | None,
    subject: models.Model,
    data: Mapping[str, Json] | None = None,
    task_slug: str = "",
) -> AuditEvent:
    """Append one event, named `noun.past_verb`, about `subject`; `actor` None means the system itself.

    Raises RuntimeError outside a transaction: an event without the change it records, or the reverse, must not exist.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("audit_record must run in the transaction of the change it records")
    return AuditEvent.objects.create(
        actor=actor,
        actor_name=str(actor) if actor else SYSTEM_NAME,
        actor_role=actor.role if actor else SYSTEM_NAME,
        action=action,
        object_type=subject._meta.model_name or "",
        object_id=str(subject.pk),
        object_label=str(subject)[:200],
        task_slug=task_slug,
        data=dict(data or {}),
        request_id=cast(str, structlog.contextvars.get_contextvars().get("request_id", "")),
        app_version=settings.VERSION,
    )
