"""How far the review of a task is: where its instructions stand, what waits, and how many were left each day."""

from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Count, Min, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from pld_app.models import User
from rules.models import Decision, DecisionKind, Instruction, InstructionStatus, Task, Waiting
from rules.selectors.review_counted import counted_for
from rules.selectors.review_tabs import Tab

BURN_DAYS = 30


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the stacked bar; `start` and `width` are in percent of the whole."""

    key: str
    count: int
    start: float
    width: float


def _standing(task: Task, user: User) -> QuerySet[Instruction]:
    return Instruction.objects.filter(counted_for(user), task=task).exclude(status=InstructionStatus.SUPERSEDED)


def progress_of(task: Task, user: User) -> list[Part]:
    """Where the task's instructions stand: approved, rejected, disputed, in review, untouched."""
    rows = _standing(task, user)
    disputed = Q(waiting=Waiting.DISPUTED)
    counted = rows.aggregate(
        approved=Count("pk", filter=Q(status=InstructionStatus.APPROVED)),
        rejected=Count("pk", filter=Q(status=InstructionStatus.REJECTED)),
        disputed=Count("pk", filter=disputed),
        in_review=Count("pk", filter=Q(status=InstructionStatus.IN_REVIEW) & ~disputed),
        proposed=Count("pk", filter=Q(status=InstructionStatus.PROPOSED)),
    )
    total = sum(counted.values())
    parts, start = [], 0.0
    for key, count in counted.items():
        width = 100 * count / total if total else 0.0
        parts.append(Part(key, count, start, width))
        start += width
    return parts


@dataclass(frozen=True, slots=True)
class Day:
    day: date
    left: int


def burn_down(task: Task, user: User, *, today: date | None = None) -> list[Day]:
    """How many were left to decide at the end of each of the last 30 days (UTC), from the first with any."""
    last = today or timezone.now().date()
    first = last - timedelta(days=BURN_DAYS - 1)
    rows = _standing(task, user)
    changes: Counter[date] = Counter()
    for at in rows.values_list("created_at", flat=True):
        changes[max(at.date(), first)] += 1
    settling = {DecisionKind.APPROVE: -1, DecisionKind.REJECT: -1, DecisionKind.REOPEN: 1}
    decisions = Decision.objects.filter(instruction__in=rows, kind__in=settling)
    for kind, at in decisions.values_list("kind", "at"):
        changes[max(at.date(), first)] += settling[DecisionKind(kind)]
    days, left = [], 0
    for place in range(BURN_DAYS):
        day = first + timedelta(days=place)
        left += changes[day]
        days.append(Day(day, left))
    begun = next((place for place, day in enumerate(days) if changes[day.day]), len(days))
    return days[begun:]


@dataclass(frozen=True, slots=True)
class Waits:
    """What of the open instructions waits for something, with the tab of the queue that lists it."""

    tab: Tab
    count: int
    since: datetime | None


def waits_of(task: Task, user: User) -> list[Waits]:
    """How many wait in each way, and since when the oldest does: since it was last decided on, or made."""
    rows = _standing(task, user).filter(status__in=[InstructionStatus.PROPOSED, InstructionStatus.IN_REVIEW])
    last = Decision.objects.filter(instruction=OuterRef("pk")).order_by("-pk").values("at")[:1]
    dated = rows.annotate(since=Coalesce(Subquery(last), "created_at"))
    counted = dated.values("waiting").annotate(n=Count("pk"), oldest=Min("since")).order_by()
    found = {one["waiting"]: (one["n"], one["oldest"]) for one in counted}
    return [Waits(tab, *found.get(waiting, (0, None))) for waiting, tab in _WAITS.items()]


_WAITS: dict[str, Tab] = {
    "": Tab.OPEN,
    Waiting.SECOND_REVIEWER: Tab.SECOND,
    Waiting.DISPUTED: Tab.DISPUTED,
    Waiting.DEFERRED: Tab.DEFERRED,
    Waiting.SENT_BACK: Tab.SENT_BACK,
}
