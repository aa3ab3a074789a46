"""How well the review of a task goes: pace, second looks, agreement, check items, which count in nothing else."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median, quantiles

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from pld_app.models import Domain, Role, User
from rules.agreement import Agreement, Estimate, agreement_of, share
from rules.models import (
    AWAY_SECONDS,
    BiasNotice,
    Decision,
    DecisionKind,
    DoubleBasis,
    DoubleReview,
    Instruction,
    InstructionStatus,
    JudgementContext,
    Opinion,
    ReviewPause,
    ReviewSession,
    SeedAlarm,
    SeedAnswer,
    Task,
    Verdict,
    Waiting,
    quarter_of,
)

BURN_DAYS = 30
# A median of fewer times says too little.
TIMES_FROM = 5
_BLIND = frozenset({DoubleBasis.SAMPLE, DoubleBasis.CONFLICT, DoubleBasis.IMPACT})


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the stacked bar; `start` and `width` are in percent of the whole."""

    key: str
    count: int
    start: float
    width: float


def progress_of(task: Task) -> list[Part]:
    """Where the task's instructions stand: approved, rejected, disputed, in review, untouched."""
    rows = Instruction.objects.filter(task=task, is_seeded=False).exclude(status=InstructionStatus.SUPERSEDED)
    disputed = Q(waiting=Waiting.DISPUTED)
    counted = rows.aggregate(
        approved=Count("pk", filter=Q(status=InstructionStatus.APPROVED)),
        rejected=Count("pk", filter=Q(status=InstructionStatus.REJECTED)),
        disputed=Count("pk", filter=disputed),
        in_review=Count("pk", filter=Q(status=InstructionStatus.IN_REVIEW) & ~disputed),
        proposed=Count("pk", filter=Q(status=InstructionStatus.PROPOSED)),
    )
    total = sum(counted.values())
    parts, start = [], 0.0
    for key, count in counted.items():
        width = 100 * count / total if total else 0.0
        parts.append(Part(key, count, start, width))
        start += width
    return parts


@dataclass(frozen=True, slots=True)
class Day:
    day: date
    left: int


def burn_down(task: Task, *, today: date | None = None) -> list[Day]:
    """How many were left to decide at the end of each of the last 30 days (UTC), from the first with any."""
    last = today or timezone.now().date()
    first = last - timedelta(days=BURN_DAYS - 1)
    rows = Instruction.objects.filter(task=task, is_seeded=False).exclude(status=InstructionStatus.SUPERSEDED)
    changes: Counter[date] = Counter()
    for at in rows.values_list("created_at", flat=True):
        changes[max(at.date(), first)] += 1
    settling = {DecisionKind.APPROVE: -1, DecisionKind.REJECT: -1, DecisionKind.REOPEN: 1}
    decisions = Decision.objects.filter(instruction__in=rows, kind__in=settling)
    for kind, at in decisions.values_list("kind", "at"):
        changes[max(at.date(), first)] += settling[DecisionKind(kind)]
    days, left = [], 0
    for place in range(BURN_DAYS):
        day = first + timedelta(days=place)
        left += changes[day]
        days.append(Day(day, left))
    begun = next((place for place, day in enumerate(days) if changes[day.day]), len(days))
    return days[begun:]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds from opening a card to its decision; None below 5 times. Cards left open over half an hour are out."""

    median: float | None
    p90: float | None
    n: int


def _pace(seconds: list[float]) -> Pace:
    if len(seconds) < TIMES_FROM:
        return Pace(None, None, len(seconds))
    return Pace(median(seconds), quantiles(seconds, n=10, method="inclusive")[8], len(seconds))


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of one person, one domain or all; each has its own n."""

    name: str
    judgements: int
    approved: int
    rejected: int
    edited: int
    pace: Pace
    seen_before: Estimate
    fast: Estimate
    overturned: Estimate
    seeds_caught: Estimate
    good_kept: Estimate
    agreement: Agreement
    pause: ReviewPause | None = None
    alarms: int = 0
    notice_due: bool = False
    username: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the figures of a task are made of, loaded once for all of them (`facts_of`)."""

    task: Task
    judgements: list[JudgementContext]
    overturns: list[tuple[int, bool]]
    answers: list[SeedAnswer]
    doubles: list["Pair"]


@dataclass(frozen=True, slots=True)
class Pair:
    """The two blind opinions on one instruction, first and second as they came."""

    instruction: Instruction
    first: Opinion
    second: Opinion
    third: Opinion | None

    @property
    def agrees(self) -> bool:
        return self.first.verdict == self.second.verdict

    @property
    def verdicts(self) -> tuple[str, str]:
        return self.first.verdict, self.second.verdict


def _pairs(task: Task) -> list[Pair]:
    """The first complete blind pair of each instruction; where an author's endorsement is one of two, none is blind."""
    doubles = DoubleReview.objects.filter(
        instruction__task=task, instruction__is_seeded=False, reader__isnull=True, bases__overlap=sorted(_BLIND)
    )
    rows = doubles.select_related("instruction", "revision").prefetch_related("opinions__actor").order_by("pk")
    found: dict[int, Pair] = {}
    for double in rows:
        given = list(double.opinions.all())
        is_blind = double.revision.author_id is None
        if is_blind and len(given) >= 2 and double.instruction_id not in found:
            third = given[2] if len(given) > 2 else None
            found[double.instruction_id] = Pair(double.instruction, given[0], given[1], third)
    return sorted(found.values(), key=lambda pair: pair.instruction.number)


