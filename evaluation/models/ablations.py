"""Leave-one-out: what becomes of a run's answers when its prompt lacks one instruction."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from evaluation.models.runs import EvaluationRun
from rules.models import Instruction, InstructionImpact, Revision, Ruleset, RunState, Task


class AblationOrder(models.TextChoices):
    """Which instructions are measured first, and so at all, when the budget is not enough for every one."""

    SUPPORT = "support", _("Most support first")
    CONFLICT = "conflict", _("Conflicting ones first, then most support")
    PICKED = "picked", _("Chosen by a person")


class Ablation(models.Model):
    """Asks a finished run's questions again, each instruction of `ruleset` left out of its prompt in turn.

    Student, examples, template and seed are the run's. `total` counts questions, `calls_used` and `cost_used` what was
    paid or is set aside. `estimate` is what a person confirmed.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="ablations")
    number = models.PositiveIntegerField()
    run = models.ForeignKey(EvaluationRun, models.PROTECT, related_name="ablations")
    ruleset = models.ForeignKey(Ruleset, models.PROTECT, related_name="ablations")
    ruleset_version = models.PositiveIntegerField()
    order = models.CharField(max_length=10, choices=AblationOrder)
    state = models.CharField(max_length=12, choices=RunState, default=RunState.QUEUED)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField()
    max_calls = models.PositiveIntegerField()
    max_cost = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    calls_used = models.PositiveIntegerField(default=0)
    cost_used = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    estimate = models.JSONField(default=dict)
    error = models.TextField(blank=True)
    cancel_requested_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(fields=["task", "number"], name="ablation_number"),
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="ablation_state_known"),
            models.CheckConstraint(condition=Q(order__in=AblationOrder.values), name="ablation_order_known"),
        )

    def __str__(self) -> str:
        return f"{self.task.slug} ablation {self.number}"

    @property
    def is_final(self) -> bool:
        return RunState(self.state).is_final


class AblationItem(models.Model):
    """One instruction of the prompt, at its `position`. Append-only.

    `rank` is its turn to be left out; None: not to be measured, being beyond the budget or not chosen.
    `prompt_sha256` is that of the prompt without it.
    """

    ablation = models.ForeignKey(Ablation, models.PROTECT, related_name="items")
    position = models.PositiveIntegerField()
    rank = models.PositiveIntegerField(null=True)
    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="+")
    revision = models.ForeignKey(Revision, models.PROTECT, related_name="+")
    prompt_sha256 = models.CharField(max_length=64)

    class Meta:
        ordering = ("position",)
        constraints = (
            models.UniqueConstraint(fields=["ablation", "position"], name="ablation_item_position"),
            models.UniqueConstraint(fields=["ablation", "rank"], name="ablation_item_rank"),
            models.UniqueConstraint(fields=["ablation", "instruction"], name="ablation_item_once"),
        )
        indexes = (models.Index(fields=["prompt_sha256"], name="ablation_item_prompt"),)

    def __str__(self) -> str:
        return f"{self.ablation} without {self.instruction.number}"


class AblationResult(models.Model):
    """What leaving one instruction out did (`figures`: evaluation.schemas.AblationFigures). Append-only.

    `impact` is what the reviewers of the instruction are told; None where too few examples were answered to tell.
    """

    item = models.OneToOneField(AblationItem, models.PROTECT, related_name="result")
    figures = models.JSONField()
    impact = models.ForeignKey(InstructionImpact, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"{self.item}"
