"""Which instructions a reviewer is looking at, and in which order."""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from urllib.parse import urlencode

from django.db import models
from django.db.models import Count, Q

from pld_app.models import User
from rules.models import Instruction, InstructionStatus, InstructionTag, Task
from rules.selectors.review_counted import counted_for, listed_for
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
    tag: str = ""

    @property
    def query(self) -> str:
        return _query_of(self)

    @property
    def is_narrowed(self) -> bool:
        return bool(self.label or self.topic or self.text or self.mark or self.tag)

    def with_tab(self, tab: Tab) -> "ReviewFilter":
        return replace(self, tab=tab)


@lru_cache(maxsize=512)
def _query_of(view: ReviewFilter) -> str:
    """Every link of a card carries it: some thirty a page."""
    return urlencode({key: str(value) for key, value in asdict(view).items() if value})


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
    rows = Instruction.objects.filter(listed_for(user), task=task)
    if view.domain != ALL_DOMAINS:
        # One without a domain concerns everybody: leaving it out would let it wait for ever.
        rows = rows.filter(domain__in=[view.domain, ""])
    if view.label:
        rows = rows.filter(label=view.label)
    if view.topic:
        rows = rows.filter(topic=view.topic)
    if view.mark:
        rows = rows.filter(mark_condition(view.mark, user))
    if view.tag:
        rows = rows.filter(pk__in=InstructionTag.objects.filter(name=view.tag).values("instruction"))
    if view.text:
        rows = rows.filter(_search(view.text))
    return rows


def _search(text: str) -> Q:
    found = Q(current_revision__text__icontains=text) | Q(topic__icontains=text)
    number = text.removeprefix("#")
    return found | Q(number=int(number)) if number.isascii() and number.isdigit() and len(number) < 9 else found


def view_rows(task: Task, view: ReviewFilter, user: User, *, open_only: bool = False) -> models.QuerySet[Instruction]:
    """The rows of one view, in no order: rules.selectors.review_order gives them one."""
    rows = instructions_within(task, view, user).filter(tab_condition(view.tab, user))
    awaiting = [InstructionStatus.PROPOSED, InstructionStatus.IN_REVIEW]
    return rows.filter(status__in=awaiting) if open_only else rows


def queue_counts(task: Task, view: ReviewFilter, user: User) -> QueueCounts:
    """One query for all tabs; the other filters apply to every count."""
    counts = instructions_within(task, view, user).aggregate(
        decided=Count("pk", filter=tab_condition(Tab.APPROVED, user) | tab_condition(Tab.REJECTED, user)),
        total=Count("pk", filter=~Q(status=InstructionStatus.SUPERSEDED) & counted_for(user)),
        **{f"tab_{tab.value}": Count("pk", filter=tab_condition(tab, user)) for tab in Tab},
    )
    tabs = [TabCount(tab, counts[f"tab_{tab.value}"], view.with_tab(tab).query) for tab in Tab]
    return QueueCounts(tabs, counts["decided"], counts["total"])


def second_checks_elsewhere(task: Task, view: ReviewFilter, user: User) -> int:
    """Edits that wait for this person outside the domain they look at, so that none is left waiting unseen."""
    waiting = Instruction.objects.filter(listed_for(user), task=task).filter(tab_condition(Tab.SECOND, user))
    shown = instructions_within(task, view, user).filter(tab_condition(Tab.SECOND, user))
    return waiting.exclude(pk__in=shown.values("pk")).count()


def topics_of(task: Task) -> list[str]:
    rows = Instruction.objects.filter(task=task).exclude(topic="").order_by("topic")
    return list(rows.values_list("topic", flat=True).distinct())
