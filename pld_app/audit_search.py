"""Finding events: the filters of the log, its pages by key, counts beside them, and the searches people keep."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.contrib.postgres.search import SearchQuery, SearchVectorField
from django.db import connection
from django.db.models import F, Func, Q, QuerySet
from django.shortcuts import get_object_or_404

from pld_app.models import AuditEvent, AuditQuery, User

PER_PAGE = 50
# Reading the log writes events too; left out unless asked for, they would soon be most of what is found.
READINGS = ("audit.searched", "audit.viewed")
# Counts stop here: they say where to look, and a million rows would be counted for nobody.
COUNTED = 10_000
FACETS_SHOWN = 8


@dataclass(frozen=True)
class AuditSearch:
    """What is asked of the log; empty values ask for nothing. Days are whole and in UTC."""

    actor: int | None = None
    action: str = ""
    object_type: str = ""
    object_id: str = ""
    object: str = ""
    task: str = ""
    text: str = ""
    request: str = ""
    since: date | None = None
    until: date | None = None
    readings: bool = False

    @property
    def query(self) -> str:
        """The search as it stands in an address: the same search gives the same text."""
        said = {one.name: getattr(self, one.name) for one in fields(self)}
        said["readings"] = "on" if self.readings else ""
        return urlencode({name: value for name, value in sorted(said.items()) if value})

    @property
    def is_dated(self) -> bool:
        """Then pages go by time, which has an index of its own; numbers and times go up together but for moments."""
        return self.since is not None or self.until is not None

    def events(self) -> QuerySet[AuditEvent]:
        """The events that match, newest first."""
        events = AuditEvent.objects.filter(**self._exact())
        if not self.readings and self.action not in READINGS:
            events = events.exclude(action__in=READINGS)
        if self.text or self.object:
            events = events.alias(
                words=Func(F("object_label"), F("data"), function="pld_audit_words", output_field=SearchVectorField())
            )
        if self.text:
            events = events.filter(words=SearchQuery(self.text, config="simple", search_type="websearch"))  # type: ignore[misc]  # an alias made above
        if self.object:
            events = events.filter(_label_begins(self.object))
        if self.since is not None:
            events = events.filter(at__gte=datetime.combine(self.since, time.min, UTC))
        if self.until is not None:
            events = events.filter(at__lte=datetime.combine(self.until, time.max, UTC))
        return events.order_by(*(("-at", "-pk") if self.is_dated else ("-pk",)))

    def _exact(self) -> dict[str, Any]:
        named = {
            "actor": self.actor,
            "action": self.action,
            "object_type": self.object_type,
            "object_id": self.object_id,
            "task_slug": self.task,
            "request_id": self.request,
        }
        return {name: value for name, value in named.items() if value}


def _label_begins(text: str) -> Q:
    """Every word given begins a word of the object's label."""
    words = re.findall(r"\w+", text)
    if not words:
        return Q(pk__lt=0)  # nothing, in words that an outer statement can hold
    return Q(words=SearchQuery(" & ".join(f"{word}:*A" for word in words), config="simple", search_type="raw"))


@dataclass(frozen=True)
class EventPage:
    """Some of the events found, newest first; the ids lead on to older and back to newer ones, None where none are."""

    object_list: list[AuditEvent]
    older: int | None
    newer: int | None

    def __iter__(self) -> Any:
        return iter(self.object_list)


def events_page(search: AuditSearch, *, before: int | None = None, after: int | None = None) -> EventPage:
    """The page that follows the event `before`, or that goes before the event `after`; else the first.

    By key, so that page 1,000 costs what page 1 does.
    """
    found = search.events()
    if before is not None:
        rows = list(_beyond(search, found, before, "lt")[: PER_PAGE + 1])
        return _page(rows[:PER_PAGE], has_older=len(rows) > PER_PAGE, has_newer=True)
    if after is not None:
        rows = list(_beyond(search, found.reverse(), after, "gt")[: PER_PAGE + 1])
        return _page(rows[:PER_PAGE][::-1], has_older=True, has_newer=len(rows) > PER_PAGE)
    rows = list(found[: PER_PAGE + 1])
    return _page(rows[:PER_PAGE], has_older=len(rows) > PER_PAGE, has_newer=False)


