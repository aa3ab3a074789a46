"""Money and calls, reserved before a call and settled after it."""

import threading
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from django.utils.translation import gettext as _

from pld_app.model_edge.errors import BudgetExhausted
from pld_app.models import ModelEndpoint

_MILLION = Decimal(1_000_000)
_CENTS = Decimal("0.000001")


def price(endpoint: ModelEndpoint, *, prompt_tokens: int, completion_tokens: int) -> Decimal:
    """What the tokens cost at the endpoint's prices per million, to six decimals."""
    total = prompt_tokens * Decimal(endpoint.price_in) + completion_tokens * Decimal(endpoint.price_out)
    return (total / _MILLION).quantize(_CENTS)


def batch_price(endpoint: ModelEndpoint, direct: Decimal) -> Decimal:
    """What a call costs in a batch, given what it costs directly: the endpoint's own percentage of it."""
    return (direct * endpoint.batch_price_percent / 100).quantize(_CENTS)


class Budget(Protocol):
    """Where a run's limits are kept. A run shared by several workers keeps them in its row, with one UPDATE each."""

    def reserve(self, cost: Decimal) -> None:
        """Set aside one call and at most this cost. Raises BudgetExhausted if that could exceed a limit."""
        ...

    def settle(self, *, reserved: Decimal, actual: Decimal, calls: int) -> None:
        """Replace a reservation of one call by what it came to; 0 calls if it was never sent."""
        ...


@dataclass
class LocalBudget:
    """Limits for one worker; None is no limit. `calls` and `cost` hold what is spent and set aside."""

    max_calls: int | None = None
    max_cost: Decimal | None = None
    calls: int = 0
    cost: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def reserve(self, cost: Decimal) -> None:
        with self._lock:
            if self.max_calls is not None and self.calls + 1 > self.max_calls:
                raise BudgetExhausted(_("The budget of %(calls)d calls is used up.") % {"calls": self.max_calls})
            if self.max_cost is not None and self.cost + cost > self.max_cost:
                text = _("The budget of %(limit)s is used up: %(cost)s is spent or set aside.")
                raise BudgetExhausted(text % {"limit": self.max_cost, "cost": self.cost})
            self.calls += 1
            self.cost += cost

    def settle(self, *, reserved: Decimal, actual: Decimal, calls: int) -> None:
        with self._lock:
            self.calls += calls - 1
            self.cost += actual - reserved
