"""The review policy of a task: what is in force, and changing it."""

from collections.abc import Mapping

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput
from pld_app.models import Role, User
from rules.models import ReviewPolicy, Task
from rules.selectors.review_policy import policy_of
from rules.services.refusals import database_refusals

# What a person sets; the rest of a row says who and when.
FIELDS = (
    "double_percent",
    "double_edited",
    "double_conflicting",
    "impact_percent",
    "seed_percent",
    "blind_first",
    "blind_percent",
    "min_seconds",
    "fast_percent",
    "evidence_percent",
    "notice_first",
    "training_required",
    "recall_percent",
    "overturned_percent",
    "age_soon_days",
    "age_late_days",
)


def policy_preset(*, task: Task) -> ReviewPolicy:
    """Version 1 of a new task, with the presets; part of the transaction that makes the task."""
    return ReviewPolicy.objects.create(task=task, version=1)


def policy_change(*, task: Task, admin: User, version: int, values: Mapping[str, int | bool]) -> ReviewPolicy:
    """Put a new version in force; `version` is the one the form was opened on. Unchanged values are refused."""
    require_role(admin, Role.ADMIN)
    with database_refusals(), transaction.atomic():
        # Lock first: of two changes at once, the second is refused by the version it was made from.
        present = policy_of(Task.objects.select_for_update().get(pk=task.pk))
        if present.version != version:
            raise InvalidInput(_("Someone changed the policy since you opened it. Look again and repeat."))
        changed: dict[str, Json] = {
            name: {"from": getattr(present, name), "to": values[name]}
            for name in FIELDS
            if getattr(present, name) != values[name]
        }
        if not changed:
            raise InvalidInput(_("Nothing was changed."))
        data: dict[str, Json] = {"version": present.version + 1, "changed": changed}
        event = audit_record("review_policy.changed", actor=admin, subject=task, task_slug=task.slug, data=data)
        row = ReviewPolicy(task=task, version=present.version + 1, author=admin, event=event, **dict(values))
        row.full_clean(exclude=["draw_key"])
        row.save(force_insert=True)
        row.refresh_from_db()
        task.kept_policy = row
        return row
