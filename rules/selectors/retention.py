"""What is kept for how long, what is held, what is to be erased, and what pruning would remove."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from pld_app.models import AuditEvent, User, UserSession
from rules.models import (
    CommentVersion,
    Draft,
    ErasureKind,
    LegalHold,
    PolicyVerdict,
    RetentionPolicy,
    Task,
    Trace,
)
from rules.models.retention import DEFAULT_MONTHS

type Value = int | str | datetime | None
# Working data without a record of their own: gone this long after they are of use to anybody.
SESSIONS_FOR, DRAFTS_FOR = timedelta(days=30), timedelta(days=183)


def policies_in_force() -> QuerySet[RetentionPolicy]:
    confirmed = Q(decision__verdict=PolicyVerdict.CONFIRMED) | Q(replaces=None)
    return RetentionPolicy.objects.filter(confirmed).select_related("task", "proposed_by", "decision").order_by("-pk")


def policy_for(task: Task | None) -> RetentionPolicy | None:
    """The policy in force for a task, else the installation's; None where nobody ever asked: 84 months."""
    own = policies_in_force().filter(task=task).first() if task is not None else None
    return own or policies_in_force().filter(task=None).first()


@dataclass(frozen=True)
class Kept:
    """How long texts of a task (None: of the installation) are kept, and whether that is its own period."""

    task: Task | None
    months: int
    is_own: bool


def retention_table() -> list[Kept]:
    """The installation's period and then each task's."""
    own = dict[int | None, int]()
    for one in policies_in_force():
        own.setdefault(one.task_id, one.months)
    house = own.get(None, DEFAULT_MONTHS)
    tasks = Task.objects.order_by("name").only("name", "slug")
    return [Kept(None, house, True), *(Kept(one, own.get(one.pk, house), one.pk in own) for one in tasks)]


def proposals() -> QuerySet[RetentionPolicy]:
    open_ = RetentionPolicy.objects.filter(decision=None, replaces__isnull=False)
    return open_.select_related("task", "proposed_by", "replaces")


def holds() -> QuerySet[LegalHold]:
    """Those that stand first."""
    return LegalHold.objects.select_related("task", "actor", "release").order_by(
        F("release").asc(nulls_first=True), "-pk"
    )


def server_time() -> datetime:
    """Postgres's clock, by which periods are over."""
    now: datetime = _one("SELECT clock_timestamp()")
    return now


def _one(statement: str, values: Sequence[Value] = ()) -> Any:  # whatever the statement gives
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchone()[0]


# Erasing.


@dataclass(frozen=True)
class Text:
    """One thing an erasure names: what it is, what stands there now, and whether a hold covers it."""

    kind: str
    object_id: int
    sha256: str
    what: str
    words: str
    is_held: bool

    @property
    def kind_label(self) -> str:
        return str(ErasureKind(self.kind).label)


def text_to_erase(kind: str, object_id: int) -> Text | None:
    """The text, or None for what is not there, is erased already, or cannot be erased."""
    digest = _one("SELECT pld_item_sha256(%s, %s)", [kind, object_id])
    if digest is None:
        return None
    what, words = text_as_it_stands(kind, object_id)
    return Text(
        kind, object_id, str(digest), what, words, bool(_one("SELECT pld_item_held(%s, %s)", [kind, object_id]))
    )


def text_as_it_stands(kind: str, object_id: int) -> tuple[str, str]:
    """What the object is called and the words that stand there now: after an erasure, their tombstone."""
    if kind == ErasureKind.EVENT:
        event = AuditEvent.objects.get(pk=object_id)
        return event.sentence, "\n".join(f"{name}: {value}" for name, value in event.facts)
    if kind == ErasureKind.COMMENT:
        version = CommentVersion.objects.select_related("comment__instruction", "author").get(pk=object_id)
        return f"{version.comment.instruction}, {version.author}", version.body
    if kind == ErasureKind.TRACE:
        trace = Trace.objects.get(pk=object_id)
        return str(trace), "\n".join([*map(str, trace.input.values()), trace.rationale, trace.instruction])
    user = User.objects.get(pk=object_id)
    return user.username, f"{user.display_name}\n{user.email}"


# Pruning.


@dataclass(frozen=True)
class Prunable:
    """What pruning would remove now, for one task (None: the ledger of calls). `digest` is over the ids, one a line."""

    task: Task | None
    cutoff: datetime
    count: int
    digest: str


def _prunable(task: Task | None, cutoff: datetime, statement: str, values: Sequence[Value]) -> Prunable:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        ids = [int(row[0]) for row in cursor.fetchall()]
    digest = hashlib.sha256("".join(f"{one}\n" for one in ids).encode()).hexdigest()
    return Prunable(task, cutoff, len(ids), digest)


def prunable_of(task: Task | None) -> Prunable:
    """What of this task (None: of the ledger) is past its period and under no hold, by the database's clock."""
    pk = task.pk if task is not None else None
    cutoff: datetime = _one("SELECT clock_timestamp() - make_interval(months => pld_retention_months(%s))", [pk])
    if task is None:
        return _prunable(None, cutoff, "SELECT pld_prunable_calls(%s)", [cutoff])
    return _prunable(task, cutoff, "SELECT pld_prunable_traces(%s, %s)", [task.pk, cutoff])


def prunable() -> list[Prunable]:
    """Everything past its period, where there is something."""
    found = [prunable_of(task) for task in [None, *Task.objects.order_by("pk")]]
    return [one for one in found if one.count]


def _held() -> QuerySet[LegalHold]:
    return LegalHold.objects.filter(release=None)


def sessions_past() -> QuerySet[UserSession]:
    """Sessions that ended 30 days ago; none while everything is held."""
    past = UserSession.objects.filter(expire_date__lt=timezone.now() - SESSIONS_FOR)
    return past.none() if _held().filter(scope="all").exists() else past


def drafts_past() -> QuerySet[Draft]:
    """Unsent text nobody touched for half a year, of tasks that are not held."""
    past = Draft.objects.filter(updated_at__lt=timezone.now() - DRAFTS_FOR)
    if _held().filter(scope="all").exists():
        return past.none()
    return past.exclude(instruction__task__in=_held().filter(scope="task").values("task"))
