"""The audit log: append-only rows, written in the transaction of what they record."""

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class AuditEvent(models.Model):
    """One recorded action. The database refuses UPDATE, DELETE and TRUNCATE (migration 0002).

    Name and role of the actor are copied, so that the record reads the same after the account changes.
    """

    at = models.DateTimeField(_("time"), db_default=Now(), editable=False)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    actor_name = models.CharField(_("actor"), max_length=120)
    actor_role = models.CharField(max_length=12)
    action = models.CharField(_("action"), max_length=60)
    object_type = models.CharField(max_length=40)
    object_id = models.CharField(max_length=40)
    object_label = models.CharField(_("object"), max_length=200)
    task_slug = models.CharField(max_length=60, blank=True)
    data = models.JSONField(default=dict)
    request_id = models.CharField(max_length=36, blank=True)

    class Meta:
        ordering = ("-pk",)
        indexes = (
            models.Index(fields=["object_type", "object_id"], name="audit_object"),
            models.Index(fields=["actor", "-id"], name="audit_actor"),
            models.Index(fields=["action", "-id"], name="audit_action"),
            models.Index(fields=["at"], name="audit_at"),
        )

    def __str__(self) -> str:
        return f"{self.action} {self.object_label}"

    @property
    def facts(self) -> list[tuple[str, Any]]:
        """The data as pairs: in a template `data.items` would be the value of a key of that name."""
        return [*self.data.items()]
