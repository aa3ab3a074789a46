"""The order of a queue, and a card's place in it, found without reading the whole queue.

By topic, so that what was just read is of use; within a topic shuffled for each reviewer, always the same way for the
same one, so that no rule is always read first or last; near-duplicates one after another, the lowest number first.
"""

from dataclasses import dataclass
from typing import Any

from django.db.models import BigIntegerField, Count, F, Func, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Cast, Coalesce

from pld_app.models import User
from rules.models import Decision, Instruction, Task
from rules.selectors.review_filter import ReviewFilter, view_rows

ORDER = ("topic", "spot", "family", "number")
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
    return rows.annotate(family=Coalesce(F("near_duplicate__family"), F("number"))).annotate(spot=spot)


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
    counts = _keyed(rows, user).aggregate(
        total=Count("pk"),
        before=Count("pk", filter=_before(around)),
        inside=Count("pk", filter=Q(pk=instruction.pk)),
    )
    return Place(
        position=counts["before"] + 1 if counts["inside"] else None,
        total=counts["total"],
        previous=_first_of(around, "previous_here", "previous_before"),
        next=_first_of(around, "next_here", "next_after"),
        first=around["first"],
    )


def after(instruction: Instruction, rows: QuerySet[Instruction], user: User) -> list[QuerySet[Instruction]]:
    """The rows that follow a card, in parts to try in turn: the rest of its topic, later topics, all from the start."""
    me = _keyed(Instruction.objects.filter(pk=instruction.pk), user).values(*ORDER).get()
    keyed = in_order(rows.exclude(pk=instruction.pk), user)
    here, later = keyed.filter(topic=instruction.topic), keyed.filter(topic__gt=instruction.topic)
    return [here.filter(_behind(me)), later, keyed]


def _first_of(found: dict[str, Any], *names: str) -> int | None:
    numbers = (found[name] for name in names)
    return next((number for number in numbers if isinstance(number, int)), None)


def _around(instruction: Instruction, rows: QuerySet[Instruction], user: User) -> dict[str, Any]:
    """The card's own key and the numbers beside it, in one query of its row with a short subquery for each."""
    rows = _keyed(rows.exclude(pk=instruction.pk), user)
    key = {name: OuterRef(name) for name in ORDER}
    here = rows.filter(topic=instruction.topic)
    later, earlier = rows.filter(topic__gt=instruction.topic), rows.filter(topic__lt=instruction.topic)
    row = _keyed(Instruction.objects.filter(pk=instruction.pk), user).annotate(
        next_here=_number(here.filter(_behind(key)), ORDER),
        next_after=_number(rows.filter(topic=_topic(later, "topic")), ORDER),
        previous_here=_number(here.filter(_ahead(key)), _BACKWARDS),
        previous_before=_number(rows.filter(topic=_topic(earlier, "-topic")), _BACKWARDS),
        first=_number(rows.filter(topic=_topic(rows, "topic")), ORDER),
    )
    beside = ("next_here", "next_after", "previous_here", "previous_before", "first")
    found: dict[str, Any] = row.values(*ORDER, *beside).get()
    return found


def _number(rows: QuerySet[Instruction], order: tuple[str, ...]) -> Subquery:
    return Subquery(rows.order_by(*order).values("number")[:1])


def _topic(rows: QuerySet[Instruction], order: str) -> Subquery:
    """The next topic that has something in the view: an index finds it without sorting the rest."""
    return Subquery(rows.order_by(order).values("topic")[:1])


def _behind(key: dict[str, Any]) -> Q:
    """Of the same topic, what comes after the key."""
    spot, family, number = key["spot"], key["family"], key["number"]
    same_family = Q(family__gt=family) | Q(family=family, number__gt=number)
    return Q(spot__gt=spot) | Q(spot=spot) & same_family


def _ahead(key: dict[str, Any]) -> Q:
    spot, family, number = key["spot"], key["family"], key["number"]
    same_family = Q(family__lt=family) | Q(family=family, number__lt=number)
    return Q(spot__lt=spot) | Q(spot=spot) & same_family


def _before(key: dict[str, Any]) -> Q:
    return Q(topic__lt=key["topic"]) | Q(topic=key["topic"]) & _ahead(key)
