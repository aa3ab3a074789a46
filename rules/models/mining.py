"""A mining run and what it found: micro-rules and clusters."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from rules.models.task import Task
from rules.models.traces import Trace


class RunState(models.TextChoices):
    """The state machine of mining runs; evaluation runs use the same."""

    AWAITING = "awaiting", _("Awaiting confirmation")
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    PAUSED = "paused", _("Paused")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")

    @property
    def is_final(self) -> bool:
        return self in {RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED}


OPEN_STATES = (RunState.AWAITING, RunState.QUEUED, RunState.RUNNING, RunState.PAUSED)


class MiningStage(models.TextChoices):
    EXTRACT = "extract", _("Extract micro-rules")
    EMBED = "embed", _("Embed")
    CLUSTER = "cluster", _("Cluster")
    SYNTHESIZE = "synthesize", _("Write instructions")
    PUBLISH = "candidates", _("Hand to review")


class MiningRun(models.Model):
    """One pass from the train traces of a task to candidate instructions; resumable stage by stage."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="mining_runs")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=12, choices=RunState, default=RunState.QUEUED)
    stage = models.CharField(max_length=12, choices=MiningStage, default=MiningStage.EXTRACT)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    parameters = models.JSONField(default=dict)
    figures = models.JSONField(default=dict)
    teacher = models.ForeignKey("pld_app.ModelEndpoint", models.PROTECT, null=True, related_name="+")
    second_teacher = models.ForeignKey("pld_app.ModelEndpoint", models.PROTECT, null=True, related_name="+")
    embedder = models.ForeignKey("pld_app.ModelEndpoint", models.PROTECT, null=True, related_name="+")
    cancel_requested_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)
    # What the run may spend; empty is no limit. Used: what is paid, and what is set aside for calls under way.
    estimate = models.JSONField(default=dict)
    max_calls = models.PositiveIntegerField(null=True)
    max_cost = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    calls_used = models.PositiveIntegerField(default=0)
    cost_used = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(fields=["task", "number"], name="mining_run_number"),
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="mining_run_state_known"),
            models.UniqueConstraint(
                fields=["task"],
                condition=Q(state__in=OPEN_STATES),
                name="mining_run_one_open",
                violation_error_message=_("A mining run of this task is already under way."),
            ),
        )

    def __str__(self) -> str:
        return f"{self.task.slug} mining {self.number}"

    @property
    def is_final(self) -> bool:
        return RunState(self.state).is_final

    @property
    def is_moving(self) -> bool:
        """Whether it goes on by itself, without a person."""
        return self.state in {RunState.QUEUED, RunState.RUNNING}


class MiningPart(models.Model):
    """A share of one stage of a run that one worker does at a time: the items whose number leaves `rest` of `of`.

    It is held by the job that runs under `lease_token`; when that job's lease lapses, anybody may take the part on.
    """

    run = models.ForeignKey(MiningRun, models.CASCADE, related_name="parts")
    stage = models.CharField(max_length=12, choices=MiningStage)
    rest = models.PositiveSmallIntegerField()
    of = models.PositiveSmallIntegerField()
    lease_token = models.UUIDField(null=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("run", "stage", "rest")
        constraints = (
            models.UniqueConstraint(fields=["run", "stage", "rest"], name="mining_part_once"),
            models.CheckConstraint(condition=Q(rest__lt=models.F("of")), name="mining_part_rest_below_of"),
        )

    def __str__(self) -> str:
        return f"{self.run} {self.stage} {self.rest + 1}/{self.of}"


class Cluster(models.Model):
    """Micro-rules of one topic and one label that say the same."""

    run = models.ForeignKey(MiningRun, models.CASCADE, related_name="clusters")
    number = models.PositiveIntegerField()
    topic = models.PositiveIntegerField()
    terms = models.CharField(max_length=200, blank=True)
    label = models.CharField(max_length=60)
    size = models.PositiveIntegerField()

    class Meta:
        ordering = ("number",)
        constraints = (models.UniqueConstraint(fields=["run", "number"], name="cluster_number"),)
        # A card says among how many traces of the topic no contradiction was found.
        indexes = (models.Index(fields=["run", "topic"], name="cluster_topic"),)

    def __str__(self) -> str:
        return f"{self.terms} / {self.label}"


class MicroRuleOrigin(models.TextChoices):
    IMPORTED = "imported", _("Imported with the trace")
    TEACHER = "teacher", _("Extracted by the teacher")
    FAILED = "failed", _("Extraction failed")


class MicroRule(models.Model):
    """The statement a run draws from one trace, and where it was put. One row a run and trace."""

    run = models.ForeignKey(MiningRun, models.CASCADE, related_name="micro_rules")
    trace = models.ForeignKey(Trace, models.PROTECT, related_name="micro_rules")
    origin = models.CharField(max_length=10, choices=MicroRuleOrigin)
    text = models.TextField(blank=True)
    rationale = models.TextField(blank=True)
    error = models.CharField(max_length=300, blank=True)
    # What a person should look at: rules.mining.deidentify.Flag as JSON.
    flags = models.JSONField(default=list)
    call = models.ForeignKey("pld_app.ModelCall", models.PROTECT, null=True, related_name="+")
    cluster = models.ForeignKey(Cluster, models.SET_NULL, null=True, related_name="members")
    # Where the map draws it, from -1 to 1; empty where a big run draws only a sample.
    map_x = models.FloatField(null=True)
    map_y = models.FloatField(null=True)

    class Meta:
        ordering = ("pk",)
        constraints = (models.UniqueConstraint(fields=["run", "trace"], name="micro_rule_once_per_run"),)

    def __str__(self) -> str:
        return self.text[:60]
