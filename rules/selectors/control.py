"""Emergency stops and schedules as pages show them."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Case, CharField, Prefetch, QuerySet, Value, When
from django.db.models.functions import Now

from rules.models import (
    ChannelName,
    EmergencyStop,
    Instruction,
    Ruleset,
    RulesetItem,
    ScheduledPublication,
    StopSignature,
    Task,
)
from rules.selectors.publishing import serving

SIGN_WITHIN = timedelta(hours=24)


@dataclass(frozen=True)
class StopRow:
    """A stop and where it stands: "lifted", "confirmed", "waiting" for its second signature or "overdue"."""

    stop: EmergencyStop
    state: str
    due: datetime
    confirmed: StopSignature | None
    lifted: StopSignature | None


def _rows(stops: QuerySet[EmergencyStop]) -> list[StopRow]:
    overdue = When(at__lte=Now() - SIGN_WITHIN, then=Value("overdue"))
    state = Case(overdue, default=Value("waiting"), output_field=CharField())
    signatures = Prefetch("signatures", StopSignature.objects.select_related("reauthentication"))
    rows = []
    for stop in stops.annotate(due_state=state).select_related("ruleset", "instruction").prefetch_related(signatures):
        by_kind = {one.kind: one for one in stop.signatures.all()}
        confirmed, lifted = by_kind.get("confirm"), by_kind.get("lift")
        where = "lifted" if lifted else "confirmed" if confirmed else stop.due_state
        rows.append(StopRow(stop, where, stop.at + SIGN_WITHIN, confirmed, lifted))
    return rows


def stops_active(task: Task) -> list[StopRow]:
    """Stops that hold something back now, newest first; two queries."""
    return _rows(EmergencyStop.objects.active().filter(task=task).defer("ruleset__prompt", "ruleset__manifest"))


def stops_history(task: Task, limit: int = 25) -> list[StopRow]:
    """The newest stops that were lifted."""
    lifted = EmergencyStop.objects.filter(task=task, signatures__kind="lift").order_by("-pk")
    return _rows(lifted.defer("ruleset__prompt", "ruleset__manifest"))[:limit]


@dataclass(frozen=True)
class Notice:
    """What every page of a task says while something is stopped."""

    what: str
    state: str
    by: str
    reason: str


def notices(slug: str) -> list[Notice]:
    """Active stops of a task by its slug; one query when there is none."""
    stops = EmergencyStop.objects.active().filter(task__slug=slug)
    if not stops.exists():
        return []
    rows = _rows(stops.defer("ruleset__prompt", "ruleset__manifest"))
    return [Notice(str(row.stop), row.state, row.stop.actor_name, row.stop.reason) for row in rows]


def stoppable(task: Task) -> list[tuple[str, str]]:
    """What can be stopped: releases that channels serve now, then their instructions; (value, words)."""
    served: dict[int, Ruleset] = {}
    for channel in ChannelName:
        publication = serving(task.pk, channel).publication
        if publication is not None:
            served[publication.release.ruleset_id] = publication.release.ruleset
    items = RulesetItem.objects.filter(ruleset__in=served).select_related("instruction", "revision")
    found: dict[int, tuple[Instruction, str]] = {}
    for item in items.order_by("instruction__number"):
        found[item.instruction_id] = (item.instruction, item.revision.text)
    return [
        *((f"ruleset:{pk}", str(ruleset)) for pk, ruleset in served.items()),
        *((f"instruction:{pk}", f"{one}: {text[:90]}") for pk, (one, text) in found.items()),
    ]


@dataclass(frozen=True)
class ScheduleRow:
    """A schedule and where it stands: "waiting", "published", "cancelled" or "failed"."""

    plan: ScheduledPublication
    state: str
    why: str


def schedules(task: Task, limit: int = 50) -> list[ScheduleRow]:
    """The newest schedules, with how each ended; one query."""
    plans = ScheduledPublication.objects.filter(task=task).select_related("release", "end", "publication")
    rows = []
    for plan in plans.defer("release__prompt")[:limit]:
        end, publication = getattr(plan, "end", None), getattr(plan, "publication", None)
        if publication is not None:
            rows.append(ScheduleRow(plan, "published", ""))
        else:
            rows.append(ScheduleRow(plan, end.kind if end else "waiting", end.reason if end else ""))
    return rows