def _beyond(search: AuditSearch, found: QuerySet[AuditEvent], pk: int, way: str) -> QuerySet[AuditEvent]:
    at = AuditEvent.objects.filter(pk=pk).values_list("at", flat=True).first() if search.is_dated else None
    if at is None:
        return found.filter(**{f"pk__{way}": pk})
    # The first condition alone uses the index of times; the second tells apart what happened at the same moment.
    return found.filter(Q(**{f"at__{way}": at}) | Q(at=at, **{f"pk__{way}": pk}), **{f"at__{way}e": at})


def _page(rows: list[AuditEvent], *, has_older: bool, has_newer: bool) -> EventPage:
    older = rows[-1].pk if rows and has_older else None
    newer = rows[0].pk if rows and has_newer else None
    return EventPage(rows, older, newer)


@dataclass(frozen=True)
class Facet:
    """One value of a field with how many of the counted events have it; `name` is what people call it."""

    value: str
    name: str
    count: int


@dataclass(frozen=True)
class Facets:
    """Counts over the newest 10,000 events found; `is_capped` says that there are more."""

    total: int
    is_capped: bool
    by_field: Mapping[str, Sequence[Facet]]


def facets(search: AuditSearch) -> Facets:
    """One query, however long the log is."""
    columns = ("action", "object_type", "actor", "task_slug")
    newest = search.events().values_list("action", "object_type", "actor_id", "actor_name", "task_slug")
    inner, values = newest[: COUNTED + 1].query.sql_with_params()
    statement = f"""
        SELECT action, object_type, actor, task_slug, max(actor_name), count(*)
          FROM ({inner}) AS found (action, object_type, actor, actor_name, task_slug)
         GROUP BY GROUPING SETS ((action), (object_type), (actor), (task_slug), ())
         ORDER BY count(*) DESC, 1, 2, 3, 4
    """  # noqa: S608  # our own columns around a statement of the ORM
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows = cursor.fetchall()
    total, by_field = 0, dict[str, list[Facet]]()
    for row in rows:
        given = next((column for column, value in zip(columns, row, strict=False) if value not in {None, ""}), "")
        if given:
            value = str(row[columns.index(given)])
            by_field.setdefault(given, []).append(Facet(value, row[4] if given == "actor" else value, row[5]))
        total = max(total, row[5])
    return Facets(
        total=min(total, COUNTED),
        is_capped=total > COUNTED,
        by_field={name: found[:FACETS_SHOWN] for name, found in by_field.items()},
    )


def values_of(column: str) -> list[str]:
    """The values a column of the log has, in order: one look into its index a value, not a row read for each event."""
    statement = f"""
        WITH RECURSIVE known AS (
          (SELECT min({column}) AS value FROM pld_app_auditevent)
          UNION ALL
          SELECT (SELECT min({column}) FROM pld_app_auditevent WHERE {column} > known.value)
            FROM known WHERE known.value IS NOT NULL)
        SELECT value FROM known WHERE value IS NOT NULL
    """  # noqa: S608  # a column named by our own code
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [str(row[0]) for row in cursor.fetchall() if row[0]]


def searches_for(user: User) -> QuerySet[AuditQuery]:
    """A private one is seen by its owner and nobody else."""
    return AuditQuery.objects.filter(Q(is_shared=True) | Q(owner=user)).select_related("owner")


def search_get(slug: str, user: User) -> AuditQuery:
    """404 for another's private one, as for one that does not exist."""
    return get_object_or_404(searches_for(user), slug=slug)


def query_of(saved: AuditQuery) -> dict[str, str]:
    return dict(parse_qsl(saved.query))
