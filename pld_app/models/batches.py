"""Questions handed to a provider as one batch, answered within a day for less money."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models.endpoints import ModelCall, ModelEndpoint


class BatchState(models.TextChoices):
    PLANNED = "planned", _("To be sent")
    SENT = "sent", _("With the provider")
    ENDED = "ended", _("Replies are fetched")
    COLLECTED = "collected", _("Over")


class ModelBatch(models.Model):
    """One batch at a provider. `key` is its idempotency key, which the provider keeps as metadata.

    `submitting_at` is written before the provider is asked to start it: whoever finds it set asks the provider first
    whether it knows the key. `owner_id` is the row it works for, `status` the provider's own word. `reserved` is set
    aside at its owner until the batch is over, then `spent` takes its place.
    """

    key = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    endpoint = models.ForeignKey(ModelEndpoint, models.PROTECT, related_name="+")
    owner_id = models.BigIntegerField()
    run = models.CharField(max_length=120, blank=True)
    scope = models.CharField(max_length=60, blank=True)
    state = models.CharField(max_length=10, choices=BatchState, default=BatchState.PLANNED)
    status = models.CharField(max_length=20, blank=True)
    submitting_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    batch_id = models.CharField(max_length=120, blank=True)
    input_file = models.CharField(max_length=120, blank=True)
    output_file = models.CharField(max_length=120, blank=True)
    error_file = models.CharField(max_length=120, blank=True)
    requests = models.PositiveIntegerField()
    answered = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    reserved = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    spent = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    sent_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(condition=Q(state__in=BatchState.values), name="model_batch_state_known"),
            models.UniqueConstraint(fields=["batch_id"], condition=~Q(batch_id=""), name="model_batch_one_row_each"),
            models.CheckConstraint(
                condition=~Q(state__in=[BatchState.SENT, BatchState.ENDED]) | ~Q(batch_id=""),
                name="model_batch_sent_has_id",
            ),
            models.CheckConstraint(
                condition=Q(batch_id="") | Q(submitting_at__isnull=False), name="model_batch_intent_before_sending"
            ),
        )
        indexes = (models.Index(fields=["owner_id"], name="model_batch_owner"),)

    def __str__(self) -> str:
        return f"batch {self.pk} of {self.run}"

    @property
    def is_over(self) -> bool:
        return self.state == BatchState.COLLECTED


class ModelBatchItem(models.Model):
    """One question of a batch, named there by its request hash. `call` is its recorded reply; empty: not answered."""

    batch = models.ForeignKey(ModelBatch, models.CASCADE, related_name="items")
    owner_id = models.BigIntegerField()
    subject = models.CharField(max_length=80)
    request_hash = models.CharField(max_length=64)
    call = models.ForeignKey(ModelCall, models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ("pk",)
        # What was sent once for its owner is never sent in a second batch; if it comes back empty it is asked directly.
        constraints = (models.UniqueConstraint(fields=["owner_id", "request_hash"], name="model_batch_item_once"),)

    def __str__(self) -> str:
        return self.request_hash[:12]
