"""Past bulk decisions, as far as one person may know of them."""

from dataclasses import dataclass

from django.core.paginator import Page, Paginator
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.shortcuts import get_object_or_404

from pld_app.models import Role, User
from rules.models import BatchItem, Decision, InstructionStatus, ReviewBatch, Task, Waiting
from rules.selectors.bulk import undo_reasons
from rules.selectors.review_compare import label_index

_ROWS = 25


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One decision of a batch; `stays` says why its actor can no longer take it back, empty where they can."""

    item: BatchItem
    label_index: int | None
    stays: str


def items_seen_by(user: User) -> Q:
    """Items whose decision this person may know of: an opinion that waits for another's stays blind to reviewers."""
    is_decided = Q(Exists(Decision.objects.filter(event=OuterRef("event"))))
    awaiting = Q(instruction__status__in=[InstructionStatus.PROPOSED, InstructionStatus.IN_REVIEW])
    is_settled = ~awaiting | Q(instruction__waiting=Waiting.DISPUTED)
    if user.role in {Role.AUDITOR, Role.ADMIN}:
        is_settled = Q()
    # A check item is never settled: its opinions are its reader's alone.
    return Q(batch__actor=user) | is_decided | Q(instruction__is_seeded=False) & is_settled


def batches_of(task: Task, user: User, number: str | None) -> Page[ReviewBatch]:
    """25 batches a page, newest first, each with `count`, its items this person may know of; none without one."""
    seen = BatchItem.objects.filter(items_seen_by(user), batch__task=task)
    counts = Count("items", filter=Q(items__in=seen.values("pk")))
    counted = ReviewBatch.objects.filter(task=task).annotate(count=counts).filter(count__gt=0)
    rows: QuerySet[ReviewBatch] = counted.select_related("actor", "opened").order_by("-pk")
    return Paginator(rows, _ROWS).get_page(number)


def batch_get(slug: str, pk: int) -> ReviewBatch:
    return get_object_or_404(ReviewBatch.objects.select_related("task", "actor", "opened"), task__slug=slug, pk=pk)


def lines_of(batch: ReviewBatch, user: User) -> list[BatchLine]:
    """Its items this person may know of, in the order of their numbers."""
    rows: QuerySet[BatchItem] = batch.items.filter(items_seen_by(user)).order_by("instruction__number")
    items = list(rows.select_related("event", "instruction"))
    reasons = undo_reasons(items, batch.actor) if batch.undone_at is None else {}
    task = batch.task
    return [
        BatchLine(item, label_index(task, item.instruction.label), reasons.get(item.instruction_id, ""))
        for item in items
    ]
