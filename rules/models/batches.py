"""Decisions made in bulk, the tags people put on instructions, and like rules that somebody keeps side by side."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent
from rules.models.instructions import DecisionKind, Instruction, Revision
from rules.models.task import Task


class BatchAct(models.TextChoices):
    APPROVE = "approve", _("Approve")
    REJECT = "reject", _("Reject")
    DEFER = "defer", _("Defer")


class ReviewBatch(models.Model):
    """One bulk action. Its decisions are ordinary ones, each with its own event; this row ties them together."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="+")
    act = models.CharField(max_length=8, choices=BatchAct)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    # The opened one that the others are near-duplicates of; approvals alone have it.
    opened = models.ForeignKey(Instruction, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)
    undone_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(
                condition=Q(act=BatchAct.APPROVE, opened__isnull=False)
                | (~Q(act=BatchAct.APPROVE) & Q(opened__isnull=True)),
                name="review_batch_approval_has_opened",
            ),
        )

    def __str__(self) -> str:
        return f"batch {self.pk}"

    @property
    def done(self) -> str:
        """What it did, in the past tense."""
        return str(DecisionKind(self.act).label)


class BatchItem(models.Model):
    """One decision of a batch. Append-only."""

    batch = models.ForeignKey(ReviewBatch, models.PROTECT, related_name="items")
    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="+")
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="batch_item")

    class Meta:
        ordering = ("pk",)
        constraints = (models.UniqueConstraint(fields=["batch", "instruction"], name="batch_item_once"),)

    def __str__(self) -> str:
        return f"{self.batch} {self.instruction}"


class InstructionTag(models.Model):
    """A word by which people find instructions again; it means nothing to the system."""

    instruction = models.ForeignKey(Instruction, models.CASCADE, related_name="tags")
    name = models.CharField(_("tag"), max_length=30)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("name",)
        constraints = (models.UniqueConstraint(fields=["instruction", "name"], name="instruction_tag_once"),)

    def __str__(self) -> str:
        return self.name


class KeptPair(models.Model):
    """Two texts somebody compared and keeps both: the pair is not suggested again until one of them is worded anew.

    Append-only. `first` is the older revision of the two; `instruction` is the one on whose card it was said.
    """

    first = models.ForeignKey(Revision, models.PROTECT, related_name="+")
    second = models.ForeignKey(Revision, models.PROTECT, related_name="+")
    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="+")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["first", "second"], name="kept_pair_once"),
            models.CheckConstraint(condition=Q(first__lt=F("second")), name="kept_pair_first_before_second"),
        )

    def __str__(self) -> str:
        return f"{self.first_id} beside {self.second_id}"
