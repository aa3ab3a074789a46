"""Why a stream of calls ended before its requests did."""

from pld_app.errors import Refusal


class ModelUnavailable(Refusal):
    """The endpoint cannot be used now. `retry_after_s` says when to try again; None means a person must act first."""

    status = 503

    def __init__(self, user_message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(user_message)
        self.retry_after_s = retry_after_s


class BudgetExhausted(Refusal):
    """The next call could exceed the budget, so it was not made. What was paid for is recorded."""


class EndpointMisconfigured(Refusal):
    """The endpoint's settings cannot work (missing key variable, address that is not allowed); nothing was sent."""
