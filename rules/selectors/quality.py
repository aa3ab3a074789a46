"""How well the review of a task goes: pace, second looks, agreement, check items, which count in nothing else."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median, quantiles

from django.db.models import Q, QuerySet
from django.utils import timezone

from pld_app.models import Domain, Role, User
from rules.agreement import Agreement, Estimate, agreement_of, share
from rules.models import (
    AWAY_SECONDS,
    SESSION_GAP,
    BiasNotice,
    Decision,
    DecisionKind,
    DoubleBasis,
    DoubleReview,
    Instruction,
    JudgementContext,
    Opinion,
    ReviewPause,
    SeedAlarm,
    SeedAnswer,
    Task,
    Verdict,
    quarter_of,
)

# A median of fewer times says too little.
TIMES_FROM = 5
_BLIND = frozenset({DoubleBasis.SAMPLE, DoubleBasis.CONFLICT, DoubleBasis.IMPACT})


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds from opening a card to its decision; None below 5 times. Cards left open over half an hour are out."""

    median: float | None
    p90: float | None
    n: int


def pace_of_seconds(seconds: list[float]) -> Pace:
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
    user_id: int | None = None

    @property
    def is_measured(self) -> bool:
        """Whether there is anything to say of them."""
        return bool(self.judgements or self.seeds_caught.n or self.good_kept.n or self.overturned.n)


@dataclass(frozen=True, slots=True)
class Overturn:
    """One judgement that a second look could overturn, when it was made, and whether it was."""

    who: int
    at: datetime
    overturned: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What the figures of a task are made of, loaded once for all of them (`facts_of`)."""

    task: Task
    judgements: list[JudgementContext]
    overturns: list[Overturn]
    answers: list[SeedAnswer]
    doubles: list["Pair"]


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` on and before `end`."""

    start: datetime
    end: datetime

    def holds(self, at: datetime) -> bool:
        return self.start <= at < self.end


def is_over(prefix: str = "session__") -> Q:
    """Of sessions that are over: ended, or left for so long that the next judgement begins another."""
    left = timezone.now() - SESSION_GAP
    return Q(**{f"{prefix}ended_at__isnull": False}) | Q(**{f"{prefix}last_at__lt": left})


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


def facts_of(task: Task, *, within: Period | None = None, over_only: bool = False) -> Facts:
    """All of a task, or of the judgements made within a period (pairs by their second opinion).

    `over_only` leaves out what was judged in sessions that go on: a figure that moves with each card, or does not,
    would tell its reviewer which cards are check items.
    """
    judgements = JudgementContext.objects.filter(instruction__task=task, instruction__is_seeded=False)
    answers = SeedAnswer.objects.filter(seed__instruction__task=task)
    if over_only:
        judgements = judgements.filter(is_over())
        answers = answers.filter(is_over("event__judgement_context__session__"))
    if within is not None:
        judgements = judgements.filter(at__gte=within.start, at__lt=within.end)
        answers = answers.filter(at__gte=within.start, at__lt=within.end)
    pairs = _pairs(task)
    overturns = _overturns(task, pairs)
    if within is not None:
        overturns = [one for one in overturns if within.holds(one.at)]
        pairs = [one for one in pairs if within.holds(one.second.at)]
    return Facts(
        task,
        list(judgements.select_related("instruction", "actor").order_by("event_id")),
        overturns,
        list(answers.select_related("seed")),
        pairs,
    )


def _overturns(task: Task, pairs: Iterable[Pair]) -> list[Overturn]:
    """Each first judgement that decided or was looked at again.

    A decision is overturned when it is reopened by somebody else; a blind first opinion when the outcome is the other.
    """
    found: list[Overturn] = []
    decisions = Decision.objects.filter(
        instruction__task=task,
        instruction__is_seeded=False,
        kind__in=[DecisionKind.APPROVE, DecisionKind.REJECT, DecisionKind.REOPEN],
    ).order_by("instruction_id", "pk")
    previous: Decision | None = None
    for one in decisions:
        same = previous is not None and previous.instruction_id == one.instruction_id
        if same and previous is not None and one.kind == DecisionKind.REOPEN:
            found[-1] = Overturn(previous.actor_id, previous.at, one.actor_id != previous.actor_id)
        elif one.kind != DecisionKind.REOPEN:
            found.append(Overturn(one.actor_id, one.at, overturned=False))
        previous = one
    for pair in pairs:
        settled = pair.third or pair.second
        if pair.agrees or pair.third is not None:
            found.append(Overturn(pair.first.actor_id, pair.first.at, settled.verdict != pair.first.verdict))
    return found


def _quality(name: str, facts: Facts, people: set[int] | None, **more: object) -> Quality:
    def theirs(user_id: int) -> bool:
        return people is None or user_id in people

    judgements = [one for one in facts.judgements if theirs(one.actor_id)]
    kinds = Counter(one.kind for one in judgements)
    timed = [one.seconds for one in judgements if one.seconds is not None and one.seconds <= AWAY_SECONDS]
    opened = [one for one in judgements if one.seconds is not None]
    overturns = [one.overturned for one in facts.overturns if theirs(one.who)]
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
        pace=pace_of_seconds(timed),
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
            user_id=user.pk,
        )
        for user in users
    ]
