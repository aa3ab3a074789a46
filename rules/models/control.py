"""Acts that take something out of use or plan it: withdrawals, emergency stops, schedules. All append-only."""

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, Reauthentication, Role
from rules.models.instructions import Instruction
from rules.models.publishing import ChannelName, Release
from rules.models.rulesets import Ruleset
from rules.models.task import Task


class Act(models.Model):
    """Who did it, as what, why and when; the database stamps the time and compares role and event."""

    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    actor_name = models.CharField(max_length=120)
    actor_role = models.CharField(max_length=12, choices=Role)
    reason = models.CharField(max_length=300)
    at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        abstract = True


class SignedAct(Act):
    """An act that its person proved for this very object: method and time are those of the re-authentication."""

    reauthentication = models.OneToOneField(Reauthentication, models.PROTECT, related_name="+")

    class Meta:
        abstract = True


class Revocation(SignedAct):
    """A frozen ruleset is withdrawn: nothing of it is signed, released, published or served any more.

    The row is the act; the ruleset's status follows it by trigger.
    """

    ruleset = models.OneToOneField(Ruleset, models.PROTECT, related_name="revocation")

    class Meta:
        ordering = ("pk",)
        constraints = (models.CheckConstraint(condition=~Q(reason=""), name="revocation_has_reason"),)

    def __str__(self) -> str:
        return f"{self.ruleset}: {self.reason}"


class StopQuerySet(models.QuerySet["EmergencyStop"]):
    def active(self) -> "StopQuerySet":
        """Not lifted."""
        return self.filter(~Exists(StopSignature.objects.filter(stop=OuterRef("pk"), kind=StopSignatureKind.LIFT)))


class EmergencyStop(Act):
    """A released ruleset, or every release that holds one instruction, is out of use at once until this is lifted.

    One person makes it, without proving anything again: it only ever takes away. A second person signs within 24 hours.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="stops")
    ruleset = models.ForeignKey(Ruleset, models.PROTECT, null=True, related_name="stops")
    instruction = models.ForeignKey(Instruction, models.PROTECT, null=True, related_name="stops")

    objects = StopQuerySet.as_manager()

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(
                condition=Q(ruleset__isnull=False, instruction__isnull=True)
                | Q(ruleset__isnull=True, instruction__isnull=False),
                name="stop_of_one_thing",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="stop_has_reason"),
        )
        indexes = (models.Index(fields=["task"], name="stop_task"),)

    def __str__(self) -> str:
        return str(self.ruleset) if self.ruleset is not None else f"{self.instruction}"


class StopSignatureKind(models.TextChoices):
    CONFIRM = "confirm", _("Confirmed")
    LIFT = "lift", _("Lifted")


class StopSignature(SignedAct):
    """The second person's signature under a stop, or the signed act that lifts it."""

    stop = models.ForeignKey(EmergencyStop, models.PROTECT, related_name="signatures")
    kind = models.CharField(max_length=10, choices=StopSignatureKind)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=["stop", "kind"], name="stop_signature_once"),
            models.CheckConstraint(condition=Q(kind__in=StopSignatureKind.values), name="stop_signature_kind_known"),
            models.CheckConstraint(
                condition=~Q(kind=StopSignatureKind.LIFT) | ~Q(reason=""), name="stop_lift_has_reason"
            ),
        )

    def __str__(self) -> str:
        return f"{self.stop}: {self.kind}"


class ScheduledPublication(SignedAct):
    """A publication that a signatory has proved now and the database's clock lets happen later, once.

    `until`: the channel falls back by itself at that time. `expected_newest` is the newest publication of the channel
    that was seen (0: none); another one by then stops it unless `allow_moved`.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="schedules")
    channel = models.CharField(max_length=12, choices=ChannelName)
    release = models.ForeignKey(Release, models.PROTECT, related_name="schedules")
    effective_from = models.DateTimeField()
    until = models.DateTimeField(null=True)
    allow_moved = models.BooleanField(default=False)
    expected_newest = models.BigIntegerField()

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=Q(channel__in=ChannelName.values), name="schedule_channel_known"),
            models.CheckConstraint(
                condition=Q(until=None) | Q(until__gt=models.F("effective_from")),
                name="schedule_ends_after_it_starts",
                violation_error_message=_("It must end after it starts."),
            ),
        )
        indexes = (models.Index(fields=["task", "effective_from"], name="schedule_task"),)

    def __str__(self) -> str:
        return f"{self.release} to {self.channel}"


class ScheduleEndKind(models.TextChoices):
    CANCELLED = "cancelled", _("Cancelled")
    FAILED = "failed", _("Not published")


class ScheduleEnd(models.Model):
    """Why a schedule will never publish; one that did is named by its publication instead."""

    schedule = models.OneToOneField(ScheduledPublication, models.PROTECT, related_name="end")
    kind = models.CharField(max_length=10, choices=ScheduleEndKind)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    actor_name = models.CharField(max_length=120)
    reason = models.CharField(max_length=300)
    at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(
                condition=Q(kind=ScheduleEndKind.CANCELLED, actor__isnull=False)
                | Q(kind=ScheduleEndKind.FAILED, actor__isnull=True),
                name="schedule_cancelled_by_a_person",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="schedule_end_has_reason"),
        )

    def __str__(self) -> str:
        return f"{self.schedule}: {self.kind}"
