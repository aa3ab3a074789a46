"""Taking an instruction into one's hands, keeping it, handing it over; and letting others see that one is there."""

from datetime import timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import WrongState
from pld_app.models import Role, User
from rules.exceptions import InvalidTransition
from rules.models import Claim, Draft, Instruction, Presence, Task
from rules.selectors.review_filter import ReviewFilter, view_rows
from rules.selectors.review_hands import free_for, running_claim
from rules.selectors.review_order import after, in_order
from rules.services.refusals import database_refusals

_TRIES = 8


class Held(WrongState):
    """A colleague holds the instruction."""

    user_message = _("A colleague is working on this instruction. Take it over, or go on to the next one.")


def claim_next(*, task: Task, view: ReviewFilter, reviewer: User, behind: Instruction | None = None) -> int | None:
    """Take the next open instruction of a view that nobody else holds or is named for: its number, or None.

    "Next" is after `behind` in this reviewer's order, then from the start. Colleagues who ask at the same moment get
    different ones, and none waits for another. Every other claim of the reviewer in the task is let go, except
    where unsent text lies. Leaves no audit event: who worked on what is told by the decisions.
    """
    require_role(reviewer, Role.REVIEWER)
    rows = free_for(reviewer, view_rows(task, view, reviewer, open_only=True))
    parts = [in_order(rows, reviewer)] if behind is None else after(behind, rows, reviewer)
    for part in parts:
        for _turn in range(_TRIES):
            with transaction.atomic():
                row = part.select_for_update(of=("self",), skip_locked=True).first()
                if row is None:
                    break
                # The row lock came after the search began: a claim made in between shows only now.
                if running_claim_of_another(row, reviewer) is None:
                    _take(row, reviewer)
                    return row.number
    return None


def running_claim_of_another(instruction: Instruction, reviewer: User) -> Claim | None:
    claim = running_claim(instruction)
    return claim if claim is not None and claim.holder_id != reviewer.pk else None


def claim_keep(*, instruction_id: int, reviewer: User) -> bool:
    """Take a free open instruction or renew one's own lease on it; whether it is now one's own."""
    require_role(reviewer, Role.REVIEWER)
    with transaction.atomic():
        row = Instruction.objects.select_for_update(of=("self",)).get(pk=instruction_id)
        if not row.is_open or running_claim_of_another(row, reviewer):
            return False
        _take(row, reviewer)
    return True


def claim_take_over(*, instruction_id: int, reviewer: User) -> Instruction:
    """Take an open instruction from the colleague who holds it. They keep what they typed; the log says who did it."""
    require_role(reviewer, Role.REVIEWER)
    with database_refusals(), transaction.atomic():
        rows = Instruction.objects.select_for_update(of=("self",)).select_related("task", "current_revision")
        row = rows.get(pk=instruction_id)
        if not row.is_open:
            raise InvalidTransition(_("This instruction is already decided: there is nothing to take over."))
        held = running_claim_of_another(row, reviewer)
        event = None
        if held is not None:
            data: dict[str, Json] = {"number": row.number, "from": str(held.holder), "version": row.version}
            event = audit_record(
                "instruction.taken_over", actor=reviewer, subject=row, data=data, task_slug=row.task.slug
            )
        _take(row, reviewer, event_id=event.pk if event else None)
    return row


def claim_release(*, instruction_id: int, reviewer: User) -> None:
    """Let one's own claim go; without one, nothing happens. A card that holds unsent text stays one's own."""
    own = Claim.objects.filter(instruction=instruction_id, holder=reviewer)
    own.filter(~_has_draft(reviewer)).delete()
    Presence.objects.filter(user=reviewer, instruction=instruction_id).delete()


def presence_ping(*, instruction_id: int, reviewer: User) -> None:
    """Say that this reviewer has the card open; worth nothing after half a minute."""
    require_role(reviewer, Role.REVIEWER)
    Presence.objects.update_or_create(
        user=reviewer, defaults={"instruction_id": instruction_id, "seen_at": timezone.now()}
    )


def _take(row: Instruction, reviewer: User, *, event_id: int | None = None) -> None:
    """Write the claim; the caller holds the instruction's row lock, which every claim and decision takes first."""
    expires = timezone.now() + timedelta(seconds=settings.REVIEW_LEASE_S)
    with connection.cursor() as cursor:
        cursor.execute(_UPSERT, [row.pk, reviewer.pk, expires, event_id])
    others = Claim.objects.filter(holder=reviewer, instruction__task=row.task_id).exclude(instruction=row.pk)
    # Skipping what is locked: the same person in two windows must not wait for themselves in a circle.
    left = others.filter(~_has_draft(reviewer)).select_for_update(of=("self",), skip_locked=True)
    gone = list(left.values_list("pk", flat=True))
    if gone:
        Claim.objects.filter(pk__in=gone).delete()


def _has_draft(reviewer: User) -> Exists:
    return Exists(Draft.objects.filter(user=reviewer, instruction=OuterRef("instruction")))


# One statement, so that renewing costs no read; the event of an earlier taking over stays while the holder does.
_UPSERT = """
INSERT INTO rules_claim (instruction_id, holder_id, expires_at, claimed_at, event_id) VALUES (%s, %s, %s, now(), %s)
ON CONFLICT (instruction_id) DO UPDATE SET
  claimed_at = CASE WHEN rules_claim.holder_id = excluded.holder_id THEN rules_claim.claimed_at ELSE now() END,
  event_id = CASE WHEN rules_claim.holder_id = excluded.holder_id THEN rules_claim.event_id ELSE excluded.event_id END,
  holder_id = excluded.holder_id, expires_at = excluded.expires_at
"""
