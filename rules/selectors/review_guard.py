"""What a card holds back before a first judgement, and what a reviewer may know of others' opinions."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from pld_app.models import Role, User
from rules.models import (
    CardLook,
    DecisionKind,
    DoubleBasis,
    DoubleReview,
    Instruction,
    InstructionImpact,
    JudgementContext,
    Opinion,
    ReviewPause,
    ReviewPolicy,
    Task,
    Waiting,
)
from rules.selectors.impacts import impact_of
from rules.selectors.review_policy import policy_of


def draw(key: str, what: str) -> int:
    """A number from 0 to 9999 drawn by the key: the same as the database's pld_draw."""
    return int(hashlib.sha256(f"{key}:{what}".encode()).hexdigest()[:8], 16) % 10_000


def evidence_is_asked(instruction: Instruction, user: User, policy: ReviewPolicy) -> bool:
    """Whether approving this one asks this person which evidence convinced them, as a share of approvals does."""
    what = f"why {user.pk} {instruction.pk} {instruction.version}"
    return draw(policy.draw_key, what) < policy.evidence_percent * 100


def wording_withheld_from(instruction: Instruction, user: User) -> bool:
    """Whether this reviewer judges the evidence first and has not done so yet."""
    return bool(withheld_among(instruction.task, [instruction], user))


def withheld_among(task: Task, instructions: Collection[Instruction], user: User) -> set[int]:
    """Ids of those whose wording this person may not read yet; three queries at most, however many there are."""
    open_ones = [one for one in instructions if one.is_open and one.waiting == ""]
    if user.role != Role.REVIEWER or not open_ones:
        return set()
    policy = policy_of(task)
    if not policy.blind_first:
        return set()
    drawn = {
        one.pk for one in open_ones if draw(policy.draw_key, f"blind {user.pk} {one.pk}") < policy.blind_percent * 100
    }
    drawn |= _of_high_impact(policy, open_ones)
    if not drawn:
        return set()
    answered = Q(evidence_supports__isnull=False)
    looks = CardLook.objects.filter(answered, user=user, instruction__in=drawn)
    return drawn - set(looks.values_list("instruction_id", flat=True))


def _of_high_impact(policy: ReviewPolicy, instructions: Iterable[Instruction]) -> set[int]:
    if not policy.impact_percent:
        return set()
    texts = {one.pk: one.current_revision_id for one in instructions}
    found: dict[int, bool] = {}
    for impact in InstructionImpact.objects.filter(instruction__in=texts).order_by("-pk"):
        if texts[impact.instruction_id] == impact.revision_id:
            high = impact.flipped * 100 > impact.n * policy.impact_percent
            found.setdefault(impact.instruction_id, high)
    return {pk for pk, high in found.items() if high}


@dataclass(frozen=True, slots=True)
class Said:
    """One opinion as people may read it."""

    seat: int
    actor: str
    verdict: str
    verdict_label: str
    reason: str
    note: str
    at: datetime
    is_endorsement: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How the double review of a text stands, as far as one person may know it.

    `own` is their own opinion; `opinions` holds all of them once nothing is blind any more, else none.
    """

    own: Said | None
    may_undo: bool
    is_disputed: bool
    bases: list[str]
    opinions: list[Said]

    @property
    def waits(self) -> bool:
        return self.own is not None and not self.is_disputed


def standing_of(instruction: Instruction, user: User) -> Standing | None:
    """None where no double review is in force, or where this person must not know of one."""
    rows = DoubleReview.objects.filter(instruction=instruction, voided_at__isnull=True)
    if user.role == Role.REVIEWER:
        rows = rows.filter(Q(reader__isnull=True) | Q(reader=user))
    else:
        rows = rows.filter(reader__isnull=True)
    double = rows.select_related("revision").first()
    if double is None:
        return None
    given = list(double.opinions.select_related("actor"))
    said = [_said(one, double) for one in given]
    own = next((one for one, row in zip(said, given, strict=True) if row.actor_id == user.pk), None)
    disputed = instruction.waiting == Waiting.DISPUTED
    settled = disputed or not instruction.is_open
    # Auditors and administrators decide nothing: they may see what waits.
    may_see_all = settled or user.role in {Role.AUDITOR, Role.ADMIN}
    if own is None and not may_see_all:
        return None
    blind = [one for one in said if not one.is_endorsement]
    return Standing(
        own=own,
        may_undo=own is not None and not settled and len(blind) == 1 and not own.is_endorsement,
        is_disputed=disputed,
        bases=[str(DoubleBasis(basis).label) for basis in double.bases],
        opinions=said if may_see_all else [],
    )


def _said(opinion: Opinion, double: DoubleReview) -> Said:
    return Said(
        seat=opinion.seat,
        actor=str(opinion.actor),
        verdict=opinion.verdict,
        verdict_label=opinion.get_verdict_display(),
        reason=opinion.get_reason_display() if opinion.reason else "",
        note=opinion.note,
        at=opinion.at,
        is_endorsement=opinion.actor_id == double.revision.author_id,
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """What stands in the closed drawer: all that could lead a reviewer before a judgement of their own."""

    support: int
    contradictions: int
    cluster_traces: int
    mined_traces: int
    confidence: str
    impact: InstructionImpact | None
    impact_changed: list[str]
    """In words, what has changed since the impact was measured."""

    @property
    def coverage_percent(self) -> str:
        return f"{100 * self.support / self.mined_traces:.1f}" if self.mined_traces else ""

    @property
    def impact_percent(self) -> str:
        return f"{100 * self.impact.flipped / self.impact.n:.1f}" if self.impact else ""


def figures_open(instruction: Instruction, user: User) -> bool:
    """Whether the drawer is open to this person: after they opened it, or where there is nothing to judge."""
    return instruction.pk in figures_open_among([instruction], user)


def figures_open_among(instructions: Collection[Instruction], user: User) -> set[int]:
    """Ids of those whose figures this person may see wherever they stand; one query, however many there are."""
    if user.role != Role.REVIEWER:
        return {one.pk for one in instructions}
    closed = {one.pk: one.version for one in instructions if one.is_open}
    opened = {one.pk for one in instructions} - set(closed)
    if closed:
        looks = CardLook.objects.filter(user=user, instruction__in=closed, insight_at__isnull=False)
        opened |= {pk for pk, version in looks.values_list("instruction", "version") if version == closed[pk]}
    return opened


def has_judged(instruction: Instruction, user: User) -> bool:
    """Whether this person has said what they think of the present text: the figures cannot lead them any more."""
    own = JudgementContext.objects.filter(actor=user, revision=instruction.current_revision_id)
    return own.exclude(kind=DecisionKind.DEFER).exists()


def figures_of(instruction: Instruction) -> Figures:
    impact, changed = impact_of(instruction)
    return Figures(
        support=instruction.support,
        contradictions=instruction.contradictions,
        cluster_traces=instruction.cluster.size if instruction.cluster else 0,
        mined_traces=int(instruction.run.figures.get("rows", 0)) if instruction.run else 0,
        confidence=str(instruction.provenance.get("confidence", "")),
        impact=impact,
        impact_changed=changed,
    )


def pause_of(task: Task, user: User) -> ReviewPause | None:
    return ReviewPause.objects.filter(task=task, user=user, lifted_at__isnull=True).first()
