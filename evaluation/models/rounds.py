"""A loop of conflict resolution: measure the standing texts, group what failed, propose, let people decide, again."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from evaluation.models.datasets import Dataset, Example
from evaluation.models.runs import EvaluationRun
from rules.models import Instruction, Revision, Ruleset, Task, TextProposal, Trace


class LoopState(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    WAITING = "waiting", _("Waits for people")
    PAUSED = "paused", _("Paused: budget")
    STOPPED = "stopped", _("Stopped")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")

    @property
    def is_final(self) -> bool:
        return self in {LoopState.STOPPED, LoopState.FAILED, LoopState.CANCELLED}


class StopReason(models.TextChoices):
    """Why a loop has come to its end by itself."""

    NO_FAILURES = "no_failures", _("Nothing failed: there is nothing left to mend")
    NO_GAIN = "no_gain", _("Macro-F1 on validation no longer rises")
    ROUNDS = "rounds", _("All rounds are done")
    NO_PROPOSALS = "no_proposals", _("The resolver proposed nothing that could be used")
    UNCHANGED = "unchanged", _("People changed no text, so there is nothing new to measure")


class ResolutionLoop(models.Model):
    """What is measured, who proposes, and how far it may go. What it asks with never changes once it has begun.

    `max_rounds` counts rounds that propose; a last measurement follows them. Without a `resolver` people mend by hand.
    `max_calls` and `max_cost` bound the calls to student and resolver together; `_used` holds what is paid and what is
    set aside. `is_automatic`: the next round begins by itself once every proposal is decided.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="resolution_loops")
    number = models.PositiveIntegerField()
    ruleset = models.ForeignKey(Ruleset, models.PROTECT, related_name="+")
    dataset = models.ForeignKey(Dataset, models.PROTECT, related_name="+")
    student = models.ForeignKey("pld_app.ModelEndpoint", models.PROTECT, related_name="+")
    student_model = models.CharField(max_length=200)
    resolver = models.ForeignKey("pld_app.ModelEndpoint", models.PROTECT, null=True, related_name="+")
    resolver_model = models.CharField(max_length=200, blank=True)
    sample_size = models.PositiveIntegerField(null=True)
    seed = models.PositiveIntegerField(default=0)
    max_rounds = models.PositiveSmallIntegerField(default=2)
    is_automatic = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=LoopState, default=LoopState.QUEUED)
    stop_reason = models.CharField(max_length=14, choices=StopReason, blank=True)
    error = models.TextField(blank=True)
    estimate = models.JSONField(default=dict)
    max_calls = models.PositiveIntegerField(null=True)
    max_cost = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    calls_used = models.PositiveIntegerField(default=0)
    cost_used = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    cancel_requested_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(fields=["task", "number"], name="resolution_loop_number"),
            models.UniqueConstraint(
                fields=["task"],
                condition=~Q(state__in=[LoopState.STOPPED, LoopState.FAILED, LoopState.CANCELLED]),
                name="resolution_loop_one_open",
                violation_error_message=_("A loop of this task is under way. Wait for it, or cancel it first."),
            ),
            models.CheckConstraint(condition=Q(state__in=LoopState.values), name="resolution_loop_state_known"),
            models.CheckConstraint(
                condition=Q(state=LoopState.STOPPED, stop_reason__in=StopReason.values)
                | ~Q(state=LoopState.STOPPED) & Q(stop_reason=""),
                name="resolution_loop_stops_for_a_reason",
            ),
            models.CheckConstraint(
                condition=Q(max_rounds__gte=1, max_rounds__lte=10), name="resolution_loop_rounds_range"
            ),
        )

    def __str__(self) -> str:
        return f"{self.task.slug} resolution {self.number}"

    @property
    def is_final(self) -> bool:
        return LoopState(self.state).is_final

    @property
    def is_moving(self) -> bool:
        """Whether it goes on by itself, without a person."""
        return self.state in {LoopState.QUEUED, LoopState.RUNNING}

    @property
    def call_scope(self) -> str:
        """The ledger's scope of the resolver's calls: resumed, a loop asks nothing twice; another loop asks anew."""
        return f"resolution:{self.pk}"


class RoundState(models.TextChoices):
    MEASURING = "measuring", _("The student is being measured")
    ASKING = "asking", _("The resolver is asked")
    WAITING = "waiting", _("Waits for people")
    OVER = "over", _("Over")


class ResolutionRound(models.Model):
    """One measurement of the standing texts and what was proposed on it.

    `items` are [instruction, revision] keys in the order of the prompt. `set_aside_` is what the budget holds for the
    measurement until its run is over; a run made before (`is_reused`) costs nothing.
    """

    loop = models.ForeignKey(ResolutionLoop, models.PROTECT, related_name="rounds")
    number = models.PositiveIntegerField()
    run = models.ForeignKey(EvaluationRun, models.PROTECT, related_name="resolution_rounds")
    is_reused = models.BooleanField(default=False)
    items = models.JSONField()
    prompt_sha256 = models.CharField(max_length=64)
    set_aside_calls = models.PositiveIntegerField(default=0)
    set_aside_cost = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    state = models.CharField(max_length=10, choices=RoundState, default=RoundState.MEASURING)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("number",)
        constraints = (
            models.UniqueConstraint(fields=["loop", "number"], name="resolution_round_number"),
            models.CheckConstraint(condition=Q(state__in=RoundState.values), name="resolution_round_state_known"),
        )

    def __str__(self) -> str:
        return f"{self.loop} round {self.number}"


