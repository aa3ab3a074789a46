"""The order of a queue, and a card's place in it, found without reading the whole queue.

By topic, so that what was just read is of use; within a topic shuffled for each reviewer, always the same way for the
same one, so that no rule is always read first or last; near-duplicates one after another, the lowest number first.
"""

from dataclasses import dataclass
from typing import Any

from django.db.models import BigIntegerField, Count, Exists, F, Func, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Cast, Coalesce, Collate

from pld_app.models import User
from rules.models import Decision, Instruction, Task
from rules.selectors.review_filter import ReviewFilter, view_rows

ORDER = ("subject", "spot", "family", "number")
# A name of `_subjects`, which the stubs of Django cannot see through a call.
_SUBJECT: Any = "subject"
_BACKWARDS = tuple(f"-{name}" for name in ORDER)


def review_rows(task: Task, view: ReviewFilter, user: User) -> QuerySet[Instruction]:
    """The rows of one view in this reviewer's order, with what the queue's table shows of each."""
    last = Decision.objects.filter(instruction=OuterRef("pk")).order_by("-pk").values("at")[:1]
    rows = in_order(view_rows(task, view, user), user).annotate(came_back_at=Subquery(last))
    return rows.select_related("current_revision__author", "assignment__person")


def in_order(rows: QuerySet[Instruction], user: User) -> QuerySet[Instruction]:
    """The rows in this reviewer's order, with `family` and `spot`, their place within a topic."""
    return _keyed(rows, user).order_by(*ORDER)


def _keyed(rows: QuerySet[Instruction], user: User) -> QuerySet[Instruction]:
    # Postgres' own hash with the account as its seed: nothing is stored, and 20,000 rows take two milliseconds.
    seed = Value(user.pk, output_field=BigIntegerField())
    family = Cast("family", BigIntegerField())
    spot = Func(family, seed, function="hashint8extended", output_field=BigIntegerField())
    rows = _subjects(rows).annotate(family=Coalesce(F("near_duplicate__family"), F("number")))
    return rows.annotate(spot=spot)


def _subjects(rows: QuerySet[Instruction]) -> QuerySet[Instruction]:
    """With the topic as bytes: comparing by the rules of a language costs ten times more and means nothing here."""
    return rows.annotate(subject=Collate("topic", "C"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a card stands in a view: 1-based, None when it is not (or no longer) part of it."""

    position: int | None
    total: int
    previous: int | None
    next: int | None
    first: int | None


def place_of(instruction: Instruction, view: ReviewFilter, user: User) -> Place:
    """The card's neighbours in the view's order, by number. After a decision the card itself has often left the view;
    its neighbours are then those of the place it left.

    Two queries, which read the index of one topic for the neighbours and count the view once.
    """
    rows = view_rows(instruction.task, view, user)
    around = _around(instruction, rows, user)
    # Counted by topic alone: only the card's own topic needs the order within.
    earlier = Count("pk", filter=Q(subject__lt=instruction.topic))
    counts = _subjects(rows).aggregate(total=Count("pk"), earlier=earlier)
    return Place(
        position=counts["earlier"] + around["before_here"] + 1 if around["inside"] else None,
        total=counts["total"],
        previous=_first_of(around, "previous_here", "previous_before"),
        next=_first_of(around, "next_here", "next_after"),
        first=around["first"],
    )


def after(instruction: Instruction, rows: QuerySet[Instruction], user: User) -> list[QuerySet[Instruction]]:
    """The rows that follow a card, in parts to try in turn: the rest of its topic, later topics, all from the start."""
    me = _keyed(Instruction.objects.filter(pk=instruction.pk), user).values(*ORDER).get()
    keyed = in_order(rows.exclude(pk=instruction.pk), user)
    here, later = keyed.filter(Q(subject=instruction.topic)), keyed.filter(Q(subject__gt=instruction.topic))
    return [here.filter(_behind(me)), later, keyed]


def _first_of(found: dict[str, Any], *names: str) -> int | None:
    numbers = (found[name] for name in names)
    return next((number for number in numbers if isinstance(number, int)), None)


def _around(instruction: Instruction, rows: QuerySet[Instruction], user: User) -> dict[str, Any]:
    """The card's own key and the numbers beside it, in one query of its row with a short subquery for each."""
    within = rows
    rows = _keyed(rows.exclude(pk=instruction.pk), user)
    key = {name: OuterRef(name) for name in ORDER}
    here = rows.filter(Q(subject=instruction.topic))
    ahead = here.filter(_ahead(key))
    later, earlier = rows.filter(Q(subject__gt=instruction.topic)), rows.filter(Q(subject__lt=instruction.topic))
    row = _keyed(Instruction.objects.filter(pk=instruction.pk), user).annotate(
        next_here=_number(here.filter(_behind(key)), ORDER),
        next_after=_number(rows.filter(Q(subject=_topic(later, "subject"))), ORDER),
        previous_here=_number(ahead, _BACKWARDS),
        previous_before=_number(rows.filter(Q(subject=_topic(earlier, "-subject"))), _BACKWARDS),
        first=_number(rows.filter(Q(subject=_topic(rows, "subject"))), ORDER),
        before_here=Coalesce(Subquery(ahead.order_by().values("task").annotate(n=Count("pk")).values("n")), 0),
        inside=Exists(within.filter(pk=instruction.pk)),
    )
    beside = ("next_here", "next_after", "previous_here", "previous_before", "first", "before_here", "inside")
    found: dict[str, Any] = row.values(*ORDER, *beside).get()
    return found


def _number(rows: QuerySet[Instruction], order: tuple[str, ...]) -> Subquery:
    return Subquery(rows.order_by(*order).values("number")[:1])


def _topic(rows: QuerySet[Instruction], order: str) -> Subquery:
    """The next topic that has something in the view: an index finds it without sorting the rest."""
    return Subquery(rows.order_by(order).values(_SUBJECT)[:1])


def _behind(key: dict[str, Any]) -> Q:
    """Of the same topic, what comes after the key."""
    spot, family, number = key["spot"], key["family"], key["number"]
    same_family = Q(family__gt=family) | Q(family=family, number__gt=number)
    return Q(spot__gt=spot) | Q(spot=spot) & same_family


def _ahead(key: dict[str, Any]) -> Q:
    spot, family, number = key["spot"], key["family"], key["number"]
    same_family = Q(family__lt=family) | Q(family=family, number__lt=number)
    return Q(spot__lt=spot) | Q(spot=spot) & same_family
