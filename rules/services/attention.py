"""How a decision was made: the look at the card before it, its time, and the pause after five hasty ones."""

from dataclasses import dataclass
from statistics import median

from django.db import transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Least
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, WrongState
from pld_app.models import AuditEvent, Role, User
from pld_app.notifications import kind_register, notify
from rules.models import (
    AWAY_SECONDS,
    SESSION_GAP,
    CardLook,
    Instruction,
    JudgementContext,
    PauseReason,
    ReviewPause,
    ReviewPolicy,
    ReviewSession,
    Revision,
    Task,
)
from rules.selectors.review_policy import policy_of

kind_register(
    "review.paused",
    label=gettext_lazy("A reviewer's queue was paused"),
    text=gettext_lazy("The queue of %(name)s in %(task)s is paused: %(reason)s."),
)
kind_register(
    "review.pause_lifted",
    label=gettext_lazy("Your queue goes on"),
    text=gettext_lazy("%(by)s lifted the pause of your queue in %(task)s."),
)
# Whose own pace is judged: fewer decisions say too little.
PACE_FROM, PACE_OF = 10, 100
SHORT_TEXT_WORDS = 25
FAST_IN_A_ROW = 5


def look_open(*, instruction: Instruction, user: User) -> None:
    """Start the clock of a reviewer who opens a card, anew at each opening; what they had seen of it stays seen."""
    look = CardLook(user=user, instruction=instruction, version=instruction.version, opened_at=timezone.now())
    # One statement, whether it is there or not: this runs whenever a card is opened.
    CardLook.objects.bulk_create(
        [look],
        update_conflicts=True,
        unique_fields=["user", "instruction", "version"],
        update_fields=["opened_at"],
    )


def look_of(instruction: Instruction, user: User) -> CardLook | None:
    """The look at the present version, if the card was opened."""
    return CardLook.objects.filter(user=user, instruction=instruction, version=instruction.version).first()


def _looks(instruction: Instruction, user: User) -> QuerySet[CardLook]:
    """The one look at the present version, begun now where the card was never opened."""
    looks = CardLook.objects.filter(user=user, instruction=instruction, version=instruction.version)
    if not looks.exists():
        look_open(instruction=instruction, user=user)
    return looks


def insight_open(*, instruction: Instruction, user: User) -> None:
    """Remember that the figures were opened; the first time counts."""
    _looks(instruction, user).filter(insight_at__isnull=True).update(insight_at=timezone.now())


def evidence_judge(*, instruction: Instruction, user: User, supports: bool) -> None:
    """Keep the answer on the evidence, given before the wording was shown; the first one stands."""
    _looks(instruction, user).filter(evidence_supports__isnull=True).update(evidence_supports=supports)


def convinced_by(*, instruction: Instruction, user: User, place: int) -> None:
    """Keep which piece of evidence convinced; 0 is none of them."""
    _looks(instruction, user).update(convinced_by=place)


def visible_add(*, instruction: Instruction, user: User, milliseconds: int) -> None:
    """Add the time a browser says the card was in view; never more than has passed since it was opened."""
    look = look_of(instruction, user)
    if look is not None:
        passed = int((timezone.now() - look.opened_at).total_seconds() * 1000)
        CardLook.objects.filter(pk=look.pk).update(visible_ms=Least(F("visible_ms") + milliseconds, passed))


@dataclass(frozen=True, slots=True)
class Pace:
    """How long this decision took against the person's own median; `fast_under` None where it says too little."""

    seconds: float | None
    words: int
    fast_under: float | None

    @property
    def is_fast(self) -> bool:
        return self.seconds is not None and self.fast_under is not None and self.seconds < self.fast_under


def pace_of(*, look: CardLook | None, revision: Revision, user: User, policy: ReviewPolicy) -> Pace:
    """Time since the card was opened, and the least that would not be asked about again.

    That is `fast_percent` of the person's own median seconds a word (of their last 100 decisions with a time, at least
    10), times the words of this text; and for 25 words or more never under `min_seconds`. Not opened counts as 0 s.
    """
    words = len(revision.text.split())
    seconds = (timezone.now() - look.opened_at).total_seconds() if look else None
    least = float(policy.min_seconds) if words >= SHORT_TEXT_WORDS else 0.0
    if policy.fast_percent:
        own = JudgementContext.objects.filter(actor=user, seconds__isnull=False, seconds__lte=AWAY_SECONDS, words__gt=0)
        times = [s / w for s, w in own.values_list("seconds", "words")[:PACE_OF] if s is not None]
        if len(times) >= PACE_FROM:
            least = max(least, policy.fast_percent / 100 * median(times) * words)
    return Pace(seconds, words, least or None)


