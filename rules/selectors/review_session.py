"""A stretch of one person's deciding, and the check items that were in it once it is over."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from pld_app.models import User
from rules.models import AWAY_SECONDS, DecisionKind, ReviewSession, SeedAnswer, Task
from rules.selectors.quality import Pace, is_over, pace_of_seconds


@dataclass(frozen=True, slots=True)
class SeedShown:
    """A check item with its key, shown to whoever answered it once their session is over."""

    answer: SeedAnswer
    text: str
    at: datetime


def seeds_revealed(task: Task, user: User) -> list[SeedShown]:
    """What this person answered in sessions that are over, newest first: what was right, and why."""
    over = is_over("event__judgement_context__session__")
    rows = SeedAnswer.objects.filter(over, user=user, seed__instruction__task=task)
    found = rows.select_related("seed__instruction", "seed__source").prefetch_related("seed__instruction__revisions")
    return [SeedShown(one, one.seed.instruction.revisions.all()[0].text, one.at) for one in found.order_by("-pk")[:50]]


@dataclass(frozen=True, slots=True)
class Session:
    """One stretch of deciding: how long it was and what became of the cards in it."""

    session: ReviewSession
    minutes: int
    kinds: list[tuple[str, int]]
    pace: Pace


def session_of(task: Task, user: User) -> Session | None:
    """The person's latest session in the task, open or ended. Check items are among its cards."""
    session = ReviewSession.objects.filter(task=task, user=user).first()
    if session is None:
        return None
    rows = list(session.judgements.values_list("kind", "seconds"))
    counted = Counter(kind for kind, _seconds in rows)
    timed = [seconds for _kind, seconds in rows if seconds is not None and seconds <= AWAY_SECONDS]
    return Session(
        session=session,
        minutes=round((session.last_at - session.started_at).total_seconds() / 60),
        kinds=[(str(kind.label), counted[kind]) for kind in DecisionKind if counted[kind]],
        pace=pace_of_seconds(timed),
    )
