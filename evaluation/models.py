"""Evaluation runs and their predictions."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from rules.models import Release, Ruleset, RunState, Split, Task, Trace


class PromptKind(models.TextChoices):
    ZERO_SHOT = "zero_shot", _("Zero-shot baseline")
    DRAFT = "draft", _("Draft ruleset")
    RELEASE = "release", _("Release")


class EvaluationRun(models.Model):
    """One prompt, one student model, one split. The prompt is frozen here when the run is made."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="evaluation_runs")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=PromptKind)
    ruleset = models.ForeignKey(Ruleset, models.PROTECT, null=True, related_name="evaluation_runs")
    release = models.ForeignKey(Release, models.PROTECT, null=True, related_name="evaluation_runs")
    student = models.ForeignKey("pld_app.ModelEndpoint", models.PROTECT, related_name="+")
    student_model = models.CharField(max_length=120)
    split = models.CharField(max_length=12, choices=Split)
    sample_size = models.PositiveIntegerField(null=True, help_text=_("Empty: every example of the split."))
    seed = models.PositiveIntegerField(default=0)
    prompt = models.TextField()
    prompt_sha256 = models.CharField(max_length=64)
    state = models.CharField(max_length=12, choices=RunState, default=RunState.QUEUED)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    figures = models.JSONField(default=dict)
    cancel_requested_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(fields=["task", "number"], name="evaluation_run_number"),
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="evaluation_run_state_known"),
            models.CheckConstraint(
                condition=Q(kind=PromptKind.ZERO_SHOT, ruleset__isnull=True, release__isnull=True)
                | Q(kind=PromptKind.DRAFT, ruleset__isnull=False, release__isnull=True)
                | Q(kind=PromptKind.RELEASE, ruleset__isnull=True, release__isnull=False),
                name="evaluation_run_one_prompt",
            ),
        )

    def __str__(self) -> str:
        return f"{self.task.slug} evaluation {self.number}"

    @property
    def is_final(self) -> bool:
        return RunState(self.state).is_final


class Prediction(models.Model):
    """The student's answer to one example in one run; `label` is empty when it was malformed, never dropped."""

    run = models.ForeignKey(EvaluationRun, models.CASCADE, related_name="predictions")
    trace = models.ForeignKey(Trace, models.PROTECT, related_name="+")
    gold = models.CharField(max_length=60)
    label = models.CharField(max_length=60, blank=True)
    problem = models.CharField(max_length=300, blank=True)
    call = models.ForeignKey("pld_app.ModelCall", models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (models.UniqueConstraint(fields=["run", "trace"], name="prediction_once"),)

    def __str__(self) -> str:
        return f"{self.trace}: {self.label or '-'}"
