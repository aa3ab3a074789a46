"""Messages to people: the inbox of each, and what they want by e-mail too."""

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Notification(models.Model):
    """One message to one person. `parts` fill the words of its kind (`pld_app.notifications`), so they translate."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="notifications")
    kind = models.CharField(max_length=40)
    parts = models.JSONField(default=dict)
    url = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField(db_default=Now(), editable=False)
    read_at = models.DateTimeField(null=True)
    mailed_at = models.DateTimeField(null=True)
    mail_error = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ("-pk",)
        indexes = (
            models.Index(fields=["user", "-id"], name="notification_inbox"),
            models.Index(fields=["user"], condition=Q(read_at__isnull=True), name="notification_unread"),
        )

    def __str__(self) -> str:
        return f"{self.kind} for {self.user_id}"

    @property
    def label(self) -> str:
        from pld_app.notifications import kind_of  # noqa: PLC0415  # the kinds are registered by services

        return str(kind_of(self.kind).label)

    @property
    def text(self) -> str:
        from pld_app.notifications import kind_of  # noqa: PLC0415

        parts: dict[str, Any] = self.parts  # what `notify` was given: text by name
        return kind_of(self.kind).words(parts)


class MailChoice(models.Model):
    """Whether a person wants a kind of message by e-mail too; no row means the default of the kind."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    kind = models.CharField(max_length=40)
    wanted = models.BooleanField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["user", "kind"], name="mail_choice_once"),)

    def __str__(self) -> str:
        return f"{self.kind}: {self.wanted}"
