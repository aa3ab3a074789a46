"""The order of a queue, and a card's place in it, found without reading the whole queue.

By topic, so that what was just read is of use; within a topic shuffled for each reviewer, always the same way for the
same one, so that no rule is always read first or last; near-duplicates one after another, the lowest number first.
"""

from dataclasses import dataclass
from typing import Any

from django.db.models import BigIntegerField, Count, F, Func, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Cast, Coalesce, Collate

from pld_app.models import User
from rules.models import Decision, Instruction, Task
from rules.selectors.review_filter import ReviewFilter, view_rows
from rules.selectors.tags import tag_names

ORDER = ("subject", "spot", "family", "number")
# Names of annotations, which the stubs of Django cannot see through a call.
_SUBJECT: Any = "subject"
_KEY: Any = ("spot", "family", "number")


def review_rows(task: Task, view: ReviewFilter, user: User) -> QuerySet[Instruction]:
    """The rows of one view in this reviewer's order, with what the queue's table shows of each."""
    last = Decision.objects.filter(instruction=OuterRef("pk")).order_by("-pk").values("at")[:1]
    rows = in_order(view_rows(task, view, user), user).annotate(came_back_at=Subquery(last), tag_names=tag_names())
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


def place_of(instruction: Instruction, view: ReviewFilter, user: User) -> Place:
    """The card's neighbours in the view's order, by number. After a decision the card itself has often left the view;
    its neighbours are then those of the place it left.

    Two queries, of the card's own topic and of the counts; one more for each neighbour in another topic.
    """
    rows = _keyed(view_rows(instruction.task, view, user), user)
    here = list(_keys(rows.filter(Q(subject=instruction.topic)).order_by(*ORDER)))
    me = next((key for key in here if key[2] == instruction.number), None)
    key = me or _keys(_keyed(Instruction.objects.filter(pk=instruction.pk), user)).get()
    before, behind = [one for one in here if one < key], [one for one in here if one > key]
    # Counted by topic alone: only the card's own topic needs the order within.
    earlier = Count("pk", filter=Q(subject__lt=instruction.topic))
    counts = _subjects(view_rows(instruction.task, view, user)).aggregate(total=Count("pk"), earlier=earlier)
    return Place(
        position=counts["earlier"] + len(before) + 1 if me else None,
        total=counts["total"],
        previous=before[-1][2] if before else _beyond(rows, Q(subject__lt=instruction.topic), "-"),
        next=behind[0][2] if behind else _beyond(rows, Q(subject__gt=instruction.topic), ""),
    )


def _keys(rows: QuerySet[Instruction]) -> QuerySet[Any, tuple[int, int, int]]:
    """Place, family and number, which order the rows of one topic."""
    return rows.values_list(*_KEY)


def _beyond(rows: QuerySet[Instruction], topics: Q, direction: str) -> int | None:
    """The number of the nearest row in another topic: its topic from the index, then the first or last within it."""
    nearest = rows.filter(topics).order_by(f"{direction}subject").values(_SUBJECT)[:1]
    found = rows.filter(Q(subject=Subquery(nearest))).order_by(*(f"{direction}{name}" for name in ORDER))
    return found.values_list("number", flat=True).first()


def after(instruction: Instruction, rows: QuerySet[Instruction], user: User) -> list[QuerySet[Instruction]]:
    """The rows that follow a card, in parts to try in turn: the rest of its topic, later topics, all from the start."""
    me = _keyed(Instruction.objects.filter(pk=instruction.pk), user).values(*ORDER).get()
    keyed = in_order(rows.exclude(pk=instruction.pk), user)
    here, later = keyed.filter(Q(subject=instruction.topic)), keyed.filter(Q(subject__gt=instruction.topic))
    return [here.filter(_behind(me)), later, keyed]


def _behind(key: dict[str, Any]) -> Q:
    """Of the same topic, what comes after the key."""
    spot, family, number = key["spot"], key["family"], key["number"]
    same_family = Q(family__gt=family) | Q(family=family, number__gt=number)
    return Q(spot__gt=spot) | Q(spot=spot) & same_family
