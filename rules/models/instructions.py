"""The instruction a person reviews, its immutable revisions, its evidence and the decisions on it."""

from typing import ClassVar, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Collate
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, Domain
from rules.models.mining import Cluster, MiningRun
from rules.models.task import Task
from rules.models.traces import Trace


class InstructionStatus(models.TextChoices):
    PROPOSED = "proposed", _("Proposed")
    IN_REVIEW = "in_review", _("In review")
    APPROVED = "approved", _("Approved")
    REJECTED = "rejected", _("Rejected")
    SUPERSEDED = "superseded", _("Superseded")


class Waiting(models.TextChoices):
    """What an open instruction waits for."""

    SECOND_REVIEWER = "second", _("Needs a second reviewer")
    DEFERRED = "deferred", _("Deferred")
    SENT_BACK = "sent_back", _("Sent back")
    DISPUTED = "disputed", _("Two reviewers disagree")


class InstructionOrigin(models.TextChoices):
    EXTRACTIVE = "extractive", _("Extractive draft")
    TEACHER = "teacher", _("Written by the teacher")
    # Extractive as well: of micro-rules that the instruction of their cluster leaves uncited.
    UNCOVERED = "uncovered", _("Draft of what was left out")
    RESOLUTION = "resolution", _("Proposed by conflict resolution")
    PERSON = "person", _("Written by a reviewer")


class DecisionKind(models.TextChoices):
    APPROVE = "approve", _("Approved")
    EDIT = "edit", _("Edited")
    REJECT = "reject", _("Rejected")
    DEFER = "defer", _("Deferred")
    SEND_BACK = "send_back", _("Sent back")
    REOPEN = "reopen", _("Reopened")


class ReasonCode(models.TextChoices):
    """Why a candidate is rejected or sent back; the number is its key."""

    UNSUPPORTED = "unsupported", _("Not supported by the traces")
    SCOPE = "scope", _("Too wide or too narrow")
    POLICY = "policy", _("Against law or policy")
    DUPLICATE = "duplicate", _("Duplicate")
    UNCLEAR = "unclear", _("Unclear")
    UNSAFE = "unsafe", _("Unsafe or biased")
    OTHER = "other", _("Other: see note")


class InstructionQuerySet(models.QuerySet["Instruction"]):
    def awaiting_review(self) -> Self:
        return self.filter(status__in=[InstructionStatus.PROPOSED, InstructionStatus.IN_REVIEW])

    def publishable(self) -> Self:
        return self.filter(status=InstructionStatus.APPROVED, is_seeded=False)


class Instruction(models.Model):
    """One rule under review. Its text lives in revisions; the database moves its status only with a decision.

    `version` counts changes: a form that was opened on an older one is refused.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="instructions")
    number = models.PositiveIntegerField()
    run = models.ForeignKey(MiningRun, models.PROTECT, null=True, related_name="instructions")
    cluster = models.ForeignKey(Cluster, models.PROTECT, null=True, related_name="instructions")
    label = models.CharField(max_length=60)
    topic = models.CharField(max_length=200, blank=True)
    domain = models.CharField(max_length=12, choices=Domain, blank=True)
    origin = models.CharField(max_length=12, choices=InstructionOrigin)
    is_seeded = models.BooleanField(default=False)
    provenance = models.JSONField(default=dict)
    # Of its mined text and the traces it cites, each with the trace's id or none: rules.mining.deidentify.Flag.
    flags = models.JSONField(default=list)
    support = models.PositiveIntegerField(default=0)
    contradictions = models.PositiveIntegerField(default=0)
    status = models.CharField(max_length=12, choices=InstructionStatus, default=InstructionStatus.PROPOSED)
    waiting = models.CharField(max_length=10, choices=Waiting, blank=True)
    current_revision = models.ForeignKey("Revision", models.PROTECT, null=True, related_name="+")
    approved_revision = models.ForeignKey("Revision", models.PROTECT, null=True, related_name="+")
    version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    decided_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager["Instruction"]] = InstructionQuerySet.as_manager()

    class Meta:
        ordering = ("number",)
        constraints = (
            models.UniqueConstraint(fields=["task", "number"], name="instruction_number"),
            models.CheckConstraint(condition=Q(status__in=InstructionStatus.values), name="instruction_status_known"),
            models.CheckConstraint(
                condition=Q(status=InstructionStatus.APPROVED, approved_revision=models.F("current_revision"))
                | (~Q(status=InstructionStatus.APPROVED) & Q(approved_revision__isnull=True)),
                name="instruction_approval_is_of_current_text",
            ),
        )
        indexes = (
            models.Index(fields=["task", "status", "number"], name="instruction_queue"),
            # The queue's order begins with the topic, and a card looks for the next one that has something open.
            models.Index("task", Collate("topic", "C"), "status", "waiting", name="instruction_topic"),
        )

    def __str__(self) -> str:
        return f"#{self.number}"

    @property
    def is_open(self) -> bool:
        return self.status in {InstructionStatus.PROPOSED, InstructionStatus.IN_REVIEW}


class Revision(models.Model):
    """One text of an instruction. Immutable: the database refuses UPDATE and DELETE."""

    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="revisions")
    number = models.PositiveIntegerField()
    text = models.TextField()
    text_sha256 = models.CharField(max_length=64)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", help_text=_("Empty: mined.")
    )
    event = models.OneToOneField(AuditEvent, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("number",)
        constraints = (
            models.UniqueConstraint(fields=["instruction", "number"], name="revision_number"),
            models.CheckConstraint(
                condition=Q(author__isnull=True) | Q(event__isnull=False), name="revision_by_person_has_event"
            ),
            models.CheckConstraint(condition=~Q(text=""), name="revision_has_text"),
        )

    def __str__(self) -> str:
        return f"{self.instruction} r{self.number}"


class EvidenceRole(models.TextChoices):
    SUPPORTING = "supporting", _("Supports")
    CONTRADICTING = "contradicting", _("Contradicts")


class Evidence(models.Model):
    """A trace an instruction rests on, or one of its topic with another label; `rank` 1 is the closest."""

    instruction = models.ForeignKey(Instruction, models.CASCADE, related_name="evidence")
    trace = models.ForeignKey(Trace, models.PROTECT, related_name="+")
    role = models.CharField(max_length=14, choices=EvidenceRole)
    rank = models.PositiveIntegerField()
    is_cited = models.BooleanField(default=False)

    class Meta:
        ordering = ("role", "rank")
        constraints = (
            models.UniqueConstraint(fields=["instruction", "trace"], name="evidence_once"),
            models.UniqueConstraint(fields=["instruction", "role", "rank"], name="evidence_rank"),
        )

    def __str__(self) -> str:
        return f"{self.role} {self.rank}"


class Decision(models.Model):
    """What a reviewer decided on which text. Append-only, and not without its audit event."""

    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="decisions")
    revision = models.ForeignKey(Revision, models.PROTECT, related_name="decisions")
    kind = models.CharField(max_length=10, choices=DecisionKind)
    reason = models.CharField(max_length=12, choices=ReasonCode, blank=True)
    note = models.TextField(blank=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=DecisionKind.values), name="decision_kind_known"),
            models.CheckConstraint(
                condition=~Q(kind__in=[DecisionKind.REJECT, DecisionKind.SEND_BACK]) | Q(reason__in=ReasonCode.values),
                name="decision_refusal_has_reason",
                violation_error_message=_("Choose a reason."),
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.revision}"
