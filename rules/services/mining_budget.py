"""What a run may spend, kept in its row, so that all its workers share one purse."""

from decimal import Decimal
from typing import Any

from django.db import connection, models
from django.db.models import F
from django.utils.translation import gettext as _

from pld_app.model_edge import BudgetExhausted
from rules.models import MiningRun

_TAKE = (
    "UPDATE {table} SET calls_used = calls_used + %s, cost_used = cost_used + %s "
    "WHERE id = %s AND (max_calls IS NULL OR calls_used + %s <= max_calls) "
    "AND (max_cost IS NULL OR cost_used + %s <= max_cost)"
)


# Calls set aside with one UPDATE while there is room: one each would keep the calls waiting for the database.
AHEAD = 10


class RunBudget:
    """The limits of one run for one worker, who sets a few calls aside at a time and returns what is left at the end.

    `rows` is the model of the run: one with max_calls, max_cost, calls_used and cost_used.

    Others may see too much used, never too little. What a killed worker had set aside stays so: those calls may have
    been sent and billed.
    """

    def __init__(self, run_id: int, rows: type[models.Model] = MiningRun) -> None:
        self._run_id = run_id
        self._rows: models.Manager[Any] = rows._default_manager  # of any model with these four columns
        self._statement = _TAKE.format(table=rows._meta.db_table)
        # Set aside in the row and not in use here; below zero when a call needed more requests than were set aside.
        self._calls = 0
        self._cost = Decimal(0)

    def reserve(self, cost: Decimal) -> None:
        """Set aside one call and at most this cost. Raises BudgetExhausted if that could exceed a limit."""
        enough = self._calls >= 1 and self._cost >= cost
        if not (enough or self._take(AHEAD, cost) or self._take(1, cost)):
            self.flush()
            raise BudgetExhausted(self._why(cost))
        self._calls -= 1
        self._cost -= cost

    def set_aside(self, calls: int, cost: Decimal) -> None:
        """Set aside exactly this, in the caller's transaction, until `returned`. Raises BudgetExhausted."""
        with connection.cursor() as cursor:
            cursor.execute(self._statement, [calls, cost, self._run_id, calls, cost])
            if cursor.rowcount != 1:
                raise BudgetExhausted(self._why(cost, calls))

    def returned(self, calls: int, cost: Decimal) -> None:
        """Give back of what was set aside what was not used."""
        row = self._rows.filter(pk=self._run_id)
        row.update(calls_used=F("calls_used") - calls, cost_used=F("cost_used") - cost)

    def _take(self, ahead: int, each: Decimal) -> bool:
        """Set aside what is missing to so many calls of this cost, if the limits allow it."""
        calls, cost = max(0, ahead - self._calls), max(Decimal(0), ahead * each - self._cost)
        with connection.cursor() as cursor:
            cursor.execute(self._statement, [calls, cost, self._run_id, calls, cost])
            taken: bool = cursor.rowcount == 1
        if taken:
            self._calls += calls
            self._cost += cost
        return taken

    def settle(self, *, reserved: Decimal, actual: Decimal, calls: int) -> None:
        """Replace a reservation of one call by what it came to; 0 calls if it was never sent."""
        self._calls += 1 - calls
        self._cost += reserved - actual

    def flush(self) -> None:
        """Return to the row what is set aside and not in use."""
        (calls, cost), self._calls, self._cost = (self._calls, self._cost), 0, Decimal(0)
        if calls or cost:
            self.returned(calls, cost)

    def _why(self, cost: Decimal, calls: int = 1) -> str:
        run = self._rows.get(pk=self._run_id)
        if run.max_calls is not None and run.calls_used + calls > run.max_calls:
            text = _("The run may make %(limit)d calls, and %(used)d are made or under way.")
            if calls > 1:
                text = _(
                    "The run may make %(limit)d calls, %(used)d are made or under way: a batch of %(calls)d is more."
                )
            return text % {"limit": run.max_calls, "used": run.calls_used, "calls": calls}
        text = _(
            "The run may spend %(limit).2f; %(used).2f is spent or set aside, and the next call may cost %(next).4f."
        )
        return text % {"limit": run.max_cost, "used": run.cost_used, "next": cost}
