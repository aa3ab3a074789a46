"""Evaluation runs and their predictions."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _

from evaluation.models.datasets import Dataset, Example
from evaluation.models.groups import RunGroup
from rules.models import Release, Ruleset, RunState, Split, Task


class PromptKind(models.TextChoices):
    ZERO_SHOT = "zero_shot", _("Zero-shot baseline")
    FEW_SHOT = "few_shot", _("Few-shot baseline")
    NEAREST = "nearest", _("Nearest-neighbour vote")
    MAJORITY = "majority", _("Majority label")
    TEACHER = "teacher", _("Teacher's own labels")
    DRAFT = "draft", _("Draft ruleset")
    RELEASE = "release", _("Release")


BASELINES = frozenset(
    {PromptKind.ZERO_SHOT, PromptKind.FEW_SHOT, PromptKind.NEAREST, PromptKind.MAJORITY, PromptKind.TEACHER}
)
"""What a distilled prompt is compared with."""
NEED_STUDENT = frozenset({PromptKind.ZERO_SHOT, PromptKind.FEW_SHOT, PromptKind.DRAFT, PromptKind.RELEASE})
"""Kinds whose labels a student gives; the others are computed here, without a call to one."""
WITH_INSTRUCTIONS = frozenset({PromptKind.DRAFT, PromptKind.RELEASE})
"""Kinds whose prompt is that of a ruleset."""


class EvaluationRun(models.Model):
    """One prompt, one student model, one split of one dataset. What it asks is frozen here when the run is made.

    `k` is the number of examples shown (few-shot) or of neighbours that vote (nearest). `template` and
    `abstention_label` are those of InputTemplate `template_version` (0: the default). `asked_sha256` is over all that
    decides what is asked of which model: runs with an equal one are repetitions of each other.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="evaluation_runs")
    number = models.PositiveIntegerField()
    group = models.ForeignKey(RunGroup, models.PROTECT, null=True, related_name="runs")
    kind = models.CharField(max_length=10, choices=PromptKind)
    ruleset = models.ForeignKey(Ruleset, models.PROTECT, null=True, related_name="evaluation_runs")
    release = models.ForeignKey(Release, models.PROTECT, null=True, related_name="evaluation_runs")
    k = models.PositiveSmallIntegerField(null=True)
    student = models.ForeignKey("pld_app.ModelEndpoint", models.PROTECT, null=True, related_name="+")
    student_model = models.CharField(max_length=120)
    embedder = models.ForeignKey("pld_app.ModelEndpoint", models.PROTECT, null=True, related_name="+")
    dataset = models.ForeignKey(Dataset, models.PROTECT, related_name="runs")
    split = models.CharField(max_length=12, choices=Split)
    sample_size = models.PositiveIntegerField(null=True, help_text=_("Empty: every example of the split."))
    seed = models.PositiveIntegerField(default=0)
    temperature = models.FloatField(default=0.0)
    repeats = models.PositiveSmallIntegerField(default=1)
    labels = ArrayField(models.CharField(max_length=60))
    template_version = models.PositiveIntegerField(default=0)
    template = models.TextField(blank=True)
    abstention_label = models.CharField(max_length=60, blank=True)
    examples_sha256 = models.CharField(max_length=64, blank=True)
    prompt = models.TextField(blank=True)
    prompt_sha256 = models.CharField(max_length=64)
    asked_sha256 = models.CharField(max_length=64, blank=True)
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
                condition=Q(kind__in=sorted(BASELINES), ruleset__isnull=True, release__isnull=True)
                | Q(kind=PromptKind.DRAFT, ruleset__isnull=False, release__isnull=True)
                | Q(kind=PromptKind.RELEASE, ruleset__isnull=True, release__isnull=False),
                name="evaluation_run_one_prompt",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=sorted(NEED_STUDENT), student__isnull=False)
                | ~Q(kind__in=sorted(NEED_STUDENT)) & Q(student__isnull=True),
                name="evaluation_run_student_if_asked",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=[PromptKind.FEW_SHOT, PromptKind.NEAREST], k__gte=1)
                | ~Q(kind__in=[PromptKind.FEW_SHOT, PromptKind.NEAREST]) & Q(k__isnull=True),
                name="evaluation_run_k_if_used",
            ),
            models.CheckConstraint(
                condition=Q(repeats__gte=1, repeats__lte=20) & Q(temperature__gte=0, temperature__lte=2),
                name="evaluation_run_repeats_and_temperature",
            ),
        )
        indexes = (models.Index(fields=["asked_sha256"], name="evaluation_run_asked"),)

    def __str__(self) -> str:
        return f"{self.task.slug} evaluation {self.number}"

    @property
    def is_final(self) -> bool:
        return RunState(self.state).is_final

    @property
    def is_baseline(self) -> bool:
        return self.kind in BASELINES

    @property
    def has_instructions(self) -> bool:
        return self.kind in WITH_INSTRUCTIONS

    @property
    def call_scope(self) -> str:
        """The ledger's scope of this run's calls: a re-evaluation asks again, a resumed run does not."""
        return self.repeat_scope(0)

    def repeat_scope(self, repeat: int) -> str:
        """The scope of one repetition, so that each asks anew."""
        return f"evaluation:{self.pk}:{repeat}" if repeat else f"evaluation:{self.pk}"

    @property
    def call_scopes(self) -> list[str]:
        return [self.repeat_scope(repeat) for repeat in range(self.repeats)]

    @property
    def prompt_name(self) -> str:
        """What a person calls the prompt of this run."""
        if self.release is not None:
            return _now("Release %(version)s") % {"version": self.release}
        if self.ruleset is not None:
            return _now("Draft of ruleset %(number)s") % {"number": self.ruleset.number}
        names = {
            PromptKind.ZERO_SHOT: _now("Zero-shot"),
            PromptKind.FEW_SHOT: _now("Few-shot, %(k)s examples"),
            PromptKind.NEAREST: _now("Vote of %(k)s nearest neighbours"),
            PromptKind.MAJORITY: _now("Majority label"),
            PromptKind.TEACHER: _now("Teacher's own labels"),
        }
        return names[PromptKind(self.kind)] % ({"k": self.k} if self.k else {})

    @property
    def student_name(self) -> str:
        """The model as the server named it in its answers, or as it was asked for while there are none."""
        return ", ".join(self.figures.get("student_models") or [self.student_model])

    @property
    def n(self) -> int:
        """Examples, each asked about once in every repetition."""
        return self.total // self.repeats


