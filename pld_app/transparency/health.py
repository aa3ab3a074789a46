"""How the log stands: what is sealed, how far behind, which copies are outside. For pages and `/healthz`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Max, OuterRef, Subquery
from django.db.models.functions import Now

from pld_app.models import AuditAlarm, AuditEvent, AuditSink, Checkpoint, SealedLeaf

# Behind for longer than this, somebody should look: several rounds of the sealer and a slow writer fit into it.
LATE_AFTER = timedelta(seconds=max(60.0, 6 * settings.AUDIT_SEAL_S))


@dataclass(frozen=True)
class SinkHealth:
    """One place outside: the newest size that arrived there, and how it went last."""

    name: str
    size: int
    last_ok_at: datetime | None
    failures: int
    last_error: str


@dataclass(frozen=True)
class LogHealth:
    """`lag` is how long the oldest unsealed event has waited; zero when all are sealed."""

    sealed: int
    unsealed: int
    sealed_at: datetime | None
    lag: timedelta
    key: str
    sinks: tuple[SinkHealth, ...]
    alarm: AuditAlarm | None

    @property
    def is_late(self) -> bool:
        return self.lag > LATE_AFTER

    @property
    def has_copy(self) -> bool:
        """Whether the newest checkpoint has arrived somewhere outside."""
        return any(sink.size == self.sealed for sink in self.sinks)

    @property
    def word(self) -> str:
        """One word for `/healthz`."""
        if self.alarm is not None:
            return "alarm"
        if self.is_late:
            return "late"
        return "sealed"


def log_health() -> LogHealth:
    """Seven short queries, whatever the length of the log."""
    newest = Checkpoint.objects.select_related("key").order_by("-pk").first()
    size = newest.size if newest else 0
    last = SealedLeaf.objects.filter(index=size - 1).values_list("event_id", flat=True).first() or 0
    waiting = AuditEvent.objects.filter(pk__gt=last)
    oldest = waiting.order_by("pk").annotate(now=Now()).values_list("at", "now").first()
    alarm = AuditAlarm.objects.order_by("-pk").first()
    return LogHealth(
        sealed=size,
        unsealed=waiting.count(),
        sealed_at=newest.at if newest else None,
        lag=max(oldest[1] - oldest[0], timedelta()) if oldest else timedelta(),
        key=str(newest.key) if newest else "",
        sinks=tuple(_sinks()),
        alarm=alarm if alarm is not None and alarm.state == AuditAlarm.State.RAISED else None,
    )


def _sinks() -> Iterable[SinkHealth]:
    arrived = dict(
        Checkpoint.objects.filter(copies__isnull=False)
        .values_list("copies__sink")
        .annotate(size=Max("size"))
        .values_list("copies__sink", "size")
    )
    for sink in AuditSink.objects.order_by("name"):
        yield SinkHealth(sink.name, arrived.get(sink.name, 0), sink.last_ok_at, sink.failures, sink.last_error)


@dataclass(frozen=True)
class SealState:
    """Where an event stands in the tree: `covered_by` is the size of the first checkpoint that covers it."""

    index: int
    covered_by: int
    at: datetime


def seal_states(event_ids: Iterable[int]) -> dict[int, SealState]:
    """The seal of each event that has one, in one query; an event that is missing here is not sealed yet."""
    covering = Checkpoint.objects.filter(size__gt=OuterRef("index")).order_by("size", "pk")
    leaves = SealedLeaf.objects.filter(event_id__in=list(event_ids)).annotate(
        covered_by=Subquery(covering.values("size")[:1]), sealed_at=Subquery(covering.values("at")[:1])
    )
    rows = leaves.values_list("event_id", "index", "covered_by", "sealed_at")
    return {event_id: SealState(index, size, at) for event_id, index, size, at in rows}
