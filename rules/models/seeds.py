"""Check items: instructions with a known answer, seeded among the others to see whether reviewers catch them."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent
from rules.models.double_review import Verdict
from rules.models.instructions import Instruction
from rules.models.task import Task


class SeedKind(models.TextChoices):
    """What was done to a real instruction; see rules.perturbations."""

    POLARITY = "polarity", _("Polarity flipped")
    THRESHOLD = "threshold", _("Number altered")
    SCOPE = "scope", _("Scope widened")
    UNSUPPORTED = "unsupported", _("Not what the evidence shows")
    CONTRADICTING = "contradict", _("Contradicts an approved rule")
    GOOD = "good", _("Left as it was")


class Seed(models.Model):
    """The key of one check item: what it was made from, how, and what the right answer is. Append-only."""

    instruction = models.OneToOneField(Instruction, models.PROTECT, related_name="seed")
    source = models.ForeignKey(Instruction, models.PROTECT, related_name="+")
    evidence_of = models.ForeignKey(
        Instruction, models.PROTECT, null=True, related_name="+", help_text=_("Empty: it shows its source's evidence.")
    )
    kind = models.CharField(max_length=12, choices=SeedKind)
    expected = models.CharField(max_length=8, choices=Verdict)
    explanation = models.CharField(max_length=300)
    event = models.ForeignKey(AuditEvent, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(
                condition=Q(kind=SeedKind.GOOD, expected=Verdict.APPROVE)
                | (~Q(kind=SeedKind.GOOD) & Q(expected=Verdict.REJECT)),
                name="seed_answer_fits_kind",
            ),
        )

    def __str__(self) -> str:
        return f"{self.instruction} {self.kind}"

    @property
    def twin(self) -> Instruction:
        """The real instruction it is like in everything but its text: whose evidence, run and figures it has."""
        return self.evidence_of or self.source


class SeedAnswer(models.Model):
    """What one reviewer first did with one check item. Append-only; `is_right` is by the seed's own key."""

    seed = models.ForeignKey(Seed, models.PROTECT, related_name="answers")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    kind = models.CharField(max_length=10)
    is_right = models.BooleanField()
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("pk",)
        constraints = (models.UniqueConstraint(fields=["seed", "user"], name="seed_answer_first_only"),)

    def __str__(self) -> str:
        return f"{self.seed} {self.user}"


class SeedAlarm(models.Model):
    """Two or more wrong among ten check items in a row of one reviewer in one task. Append-only."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    task = models.ForeignKey(Task, models.PROTECT, related_name="seed_alarms")
    block = models.PositiveIntegerField(help_text=_("Which ten: 1 for the first ten answered."))
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-pk",)
        constraints = (models.UniqueConstraint(fields=["user", "task", "block"], name="seed_alarm_once_a_block"),)

    def __str__(self) -> str:
        return f"{self.user} {self.block}"
