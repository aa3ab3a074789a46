"""The student's side: who is told of a change, and what was fetched when."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from rules.models.publishing import ChannelName, PromptToken, Release
from rules.models.task import Task


class WebhookTarget(models.Model):
    """An address that is told when what a channel serves changes. The secret stays in the environment."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="webhooks")
    name = models.CharField(_("name"), max_length=120)
    url = models.CharField(_("address"), max_length=300)
    secret_env = models.CharField(
        _("variable of the secret"),
        max_length=60,
        help_text=_("The worker's environment variable that holds the key of the signatures."),
    )
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.name


class DeliveryState(models.TextChoices):
    WAITING = "waiting", _("Waiting")
    DELIVERED = "delivered", _("Delivered")
    FAILED = "failed", _("Failed")


class WebhookDelivery(models.Model):
    """One message to one target; `key` is the same in every try, so that the receiver takes it once."""

    target = models.ForeignKey(WebhookTarget, models.PROTECT, related_name="deliveries")
    key = models.UUIDField(unique=True, editable=False)
    kind = models.CharField(max_length=30)
    body = models.TextField()
    state = models.CharField(max_length=10, choices=DeliveryState, default=DeliveryState.WAITING)
    tries = models.PositiveSmallIntegerField(default=0)
    last_status = models.PositiveSmallIntegerField(null=True)
    last_error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    next_try_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=Q(state__in=DeliveryState.values), name="webhook_delivery_state_known"),
        )
        indexes = (models.Index(fields=["target", "-id"], name="webhook_delivery_newest"),)

    def __str__(self) -> str:
        return f"{self.kind} to {self.target}"


class PromptRead(models.Model):
    """That a token was answered with a release in one minute; one row however often it asked. Append-only.

    `release` is empty when nothing was served, and `reason` then says why.
    """

    token = models.ForeignKey(PromptToken, models.PROTECT, related_name="reads")
    channel = models.CharField(max_length=12, choices=ChannelName)
    release = models.ForeignKey(Release, models.PROTECT, null=True, related_name="reads")
    prompt_sha256 = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=30, blank=True)
    minute = models.DateTimeField()

    class Meta:
        ordering = ("-minute", "-pk")
        constraints = (
            models.UniqueConstraint(
                fields=["token", "channel", "release", "reason", "minute"],
                name="prompt_read_once_a_minute",
                nulls_distinct=False,
            ),
        )

    def __str__(self) -> str:
        return f"{self.token} {self.minute}"
