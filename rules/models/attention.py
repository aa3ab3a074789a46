"""How a decision was made: when the card was opened, what had been seen, how long it took; and pauses."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent
from rules.models.instructions import Instruction, Revision
from rules.models.task import Task

# Above this a card was left open, not read: its time is kept, and left out of medians.
AWAY_SECONDS = 1800
# A break of this length ends a session.
SESSION_GAP = timedelta(minutes=15)


def quarter_of(at: datetime) -> str:
    """The quarter of a year, such as 2026Q4, in UTC."""
    return f"{at.year}Q{(at.month - 1) // 3 + 1}"


class CardLook(models.Model):
    """One reviewer's present look at a card. It is theirs alone, and is copied to the decision it leads to."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    instruction = models.ForeignKey(Instruction, models.CASCADE, related_name="+")
    version = models.PositiveIntegerField(help_text=_("Of the instruction: after a change a look begins anew."))
    opened_at = models.DateTimeField(default=timezone.now)
    # When the drawer of figures was opened, if it was.
    insight_at = models.DateTimeField(null=True)
    # The answer to "does the evidence support a rule here?", before the wording was shown.
    evidence_supports = models.BooleanField(null=True)
    # Which piece of evidence convinced: its place on the card; 0 for none of them.
    convinced_by = models.PositiveSmallIntegerField(null=True)
    visible_ms = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["user", "instruction", "version"], name="card_look_once_per_version"),
        )

    def __str__(self) -> str:
        return f"{self.user} at {self.instruction}"


class ReviewSession(models.Model):
    """A stretch of one person's deciding in one task without a break of 15 minutes."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    task = models.ForeignKey(Task, models.PROTECT, related_name="+")
    started_at = models.DateTimeField(default=timezone.now)
    last_at = models.DateTimeField(default=timezone.now)
    items = models.PositiveIntegerField(default=0)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["user", "task"], condition=Q(ended_at__isnull=True), name="review_session_one_open"
            ),
        )

    def __str__(self) -> str:
        return f"{self.user} since {self.started_at:%Y-%m-%d %H:%M}"


class JudgementContext(models.Model):
    """What stood behind one decision or opinion, bound to its event. Append-only.

    `seconds` is by the server's clock from the last opening of the card, empty where it was not opened or decided in
    bulk; `visible_ms` is what the browser says it was in view, 0 without JavaScript.
    """

    event = models.OneToOneField(AuditEvent, models.PROTECT, primary_key=True, related_name="judgement_context")
    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="+")
    revision = models.ForeignKey(Revision, models.PROTECT, related_name="+")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    session = models.ForeignKey(ReviewSession, models.PROTECT, related_name="judgements")
    kind = models.CharField(max_length=10)
    seen_before = models.BooleanField(help_text=_("Whether the figures had been opened before deciding."))
    evidence_supports = models.BooleanField(null=True)
    convinced_by = models.PositiveSmallIntegerField(null=True)
    seconds = models.FloatField(null=True)
    visible_ms = models.PositiveIntegerField(default=0)
    words = models.PositiveIntegerField()
    is_fast = models.BooleanField(default=False)
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-pk",)
        indexes = (models.Index(fields=["actor", "-event"], name="judgement_context_actor"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.instruction}"


class PauseReason(models.TextChoices):
    SEEDS = "seeds", _("Two alarms in a row on check items")
    SPEED = "speed", _("Five decisions in a row faster than reading")
    RECALL = "recall", _("Too few wrong check items caught in a month")
    OVERTURNED = "overturn", _("Too many judgements of a month overturned")


class ReviewPause(models.Model):
    """A reviewer's queue of one task, paused until an administrator lifts it with a note. The database holds it."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="review_pauses")
    task = models.ForeignKey(Task, models.PROTECT, related_name="review_pauses")
    reason = models.CharField(max_length=8, choices=PauseReason)
    opened_at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    lifted_at = models.DateTimeField(null=True)
    lifted_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    lift_event = models.OneToOneField(AuditEvent, models.PROTECT, null=True, related_name="+")
    note = models.TextField(blank=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["user", "task"], condition=Q(lifted_at__isnull=True), name="review_pause_one_open"
            ),
            models.CheckConstraint(
                condition=Q(lifted_at__isnull=True, lifted_by__isnull=True, lift_event__isnull=True, note="")
                | (Q(lifted_at__isnull=False, lifted_by__isnull=False, lift_event__isnull=False) & ~Q(note="")),
                name="review_pause_lifted_with_note",
                violation_error_message=_("Say why you lift it."),
            ),
        )

    def __str__(self) -> str:
        return f"{self.user} paused"


class BiasNotice(models.Model):
    """That a person has read the notice on automation bias in one quarter of a year. Append-only."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    quarter = models.CharField(max_length=6, help_text=_("Such as 2026Q4."))
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["user", "quarter"], name="bias_notice_once_a_quarter"),)

    def __str__(self) -> str:
        return f"{self.user} {self.quarter}"
