"""In whose hands an instruction is: its claim, who else has it open, and what is open to whom."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from pld_app.models import User
from rules.models import Claim, Draft, Instruction, Presence
from rules.selectors.review_tabs import assigned_to, is_away

# A ping comes every ten seconds: who missed two of them is gone.
PRESENT_S = 30


@dataclass(frozen=True, slots=True)
class Hands:
    """Who may work on a card now. `holder` is empty when nobody holds it; `seconds` is what is left of the lease."""

    holder: User | None
    until: datetime | None
    is_mine: bool
    others: list[str]

    @property
    def is_held_by_another(self) -> bool:
        return self.holder is not None and not self.is_mine

    @property
    def seconds(self) -> int:
        return max(0, round((self.until - timezone.now()).total_seconds())) if self.until else 0


IN_NO_HANDS = Hands(None, None, is_mine=False, others=[])


def hands_of(instruction: Instruction, user: User) -> Hands:
    """The running claim on an instruction, and the other reviewers who have its card open, by name."""
    claim = running_claim(instruction)
    others = Presence.objects.filter(instruction=instruction, seen_at__gt=_present_since()).exclude(user=user)
    names = [str(one.user) for one in others.select_related("user").order_by("user__display_name")]
    if claim is None:
        return Hands(None, None, is_mine=False, others=names)
    return Hands(claim.holder, claim.expires_at, is_mine=claim.holder_id == user.pk, others=names)


def running_claim(instruction: Instruction) -> Claim | None:
    running = Claim.objects.filter(instruction=instruction, expires_at__gt=Now())
    return running.select_related("holder").first()


def _present_since() -> datetime:
    return timezone.now() - timedelta(seconds=PRESENT_S)


def free_for(user: User, rows: QuerySet[Instruction]) -> QuerySet[Instruction]:
    """Those that no colleague holds and none is named for; of one who is away and has no deputy, anybody's."""
    held = Claim.objects.filter(instruction=OuterRef("pk"), expires_at__gt=Now()).exclude(holder=user)
    named = Q(assignment__person__isnull=True) | assigned_to(user)
    anybodys = is_away("assignment__person__") & Q(assignment__person__absence__deputy=None)
    return rows.filter(~Exists(held)).filter(named | anybodys)


def draft_of(instruction: Instruction, user: User) -> Draft | None:
    """This person's own unsent text; nobody asks for another's."""
    return Draft.objects.filter(instruction=instruction, user=user).first()
