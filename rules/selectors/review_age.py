"""How long an open instruction has waited: in days, never minutes, so that nobody is hurried through a decision."""

from dataclasses import dataclass
from datetime import date, datetime

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from rules.models import Instruction, Task
from rules.selectors.review_policy import policy_of


@dataclass(frozen=True, slots=True)
class Age:
    """`days` since it came up for review; late once the task's second threshold or its due date has passed."""

    days: int
    is_late: bool
    is_near: bool
    due_on: date | None

    @property
    def tone(self) -> str:
        return "tone-danger" if self.is_late else "tone-warn" if self.is_near else "chip-plain"

    @property
    def text(self) -> str:
        waited = ngettext("waits %(n)d day", "waits %(n)d days", self.days) % {"n": self.days}
        if self.days == 0:
            waited = _("new today")
        if self.due_on is None:
            return _("late: %(waited)s") % {"waited": waited} if self.is_late else waited
        when = f"{self.due_on:%Y-%m-%d}"
        if self.due_on < timezone.now().date():
            return _("late: was due %(date)s") % {"date": when}
        return _("%(waited)s, due %(date)s") % {"waited": waited, "date": when}


def thresholds_of(task: Task) -> tuple[int, int]:
    """Days after which an open instruction of the task counts as near, and as late."""
    policy = policy_of(task)
    return policy.age_soon_days, policy.age_late_days


def age_of(instruction: Instruction, *, since: datetime | None = None, thresholds: tuple[int, int]) -> Age | None:
    """None for what is decided. `since` restarts the clock: when it was sent back or reopened."""
    if not instruction.is_open:
        return None
    days = max(0, (timezone.now() - (since or instruction.created_at)).days)
    assignment = getattr(instruction, "assignment", None)
    due_on = assignment.due_on if assignment is not None else None
    near, late = thresholds
    is_late = days >= late if due_on is None else due_on < timezone.now().date()
    return Age(days, is_late, not is_late and days >= near, due_on)
