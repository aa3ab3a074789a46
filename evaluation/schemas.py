"""What a finished run keeps in its `figures` column."""

from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from evaluation.metrics import CallSummary, Metrics


class RunFigures(BaseModel):
    """Figures of one run. `n` = answered + malformed + no_answer; all n examples are in `metrics`.

    An example without a usable answer is wrong in every figure of `metrics`, where `malformed` counts both kinds.
    `student_models` are the models as the server named them, `cost` is in the endpoint's currency and includes calls
    whose answer could not be used. `calls` covers calls that were answered; time is the whole call with its retries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    answered: int
    malformed: int
    no_answer: int
    metrics: Metrics
    calls: CallSummary
    cost: Decimal
    student_models: tuple[str, ...]

    @property
    def malformed_rate(self) -> float:
        """Share of examples whose reply came but could not be used, 0 to 1."""
        return self.malformed / self.n
