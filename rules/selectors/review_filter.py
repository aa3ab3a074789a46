"""Which instructions a reviewer is looking at, and in which order."""

from dataclasses import asdict, dataclass, replace
from urllib.parse import urlencode

from django.db import models
from django.db.models import Count, Q

from pld_app.models import User
from rules.models import Instruction, InstructionStatus, Task
from rules.selectors.review_tabs import Tab, mark_condition, tab_condition

ALL_DOMAINS = "all"


@dataclass(frozen=True, slots=True)
class ReviewFilter:
    """One view of the queue. `query` spells it out in full, so that a link shows a colleague the same rows."""

    tab: Tab = Tab.OPEN
    domain: str = ALL_DOMAINS
    label: str = ""
    topic: str = ""
    text: str = ""
    mark: str = ""

    @property
    def query(self) -> str:
        return urlencode({key: str(value) for key, value in asdict(self).items() if value})

    @property
    def is_narrowed(self) -> bool:
        return bool(self.label or self.topic or self.text or self.mark)

    def with_tab(self, tab: Tab) -> "ReviewFilter":
        return replace(self, tab=tab)


@dataclass(frozen=True, slots=True)
class TabCount:
    tab: Tab
    count: int
    query: str


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many rows each tab holds, and how far the review of this selection is (superseded ones left out)."""

    tabs: list[TabCount]
    decided: int
    total: int


def instructions_within(task: Task, view: ReviewFilter, user: User) -> models.QuerySet[Instruction]:
    """The task's instructions in the chosen domain, label, topic, mark and search, whatever their state."""
    rows = Instruction.objects.filter(task=task)
    if view.domain != ALL_DOMAINS:
        # One without a domain concerns everybody: leaving it out would let it wait for ever.
        rows = rows.filter(domain__in=[view.domain, ""])
    if view.label:
        rows = rows.filter(label=view.label)
    if view.topic:
        rows = rows.filter(topic=view.topic)
    if view.mark:
        rows = rows.filter(mark_condition(view.mark, user))
    if view.text:
        rows = rows.filter(_search(view.text))
    return rows


def _search(text: str) -> Q:
    found = Q(current_revision__text__icontains=text) | Q(topic__icontains=text)
    number = text.removeprefix("#")
    return found | Q(number=int(number)) if number.isascii() and number.isdigit() and len(number) < 9 else found


def review_rows(task: Task, view: ReviewFilter, user: User) -> models.QuerySet[Instruction]:
    """The rows of one view: neighbours in topic stand together, so that what was just read is of use."""
    rows = instructions_within(task, view, user).filter(tab_condition(view.tab, user))
    return rows.select_related("current_revision__author").order_by("topic", "number")


def queue_counts(task: Task, view: ReviewFilter, user: User) -> QueueCounts:
    """One query for all tabs; the other filters apply to every count."""
    counts = instructions_within(task, view, user).aggregate(
        decided=Count("pk", filter=tab_condition(Tab.APPROVED, user) | tab_condition(Tab.REJECTED, user)),
        total=Count("pk", filter=~Q(status=InstructionStatus.SUPERSEDED)),
        **{f"tab_{tab.value}": Count("pk", filter=tab_condition(tab, user)) for tab in Tab},
    )
    tabs = [TabCount(tab, counts[f"tab_{tab.value}"], view.with_tab(tab).query) for tab in Tab]
    return QueueCounts(tabs, counts["decided"], counts["total"])


def second_checks_elsewhere(task: Task, view: ReviewFilter, user: User) -> int:
    """Edits that wait for this person outside the domain they look at, so that none is left waiting unseen."""
    waiting = Instruction.objects.filter(task=task).filter(tab_condition(Tab.SECOND, user))
    shown = instructions_within(task, view, user).filter(tab_condition(Tab.SECOND, user))
    return waiting.exclude(pk__in=shown.values("pk")).count()


def topics_of(task: Task) -> list[str]:
    rows = Instruction.objects.filter(task=task).exclude(topic="").order_by("topic")
    return list(rows.values_list("topic", flat=True).distinct())


@dataclass(frozen=True, slots=True)
class Place:
    """Where a card stands in a view: 1-based, None when it is not (or no longer) part of it."""

    position: int | None
    total: int
    previous: int | None
    next: int | None
    first: int | None


def place_of(instruction: Instruction, view: ReviewFilter, user: User, *, open_only: bool = False) -> Place:
    """The card's neighbours in the view's order, by number. After a decision the card itself has often left the view;
    its neighbours are then those of the place it left. `open_only` passes over what is already decided.
    """
    rows = instructions_within(instruction.task, view, user)
    inside = tab_condition(view.tab, user)
    if open_only:
        inside &= Q(status__in=[InstructionStatus.PROPOSED, InstructionStatus.IN_REVIEW])
    # The database orders, not Python: its collation decides between topics, here as in the queue.
    members = rows.filter(inside).values_list("pk", flat=True)
    ordered = Instruction.objects.filter(task=instruction.task).filter(Q(pk__in=members) | Q(pk=instruction.pk))
    found = list(ordered.order_by("topic", "number").annotate(inside=Q(pk__in=members)).values_list("number", "inside"))
    return _place(found, instruction.number)


def _place(found: list[tuple[int, bool]], number: int) -> Place:
    numbers = [row for row, _inside in found]
    index = numbers.index(number)
    is_member = found[index][1]
    return Place(
        position=index + 1 if is_member else None,
        total=len(found) if is_member else len(found) - 1,
        previous=numbers[index - 1] if index else None,
        next=numbers[index + 1] if index + 1 < len(numbers) else None,
        first=next((row for row in numbers if row != number), None),
    )