class GroupOutcome(models.TextChoices):
    """What came of one group, once the resolver had its turn."""

    PROPOSED = "proposed", _("A new text is proposed")
    ADDED = "added", _("A further instruction is proposed")
    KEPT = "kept", _("The resolver would keep the text")
    UNUSABLE = "unusable", _("The resolver's reply could not be used")
    NOT_ASKED = "not_asked", _("The resolver was not asked")


class ResolutionGroup(models.Model):
    """The failures of one instruction beside its successes; without an instruction, those that none speaks to.

    `label` is that of the instruction, or the correct label of failures that none speaks to: one group each. `cited`
    are keys of the examples the resolver named. `note` says why there is no proposal, or gives its reason.
    """

    round = models.ForeignKey(ResolutionRound, models.PROTECT, related_name="groups")
    number = models.PositiveIntegerField()
    instruction = models.ForeignKey(Instruction, models.PROTECT, null=True, related_name="+")
    revision = models.ForeignKey(Revision, models.PROTECT, null=True, related_name="+")
    label = models.CharField(max_length=60)
    failures = models.PositiveIntegerField()
    successes = models.PositiveIntegerField()
    outcome = models.CharField(max_length=10, choices=GroupOutcome, blank=True)
    note = models.CharField(max_length=400, blank=True)
    cited = models.JSONField(default=list)
    call = models.ForeignKey("pld_app.ModelCall", models.PROTECT, null=True, related_name="+")
    proposal = models.OneToOneField(TextProposal, models.PROTECT, null=True, related_name="resolution_group")
    candidate = models.OneToOneField(Instruction, models.PROTECT, null=True, related_name="resolution_group")

    class Meta:
        ordering = ("number",)
        constraints = (
            models.UniqueConstraint(fields=["round", "number"], name="resolution_group_number"),
            models.UniqueConstraint(
                fields=["round", "instruction", "label"], nulls_distinct=False, name="resolution_group_once"
            ),
            models.CheckConstraint(
                condition=Q(instruction__isnull=True, revision__isnull=True)
                | Q(instruction__isnull=False, revision__isnull=False),
                name="resolution_group_names_the_text",
            ),
            models.CheckConstraint(
                condition=Q(outcome=GroupOutcome.PROPOSED, proposal__isnull=False, candidate__isnull=True)
                | Q(outcome=GroupOutcome.ADDED, proposal__isnull=True, candidate__isnull=False)
                | Q(
                    outcome__in=["", GroupOutcome.KEPT, GroupOutcome.UNUSABLE, GroupOutcome.NOT_ASKED],
                    proposal__isnull=True,
                    candidate__isnull=True,
                ),
                name="resolution_group_outcome_has_its_row",
            ),
        )

    def __str__(self) -> str:
        return f"{self.round} group {self.number}"


class CaseRole(models.TextChoices):
    """Why an example stands in the group of an instruction."""

    WIDE = "wide", _("Answered with its label, wrongly: it may be too wide")
    MISSED = "missed", _("Should have had its label: it may be too narrow")
    RIGHT = "right", _("Answered rightly with its label")
    UNCOVERED = "uncovered", _("No instruction speaks to it")


class CaseBasis(models.TextChoices):
    """How an example found its instruction. Only the first is measured; the others are likeness."""

    FLIP = "flip", _("left out of the prompt, the instruction gives another answer (ablation)")
    TRACE = "trace", _("its input is like a trace the instruction rests on")
    WORDS = "words", _("its input shares words with the instruction")
    NOTHING = "nothing", _("it is like none of them")


class ResolutionCase(models.Model):
    """One example in one group. Append-only. `said` is empty where the student gave no usable answer.

    `score` is the cosine, from 0 to 1, that put it there (1 where it was measured); `trace` the instruction's trace it
    is most like. `rank` 1 is the closest of its kind (failures and successes by themselves).
    """

    group = models.ForeignKey(ResolutionGroup, models.PROTECT, related_name="cases")
    example = models.ForeignKey(Example, models.PROTECT, related_name="+")
    said = models.CharField(max_length=60, blank=True)
    role = models.CharField(max_length=10, choices=CaseRole)
    basis = models.CharField(max_length=8, choices=CaseBasis)
    score = models.FloatField()
    trace = models.ForeignKey(Trace, models.PROTECT, null=True, related_name="+")
    rank = models.PositiveIntegerField()

    class Meta:
        ordering = ("rank", "pk")
        constraints = (
            models.UniqueConstraint(fields=["group", "example"], name="resolution_case_once"),
            models.CheckConstraint(condition=Q(role__in=CaseRole.values), name="resolution_case_role_known"),
            models.CheckConstraint(condition=Q(basis__in=CaseBasis.values), name="resolution_case_basis_known"),
            models.CheckConstraint(condition=Q(score__gte=0, score__lte=1), name="resolution_case_score_range"),
        )

    def __str__(self) -> str:
        return f"{self.group}: {self.example}"

    @property
    def is_failure(self) -> bool:
        return self.role != CaseRole.RIGHT