def disagreements_of(facts: Facts) -> list[Pair]:
    return [pair for pair in facts.doubles if not pair.agrees]


def facts_of(task: Task) -> Facts:
    judgements = list(
        JudgementContext.objects.filter(instruction__task=task, instruction__is_seeded=False)
        .select_related("instruction", "actor")
        .order_by("event")
    )
    answers = list(SeedAnswer.objects.filter(seed__instruction__task=task).select_related("seed"))
    pairs = _pairs(task)
    return Facts(task, judgements, _overturns(task, pairs), answers, pairs)


def _overturns(task: Task, pairs: Iterable[Pair]) -> list[tuple[int, bool]]:
    """(who, whether it was overturned) of each first judgement that decided or was looked at again.

    A decision is overturned when it is reopened by somebody else; a blind first opinion when the outcome is the other.
    """
    found: list[tuple[int, bool]] = []
    decisions = Decision.objects.filter(
        instruction__task=task,
        instruction__is_seeded=False,
        kind__in=[DecisionKind.APPROVE, DecisionKind.REJECT, DecisionKind.REOPEN],
    ).order_by("instruction", "pk")
    previous: Decision | None = None
    for one in decisions:
        same = previous is not None and previous.instruction_id == one.instruction_id
        if same and previous is not None and one.kind == DecisionKind.REOPEN:
            found[-1] = (previous.actor_id, one.actor_id != previous.actor_id)
        elif one.kind != DecisionKind.REOPEN:
            found.append((one.actor_id, False))
        previous = one
    for pair in pairs:
        settled = pair.third or pair.second
        if pair.agrees or pair.third is not None:
            found.append((pair.first.actor_id, settled.verdict != pair.first.verdict))
    return found


def _quality(name: str, facts: Facts, people: set[int] | None, **more: object) -> Quality:
    def theirs(user_id: int) -> bool:
        return people is None or user_id in people

    judgements = [one for one in facts.judgements if theirs(one.actor_id)]
    kinds = Counter(one.kind for one in judgements)
    timed = [one.seconds for one in judgements if one.seconds is not None and one.seconds <= AWAY_SECONDS]
    opened = [one for one in judgements if one.seconds is not None]
    overturns = [overturned for who, overturned in facts.overturns if theirs(who)]
    answers = [one for one in facts.answers if theirs(one.user_id)]
    bad = [one.is_right for one in answers if one.seed.expected == Verdict.REJECT]
    good = [one.is_right for one in answers if one.seed.expected == Verdict.APPROVE]
    pairs = [one for one in facts.doubles if theirs(one.first.actor_id) or theirs(one.second.actor_id)]
    return Quality(
        name=name,
        judgements=len(judgements),
        approved=kinds[DecisionKind.APPROVE],
        rejected=kinds[DecisionKind.REJECT],
        edited=kinds[DecisionKind.EDIT],
        pace=_pace(timed),
        seen_before=share(sum(one.seen_before for one in opened), len(opened)),
        fast=share(sum(one.is_fast for one in opened), len(opened)),
        overturned=share(sum(overturns), len(overturns)),
        seeds_caught=share(sum(bad), len(bad)),
        good_kept=share(sum(good), len(good)),
        agreement=agreement_of([pair.verdicts for pair in pairs], Verdict.values),
        **more,  # type: ignore[arg-type]  # the remaining fields, named by the caller
    )


def quality_of_task(facts: Facts) -> Quality:
    """Over everybody."""
    return _quality("", facts, None)


def quality_of_person(facts: Facts, user: User) -> Quality:
    return _people(facts, [user])[0]


def quality_by_person(facts: Facts) -> list[Quality]:
    """Every reviewer who has judged something in the task or is an active reviewer, by name."""
    known = {one.actor_id for one in facts.judgements} | {one.user_id for one in facts.answers}
    reviewers = User.objects.filter(Q(pk__in=known) | Q(role=Role.REVIEWER, is_active=True))
    return _people(facts, reviewers.order_by("display_name", "pk"))


def quality_by_domain(facts: Facts) -> list[Quality]:
    """By the domain reviewers work in now."""
    members: dict[str, set[int]] = defaultdict(set)
    for pk, domain in User.objects.filter(role=Role.REVIEWER).values_list("pk", "domain"):
        members[domain].add(pk)
    return [_quality(str(Domain(domain).label), facts, members[domain]) for domain in Domain.values]


def _people(facts: Facts, users: Iterable[User] | QuerySet[User]) -> list[Quality]:
    pauses = {one.user_id: one for one in ReviewPause.objects.filter(task=facts.task, lifted_at__isnull=True)}
    alarms = Counter(SeedAlarm.objects.filter(task=facts.task).values_list("user", flat=True))
    read = set(BiasNotice.objects.filter(quarter=quarter_of(timezone.now())).values_list("user", flat=True))
    return [
        _quality(
            str(user),
            facts,
            {user.pk},
            pause=pauses.get(user.pk),
            alarms=alarms[user.pk],
            notice_due=user.pk not in read,
            username=user.username,
        )
        for user in users
    ]


@dataclass(frozen=True, slots=True)
class SeedShown:
    """A check item with its key, shown to whoever answered it once their session is over."""

    answer: SeedAnswer
    text: str
    at: datetime


def seeds_revealed(task: Task, user: User) -> list[SeedShown]:
    """What this person answered in sessions that have ended, newest first: what was right, and why."""
    ended = Q(event__judgement_context__session__ended_at__isnull=False)
    rows = SeedAnswer.objects.filter(ended, user=user, seed__instruction__task=task)
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
        pace=_pace(timed),
    )