class PredictionOutcome(models.TextChoices):
    ANSWERED = "answered", _("Answered")
    ABSTAINED = "abstained", _("Abstained")
    MALFORMED = "malformed", _("Malformed")
    NO_ANSWER = "no_answer", _("No answer")


class Prediction(models.Model):
    """The answer to one example in one repetition of a run. Append-only.

    `label` is empty when the reply was malformed, withheld or abstained, or when none came: such an example is kept
    and counted.
    """

    run = models.ForeignKey(EvaluationRun, models.PROTECT, related_name="predictions")
    example = models.ForeignKey(Example, models.PROTECT, related_name="+")
    repeat = models.PositiveSmallIntegerField(default=0)
    gold = models.CharField(max_length=60)
    label = models.CharField(max_length=60, blank=True)
    outcome = models.CharField(max_length=10, choices=PredictionOutcome, default=PredictionOutcome.ANSWERED)
    problem = models.CharField(max_length=300, blank=True)
    call = models.ForeignKey("pld_app.ModelCall", models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=["run", "example", "repeat"], name="prediction_once"),
            models.CheckConstraint(
                condition=(Q(outcome=PredictionOutcome.ANSWERED) & ~Q(label=""))
                | Q(
                    outcome__in=[
                        PredictionOutcome.ABSTAINED,
                        PredictionOutcome.MALFORMED,
                        PredictionOutcome.NO_ANSWER,
                    ],
                    label="",
                ),
                name="prediction_label_if_answered",
            ),
        )

    def __str__(self) -> str:
        return f"{self.example}: {self.label or '-'}"
