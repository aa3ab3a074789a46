"""What the home page and a task's overview show."""

from dataclasses import dataclass

from django.db.models import Count, Q, QuerySet
from django.shortcuts import get_object_or_404

from pld_app.models import User
from rules.models import (
    ChannelName,
    Instruction,
    InstructionStatus,
    MiningRun,
    Publication,
    Ruleset,
    Split,
    Task,
    TraceImport,
)
from rules.selectors.publishing import current_publication
from rules.selectors.review_counted import counted_for


@dataclass(frozen=True)
class ReviewCounts:
    """Instructions of a task by where they stand."""

    open: int
    second: int
    approved: int
    rejected: int

    @property
    def decided(self) -> int:
        return self.approved + self.rejected

    @property
    def total(self) -> int:
        return self.open + self.decided


@dataclass(frozen=True)
class TaskOverview:
    task: Task
    traces: dict[Split, int]
    review: ReviewCounts
    last_import: TraceImport | None
    last_run: MiningRun | None
    last_ruleset: Ruleset | None
    channels: list[tuple[ChannelName, Publication | None]]


def task_get(slug: str) -> Task:
    """The task, or 404."""
    return get_object_or_404(Task.objects.select_related("teacher", "embedder", "student"), slug=slug)


def task_list(user: User) -> QuerySet[Task]:
    """Every task with the counts of its home-page row, as far as this person's lists hold them."""
    mined = counted_for(user, "instructions__")
    is_open = mined & Q(instructions__status__in=[InstructionStatus.PROPOSED, InstructionStatus.IN_REVIEW])
    is_approved = mined & Q(instructions__status=InstructionStatus.APPROVED)
    return Task.objects.annotate(
        open_count=Count("instructions", filter=is_open, distinct=True),
        approved_count=Count("instructions", filter=is_approved, distinct=True),
        release_count=Count("releases", distinct=True),
    ).order_by("name", "pk")


def review_counts(task: Task, user: User) -> ReviewCounts:
    """How far the review of a task is, in one query."""
    is_open = Q(status__in=[InstructionStatus.PROPOSED, InstructionStatus.IN_REVIEW])
    counted = Instruction.objects.filter(counted_for(user), task=task).aggregate(
        open=Count("pk", filter=is_open),
        second=Count("pk", filter=is_open & Q(waiting="second")),
        approved=Count("pk", filter=Q(status=InstructionStatus.APPROVED)),
        rejected=Count("pk", filter=Q(status=InstructionStatus.REJECTED)),
    )
    return ReviewCounts(**counted)


def task_overview(task: Task, user: User) -> TaskOverview:
    """Where each step of the task stands: traces, mining, review, sign-off, channels."""
    counted = dict(task.traces.order_by().values_list("split").annotate(n=Count("pk")))
    return TaskOverview(
        task=task,
        traces={split: counted[split] for split in Split if split in counted},
        review=review_counts(task, user),
        last_import=task.imports.first(),
        last_run=task.mining_runs.first(),
        last_ruleset=task.rulesets.first(),
        channels=[(channel, current_publication(task.pk, channel)) for channel in ChannelName],
    )
