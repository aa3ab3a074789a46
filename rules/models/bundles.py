"""Requests for the bundle that proves itself, and what the log's key said to each."""

import uuid
from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, AuditKey, Checkpoint
from rules.models.rulesets import Ruleset


class BundleState(models.TextChoices):
    REQUESTED = "requested", _("Waits for the seal")
    BUILDING = "building", _("Being built")
    SIGNING = "signing", _("Waits for the log's signature")
    READY = "ready", _("Ready")
    FAILED = "failed", _("Failed")
    EXPIRED = "expired", _("Expired")


class BundleRequest(models.Model):
    """One bundle of a signed ruleset at one checkpoint: who asked, how far it is, and the file's size and hash.

    The files are in the folder `folder` below MEDIA_ROOT/bundles while it is built and signed, then in one ZIP of that
    name: a folder that web, worker and sealer share, since a bundle of a long log is larger than a row may be.
    """

    KEPT = timedelta(days=7)

    ruleset = models.ForeignKey(Ruleset, models.PROTECT, related_name="bundles")
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    folder = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    state = models.CharField(max_length=10, choices=BundleState, default=BundleState.REQUESTED)
    state_at = models.DateTimeField(default=timezone.now)
    checkpoint = models.ForeignKey(Checkpoint, models.PROTECT, null=True, related_name="+")
    events_done = models.PositiveIntegerField(default=0)
    events_total = models.PositiveIntegerField(default=0)
    statement = models.BinaryField(null=True)
    size = models.PositiveBigIntegerField(null=True)
    sha256 = models.CharField(max_length=64, blank=True)
    error = models.CharField(max_length=500, blank=True)
    expires_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=Q(state__in=BundleState.values), name="bundle_state_known"),
            models.CheckConstraint(
                condition=Q(state__in=[BundleState.REQUESTED, BundleState.FAILED])
                | Q(checkpoint__isnull=False, events_total__gt=0),
                name="bundle_is_of_a_checkpoint",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=[BundleState.READY, BundleState.EXPIRED])
                | (Q(size__gt=0, expires_at__isnull=False) & ~Q(sha256="")),
                name="bundle_ready_has_file",
            ),
            models.CheckConstraint(
                condition=~Q(state=BundleState.FAILED) | ~Q(error=""), name="bundle_failed_says_why"
            ),
            models.UniqueConstraint(
                fields=["ruleset"],
                condition=Q(state__in=[BundleState.REQUESTED, BundleState.BUILDING, BundleState.SIGNING]),
                name="bundle_one_open",
            ),
            models.UniqueConstraint(
                fields=["ruleset", "checkpoint"],
                condition=~Q(state__in=[BundleState.FAILED, BundleState.EXPIRED]),
                name="bundle_once_a_checkpoint",
            ),
        )

    def __str__(self) -> str:
        return f"{self.ruleset_id} at {self.created_at:%Y-%m-%d %H:%M}"

    @property
    def is_open(self) -> bool:
        return self.state in {BundleState.REQUESTED, BundleState.BUILDING, BundleState.SIGNING}


class BundleSignature(models.Model):
    """What the sealer said to a request: the envelope over its statement, or why it does not sign. Append-only.

    Written by the sealer's process alone, the one with the log's private key.
    """

    request = models.OneToOneField(BundleRequest, models.PROTECT, related_name="signature")
    key = models.ForeignKey(AuditKey, models.PROTECT, related_name="+")
    envelope = models.BinaryField(null=True)
    fault = models.CharField(max_length=500, blank=True)
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(envelope__isnull=False, fault="") | (Q(envelope__isnull=True) & ~Q(fault="")),
                name="bundle_signed_or_refused",
            ),
        )

    def __str__(self) -> str:
        return self.fault or "signed"
