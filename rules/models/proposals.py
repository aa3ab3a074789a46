"""A text that a conflict-resolution loop proposes for an instruction that stands."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from rules.models.instructions import Instruction, InstructionStatus, Revision


class ProposalStage(models.TextChoices):
    """How far people are with a proposal, or with a new candidate."""

    WAITING = "waiting", _("Waits for a reviewer")
    IN_REVIEW = "in_review", _("In review")
    DECIDED = "decided", _("Decided")
    DISMISSED = "dismissed", _("Dismissed")


class TextProposal(models.Model):
    """It proposes; the instruction stays as people left it. A reviewer takes the text over or dismisses it.

    `base` is the text it was compared with. `reason` is the resolver's own sentence, untrusted. `loop` and `round` are
    the numbers of where it comes from, in the instruction's task. No text is proposed twice for an instruction.
    """

    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="proposals")
    base = models.ForeignKey(Revision, models.PROTECT, related_name="+")
    text = models.TextField()
    text_sha256 = models.CharField(max_length=64)
    reason = models.CharField(max_length=400)
    resolver = models.CharField(max_length=200)
    loop = models.PositiveIntegerField()
    round = models.PositiveIntegerField()
    # Of its text and the examples it cites: rules.mining.deidentify.Flag.
    flags = models.JSONField(default=list)
    dismissed_at = models.DateTimeField(null=True)
    dismissed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=["instruction", "text_sha256"], name="text_proposal_once"),
            models.CheckConstraint(condition=~Q(text=""), name="text_proposal_has_text"),
            models.CheckConstraint(
                condition=Q(dismissed_at__isnull=True, dismissed_by__isnull=True)
                | Q(dismissed_at__isnull=False, dismissed_by__isnull=False),
                name="text_proposal_dismissed_by_someone",
            ),
        )

    def __str__(self) -> str:
        return f"{self.instruction} proposal {self.pk}"

    @property
    def stage(self) -> ProposalStage:
        """It waits while the text it was compared with stands; a later text shows that people have dealt with it."""
        if self.dismissed_at is not None:
            return ProposalStage.DISMISSED
        row = self.instruction
        if row.status in {InstructionStatus.REJECTED, InstructionStatus.SUPERSEDED}:
            return ProposalStage.DECIDED
        if row.current_revision_id == self.base_id:
            return ProposalStage.WAITING
        return ProposalStage.IN_REVIEW if row.is_open else ProposalStage.DECIDED

    @property
    def is_settled(self) -> bool:
        return self.stage in {ProposalStage.DECIDED, ProposalStage.DISMISSED}
