"""Blind double review: opinions that wait for each other, and what makes an instruction need them."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent
from rules.models.instructions import Instruction, ReasonCode, Revision


class DoubleBasis(models.TextChoices):
    """Why two people decide; the function pld_double_bases says which hold."""

    SAMPLE = "sample", _("Drawn at random")
    EDITED = "edited", _("Edited by a person")
    CONFLICT = "conflict", _("Conflicts with another instruction")
    IMPACT = "impact", _("High impact")


class DoubleReview(models.Model):
    """One round of opinions on one text. A new text, a reopening or an undone first opinion voids it for good."""

    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="double_reviews")
    revision = models.ForeignKey(Revision, models.PROTECT, related_name="+")
    # A check item has a round for each reviewer alone, which never ends in a decision.
    reader = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    bases = ArrayField(models.CharField(max_length=10, choices=DoubleBasis), default=list)
    opened_at = models.DateTimeField(default=timezone.now, editable=False)
    voided_at = models.DateTimeField(null=True)
    voided_why = models.CharField(max_length=10, blank=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["instruction"],
                condition=Q(voided_at__isnull=True, reader__isnull=True),
                name="double_review_one_in_force",
            ),
            models.UniqueConstraint(
                fields=["instruction", "reader"],
                condition=Q(voided_at__isnull=True, reader__isnull=False),
                name="double_review_one_a_reader",
            ),
            models.CheckConstraint(
                condition=Q(voided_at__isnull=True, voided_why="")
                | Q(voided_at__isnull=False, voided_why__in=["undone", "reopened", "edited"]),
                name="double_review_void_says_why",
            ),
        )

    def __str__(self) -> str:
        return f"{self.instruction} double review"


class Verdict(models.TextChoices):
    APPROVE = "approve", _("Approve")
    REJECT = "reject", _("Reject")


class Opinion(models.Model):
    """One reviewer's judgement in a double review. Append-only; `seat` 3 settles a disagreement of the first two.

    An author's endorsement of their own edit takes the first seat, with the event of that edit.
    """

    double = models.ForeignKey(DoubleReview, models.PROTECT, related_name="opinions")
    seat = models.PositiveSmallIntegerField()
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    verdict = models.CharField(max_length=8, choices=Verdict)
    reason = models.CharField(max_length=12, choices=ReasonCode, blank=True)
    note = models.TextField(blank=True)
    # An author's endorsement names the event of their edit, in each round anew; every other opinion has its own.
    event = models.ForeignKey(AuditEvent, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("seat",)
        constraints = (
            models.UniqueConstraint(
                fields=["double", "actor"],
                name="opinion_one_per_person",
                violation_error_message=_("You have already decided on this; others decide now."),
            ),
            models.UniqueConstraint(fields=["double", "seat"], name="opinion_seat"),
            models.CheckConstraint(condition=Q(verdict__in=Verdict.values), name="opinion_verdict_known"),
            models.CheckConstraint(
                condition=~Q(verdict=Verdict.REJECT) | Q(reason__in=ReasonCode.values), name="opinion_reject_has_reason"
            ),
        )

    def __str__(self) -> str:
        return f"{self.double} {self.seat}"


class InstructionImpact(models.Model):
    """How many answers of a student change when an instruction is left out, as a measurement found it. Append-only.

    Written by whoever measures; `source` names the measurement, `flipped` of `n` answers changed: `fixed` from wrong to
    right, `broken` from right to wrong, the rest from wrong to wrong. `macro_f1_change` is without minus with the
    instruction, `low` and `high` bound its 95% interval. `ruleset_version` and `prompt_sha256` say which state of the
    ruleset was measured, `model` and `dataset_sha256` on what. Measurements before these columns leave them empty.
    """

    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="impacts")
    revision = models.ForeignKey(Revision, models.PROTECT, related_name="+")
    flipped = models.PositiveIntegerField()
    fixed = models.PositiveIntegerField(null=True)
    broken = models.PositiveIntegerField(null=True)
    n = models.PositiveIntegerField()
    macro_f1_change = models.FloatField(null=True)
    low = models.FloatField(null=True)
    high = models.FloatField(null=True)
    student = models.CharField(max_length=200)
    model = models.CharField(max_length=120, blank=True)
    split = models.CharField(max_length=12)
    dataset_sha256 = models.CharField(max_length=64, blank=True)
    ruleset = models.ForeignKey("rules.Ruleset", models.PROTECT, null=True, related_name="impacts")
    ruleset_version = models.PositiveIntegerField(null=True)
    prompt_sha256 = models.CharField(max_length=64, blank=True)
    source = models.CharField(max_length=200)
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=Q(n__gte=1, flipped__lte=F("n")), name="instruction_impact_of_n"),
            models.CheckConstraint(
                condition=Q(fixed__isnull=True, broken__isnull=True) | Q(flipped__gte=F("fixed") + F("broken")),
                name="instruction_impact_adds_up",
            ),
        )

    def __str__(self) -> str:
        return f"{self.instruction} {self.flipped}/{self.n}"
