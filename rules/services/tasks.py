"""Creating and changing tasks."""

from django.db import transaction

from pld_app.audit import Json, audit_record
from pld_app.models import User
from rules.models import Task
from rules.services.review_policy import policy_preset


@transaction.atomic
def task_save(*, task: Task, user: User | None, changed: list[str]) -> Task:
    """Save a new or changed task; `changed` names the fields, for the audit event. Raises ValidationError."""
    created = task.pk is None
    task.full_clean()
    task.save()
    if created:
        policy_preset(task=task)
    data: dict[str, Json] = {"fields": list(changed), "signers_required": task.signers_required}
    audit_record(
        "task.created" if created else "task.changed", actor=user, subject=task, task_slug=task.slug, data=data
    )
    return task
