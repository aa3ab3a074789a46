"""Decisions in bulk: each an ordinary one by its own service, all of a batch in one transaction, undone together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.errors import InvalidInput, NotAllowed, Refusal, WrongState
from pld_app.models import Role, User
from rules.exceptions import InvalidTransition, Stale
from rules.models import BatchAct, BatchItem, Instruction, JudgementContext, ReviewBatch, Ruleset, Task
from rules.selectors.bulk import MAX_APPROVED, MAX_ROWS, Reasons, decision_reasons, rows_numbered, undo_reasons
from rules.selectors.review_guard import evidence_is_asked
from rules.selectors.review_policy import policy_of
from rules.services.attention import convinced_by
from rules.services.refusals import database_refusals
from rules.services.review import instruction_approve, instruction_defer, instruction_reject, instruction_undo
from rules.services.review_input import note_text, reason_code

# Numbers of instructions, each with the version the person was shown.
type Shown = Mapping[int, int]


@dataclass(frozen=True, slots=True)
class BulkDone:
    """What came of a bulk action, by the numbers of instructions: those done, and those not, each with the reason."""

    done: list[int]
    refused: dict[int, str] = field(default_factory=dict)
    batch: ReviewBatch | None = None


class NothingDone(WrongState):
    """None of the instructions could be changed; nothing was."""

    user_message = Stale.user_message

    def __init__(self, refused: dict[int, str]) -> None:
        super().__init__()
        self.refused = refused


def batch_reject(*, task: Task, actor: User, shown: Shown, reason: str, note: str = "") -> BulkDone:
    """Reject each of these for one reason, those that cannot be left as they are. Raises NothingDone for none at all.

    Where two people decide, each becomes an opinion, as one given on its card would.
    """
    note = note_text(note)
    act = partial(instruction_reject, reason=reason_code(reason, note), note=note)
    return _decide(task, actor, BatchAct.REJECT, shown, act)


def batch_defer(*, task: Task, actor: User, shown: Shown, note: str = "") -> BulkDone:
    """Set each of these aside for later. Raises NothingDone where that changes none."""
    return _decide(task, actor, BatchAct.DEFER, shown, partial(instruction_defer, note=note_text(note)))


def batch_approve(
    *, task: Task, actor: User, opened: int, shown: Shown, note: str = "", convinced: int | None = None
) -> BulkDone:
    """Approve the card this person opened (its number) together with near-duplicates of it, at most ten in all.

    `shown` holds the opened one too, which must be approved with them. Where its approval asks which evidence
    convinced, `convinced` is that piece's place on the card, 0 for none.
    """
    if opened not in shown or len(shown) > MAX_APPROVED:
        raise InvalidInput(_("Approve the card you opened, and at most nine near-duplicates with it."))
    act = partial(instruction_approve, note=note_text(note))
    return _decide(task, actor, BatchAct.APPROVE, shown, act, opened=opened, convinced=convinced)


def _decide(
    task: Task,
    actor: User,
    act: BatchAct,
    shown: Shown,
    decide: Callable[..., Instruction],
    *,
    opened: int | None = None,
    convinced: int | None = None,
) -> BulkDone:
    require_role(actor, Role.REVIEWER)
    demand_some(shown)
    with database_refusals(), transaction.atomic():
        rows = locked_rows(task, shown)
        card = next((row for row in rows if row.number == opened), None)
        reasons = _gone(rows, shown) | decision_reasons(task, actor, act, rows, opened=card)
        if opened is not None:
            _demand_card(card, reasons, actor, convinced)
        batch = ReviewBatch.objects.create(task=task, act=act, actor=actor, opened=card)
        for row in rows:
            if row.pk not in reasons:
                _decide_one(batch, row, partial(decide, version=shown[row.number]), reasons)
        done = finished(rows, shown, reasons)
        if card is not None and card.number not in done.done:
            raise NothingDone(done.refused)
    return BulkDone(done.done, done.refused, batch)


def demand_some(shown: Shown) -> None:
    if not shown:
        raise InvalidInput(_("Tick at least one instruction, then choose what to do."))
    if len(shown) > MAX_ROWS:
        raise InvalidInput(_("At most %(most)d at a time: repeat it for the rest.") % {"most": MAX_ROWS})


def locked_rows(task: Task, shown: Shown) -> list[Instruction]:
    """The rows under their locks, all taken in one order before anything is written: no two batches wait in a ring."""
    ids = Instruction.objects.filter(task=task, number__in=shown).order_by("pk")
    list(ids.select_for_update(of=("self",)).values_list("pk", flat=True))
    return list(rows_numbered(task, shown).order_by("pk"))


def _gone(rows: list[Instruction], shown: Shown) -> Reasons:
    return {row.pk: str(Stale.user_message) for row in rows if row.version != shown[row.number]}


def _demand_card(card: Instruction | None, reasons: Reasons, actor: User, convinced: int | None) -> None:
    """The opened card must be there to approve; a share of approvals says which evidence convinced."""
    if card is None:
        raise InvalidInput(_("Open a card to approve it."))
    if card.pk in reasons:
        raise WrongState(_("Instruction %(number)d: %(why)s") % {"number": card.number, "why": reasons[card.pk]})
    if evidence_is_asked(card, actor, policy_of(card.task)):
        if convinced is None:
            raise InvalidInput(_("Say which evidence convinced you."))
        convinced_by(instruction=card, user=actor, place=convinced)


def _decide_one(batch: ReviewBatch, row: Instruction, decide: Callable[..., Instruction], reasons: Reasons) -> None:
    """One ordinary decision in a savepoint of its own; what its guards refuse leaves the others as they are."""
    try:
        with database_refusals(), transaction.atomic():
            decide(instruction_id=row.pk, reviewer=batch.actor, batch=batch.pk)
            # The event of the decision, or of the opinion it became.
            told = JudgementContext.objects.filter(instruction=row, actor=batch.actor).values_list("event", flat=True)
            BatchItem.objects.create(batch=batch, instruction=row, event_id=told[0])
    except Refusal as refusal:
        reasons[row.pk] = str(refusal.user_message)


def finished(rows: list[Instruction], shown: Shown, reasons: Reasons) -> BulkDone:
    """Raises NothingDone where all were refused, so that the transaction leaves nothing."""
    here = {row.number for row in rows}
    refused = {number: _("There is no such instruction.") for number in sorted(set(shown) - here)}
    refused |= {row.number: reasons[row.pk] for row in rows if row.pk in reasons}
    done = sorted(here - set(refused))
    if not done:
        raise NothingDone(refused)
    return BulkDone(done, refused)


def batch_undo(*, batch_id: int, actor: User) -> BulkDone:
    """Take back each decision of one's own batch to which nothing else has happened, each with its own event, once.

    What has been signed for or decided on since stays; NothingDone where that is all of them.
    """
    require_role(actor, Role.REVIEWER)
    with database_refusals(), transaction.atomic():
        batch = ReviewBatch.objects.select_for_update(of=("self",)).select_related("task", "actor").get(pk=batch_id)
        if batch.actor_id != actor.pk:
            raise NotAllowed(_("%(name)s decided this; only they take it back.") % {"name": batch.actor})
        if batch.undone_at is not None:
            raise InvalidTransition(_("This has been taken back already."))
        numbers = batch.items.values_list("instruction__number", flat=True)
        rows = locked_rows(batch.task, dict.fromkeys(numbers, 0))
        _rulesets_lock(rows)
        items = list(batch.items.select_related("event", "instruction"))
        reasons = undo_reasons(items, actor)
        for row in rows:
            if row.pk in reasons:
                continue
            try:
                instruction_undo(instruction_id=row.pk, reviewer=actor, version=row.version, batch=batch.pk)
            except Refusal as refusal:
                reasons[row.pk] = str(refusal.user_message)
        done = finished(rows, {row.number: row.version for row in rows}, reasons)
        batch.undone_at = timezone.now()
        batch.save(update_fields=["undone_at"])
    return BulkDone(done.done, done.refused, batch)


def _rulesets_lock(rows: list[Instruction]) -> None:
    """All rulesets that reopening may withdraw, in one order and before the first event, as signing takes them."""
    holding = Ruleset.objects.filter(items__instruction__in=rows).order_by("pk").values("pk").distinct()
    list(Ruleset.objects.filter(pk__in=holding).order_by("pk").select_for_update(of=("self",)).values_list("pk"))
