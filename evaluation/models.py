"""Evaluation runs and their predictions."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _now
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
    last_trace_id = models.PositiveBigIntegerField(
        default=0, help_text=_("Traces imported after this one are no examples of this run.")
    )
    examples_sha256 = models.CharField(max_length=64, blank=True)
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

    @property
    def call_scope(self) -> str:
        """The ledger's scope of this run's calls: a re-evaluation asks again, a resumed run does not."""
        return f"evaluation:{self.pk}"

    @property
    def prompt_name(self) -> str:
        """What a person calls the prompt of this run."""
        if self.release is not None:
            return _now("Release %(version)s") % {"version": self.release}
        if self.ruleset is not None:
            return _now("Draft of ruleset %(number)s") % {"number": self.ruleset.number}
        return _now("Zero-shot")

    @property
    def student_name(self) -> str:
        """The model as the server named it in its answers, or as it was asked for while there are none."""
        return ", ".join(self.figures.get("student_models") or [self.student_model])

    @property
    def n(self) -> int:
        return self.total


class PredictionOutcome(models.TextChoices):
    ANSWERED = "answered", _("Answered")
    MALFORMED = "malformed", _("Malformed")
    NO_ANSWER = "no_answer", _("No answer")


class Prediction(models.Model):
    """The student's answer to one example in one run.

    `label` is empty when the reply was malformed or withheld, or when none came: such an example is kept and counted.
    """

    run = models.ForeignKey(EvaluationRun, models.CASCADE, related_name="predictions")
    trace = models.ForeignKey(Trace, models.PROTECT, related_name="+")
    gold = models.CharField(max_length=60)
    label = models.CharField(max_length=60, blank=True)
    outcome = models.CharField(max_length=10, choices=PredictionOutcome, default=PredictionOutcome.ANSWERED)
    problem = models.CharField(max_length=300, blank=True)
    call = models.ForeignKey("pld_app.ModelCall", models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=["run", "trace"], name="prediction_once"),
            models.CheckConstraint(
                condition=(Q(outcome=PredictionOutcome.ANSWERED) & ~Q(label=""))
                | Q(outcome__in=[PredictionOutcome.MALFORMED, PredictionOutcome.NO_ANSWER], label=""),
                name="prediction_label_if_answered",
            ),
        )

    def __str__(self) -> str:
        return f"{self.trace}: {self.label or '-'}"