def look_facts(look: CardLook | None) -> dict[str, Json]:
    """For the event of a decision: what had been seen before it. Empty where the card was not opened."""
    if look is None:
        return {}
    facts: dict[str, Json] = {"figures_seen_before": look.insight_at is not None}
    if look.evidence_supports is not None:
        facts["evidence_supports"] = look.evidence_supports
    return facts


def judgement_keep(
    *, event: AuditEvent, instruction: Instruction, revision: Revision, user: User, kind: str, look: CardLook | None
) -> None:
    """Write what stood behind a judgement, in its transaction; five hasty ones in a row pause the person's queue."""
    policy = policy_of(instruction.task)
    pace = pace_of(look=look, revision=revision, user=user, policy=policy)
    JudgementContext.objects.create(
        event=event,
        instruction=instruction,
        revision=revision,
        actor=user,
        session=_session(instruction.task, user),
        kind=kind,
        seen_before=look is not None and look.insight_at is not None,
        evidence_supports=look.evidence_supports if look else None,
        convinced_by=look.convinced_by if look else None,
        seconds=pace.seconds,
        visible_ms=look.visible_ms if look else 0,
        words=pace.words,
        is_fast=pace.is_fast,
    )
    # By their sessions, which are few: a database without statistics looked through all instructions for each.
    newest = list(
        JudgementContext.objects.filter(actor=user, session__task=instruction.task)
        .order_by("-event_id")
        .values_list("is_fast", flat=True)[:FAST_IN_A_ROW]
    )
    if len(newest) == FAST_IN_A_ROW and all(newest):
        lifted = ReviewPause.objects.filter(user=user, task=instruction.task, reason=PauseReason.SPEED).first()
        since = JudgementContext.objects.filter(actor=user, session__task=instruction.task)
        if lifted is None or since.filter(event_id__gt=lifted.lift_event_id or 0).count() >= FAST_IN_A_ROW:
            pause_open(task=instruction.task, user=user, reason=PauseReason.SPEED)


def _session(task: Task, user: User) -> ReviewSession:
    """The stretch of work this belongs to, with one item more; after a break of 15 minutes a new one begins."""
    now = timezone.now()
    session = ReviewSession.objects.select_for_update().filter(user=user, task=task, ended_at__isnull=True).first()
    if session is not None and now - session.last_at > SESSION_GAP:
        session.ended_at = session.last_at
        session.save(update_fields=["ended_at"])
        session = None
    if session is None:
        return ReviewSession.objects.create(user=user, task=task, started_at=now, last_at=now, items=1)
    session.last_at, session.items = now, session.items + 1
    session.save(update_fields=["last_at", "items"])
    return session


@transaction.atomic
def session_end(*, task: Task, user: User) -> ReviewSession | None:
    """End the person's open session, so that its summary can be read; None where there is none."""
    session = ReviewSession.objects.select_for_update().filter(user=user, task=task, ended_at__isnull=True).first()
    if session is not None:
        session.ended_at = timezone.now()
        session.save(update_fields=["ended_at"])
    return session


def pause_open(*, task: Task, user: User, reason: PauseReason) -> ReviewPause:
    """Pause the person's queue of the task, once; the administrators are told. Part of the caller's transaction."""
    present = ReviewPause.objects.filter(task=task, user=user, lifted_at__isnull=True).first()
    if present is not None:
        return present
    data: dict[str, Json] = {"reviewer": user.username, "reason": reason}
    event = audit_record("reviewer.paused", actor=None, subject=user, task_slug=task.slug, data=data)
    leads = User.objects.filter(role=Role.ADMIN, is_active=True)
    url = reverse("review-quality", args=[task.slug])
    why = str(PauseReason(reason).label)
    notify([*leads, user], "review.paused", url=url, name=str(user), task=task.name, reason=why)
    return ReviewPause.objects.create(user=user, task=task, reason=reason, event=event)


@transaction.atomic
def pause_lift(*, pause_id: int, admin: User, note: str) -> ReviewPause:
    """Let a reviewer go on, with a note on what was said. Raises for anybody but an administrator."""
    require_role(admin, Role.ADMIN)
    note = note.strip()
    if not note:
        raise InvalidInput(_("Say what you found out and agreed."))
    pause = ReviewPause.objects.select_for_update().select_related("task", "user").get(pk=pause_id)
    if pause.lifted_at is not None:
        raise WrongState(_("This pause has been lifted already."))
    data: dict[str, Json] = {"reviewer": pause.user.username, "reason": pause.reason, "note": note}
    event = audit_record("review_pause.lifted", actor=admin, subject=pause, task_slug=pause.task.slug, data=data)
    pause.lifted_at, pause.lifted_by, pause.lift_event, pause.note = timezone.now(), admin, event, note
    pause.save(update_fields=["lifted_at", "lifted_by", "lift_event", "note"])
    url = reverse("review-queue", args=[pause.task.slug])
    notify([pause.user], "review.pause_lifted", url=url, by=str(admin), task=pause.task.name)
    return pause
