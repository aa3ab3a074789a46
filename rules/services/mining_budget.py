"""What a mining run may spend, kept in its row, so that all its workers share one purse."""

from decimal import Decimal

from django.db.models import F, Q
from django.utils.translation import gettext as _

from pld_app.model_edge import BudgetExhausted
from rules.models import MiningRun


class RunBudget:
    """The limits of one run: one UPDATE sets a call aside, or finds that it would exceed a limit.

    What a killed worker had set aside stays so: those calls may have been sent and billed.
    """

    def __init__(self, run_id: int) -> None:
        self._row = MiningRun.objects.filter(pk=run_id)

    def reserve(self, cost: Decimal) -> None:
        """Set aside one call and at most this cost. Raises BudgetExhausted if that could exceed a limit."""
        calls_left = Q(max_calls__isnull=True) | Q(calls_used__lt=F("max_calls"))
        cost_left = Q(max_cost__isnull=True) | Q(cost_used__lte=F("max_cost") - cost)
        room = self._row.filter(calls_left & cost_left)
        if not room.update(calls_used=F("calls_used") + 1, cost_used=F("cost_used") + cost):
            raise BudgetExhausted(self._why(cost))

    def settle(self, *, reserved: Decimal, actual: Decimal, calls: int) -> None:
        """Replace a reservation of one call by what it came to; 0 calls if it was never sent."""
        self._row.update(calls_used=F("calls_used") + calls - 1, cost_used=F("cost_used") + actual - reserved)

    def _why(self, cost: Decimal) -> str:
        run = self._row.get()
        if run.max_calls is not None and run.calls_used >= run.max_calls:
            text = _("The run may make %(limit)d calls, and %(used)d are made or under way.")
            return text % {"limit": run.max_calls, "used": run.calls_used}
        text = _(
            "The run may spend %(limit).2f; %(used).2f is spent or set aside, and the next call may cost %(next).4f."
        )
        return text % {"limit": run.max_cost, "used": run.cost_used, "next": cost}
