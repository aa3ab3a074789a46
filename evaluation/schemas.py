"""What a finished run keeps in its `figures` column."""

from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from evaluation.metrics import CallSummary, LabelScore, Metrics, PairedComparison


class Figure(BaseModel):
    """A stored figure: `model_dump(mode="json")` writes it, `model_validate` reads it back."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RepeatScore(Figure):
    """One repetition of a run, by itself."""

    repeat: int
    macro_f1: float
    accuracy: float
    answered: int


class Leakage(Figure):
    """Examples of the run that instructions of its prompt were mined from: by the trace itself, or by an equal input.

    `macro_f1_without` and `n_without` are over the other examples; None when there are none.
    """

    by_trace: int
    by_input: int
    examples: int
    instructions: tuple[int, ...]
    n_without: int
    macro_f1_without: float | None


class RunFigures(Figure):
    """Figures of one run. `n` = answered + abstained + malformed + no_answer; all n examples are in `metrics`.

    An example without a usable answer is wrong in every figure of `metrics`, where `malformed` counts all three kinds.
    `student_models` are the models as the server named them, `cost` is in the endpoint's currency and includes calls
    whose answer could not be used. `calls` covers calls that were answered; time is the whole call with its retries.
    Of a run with repetitions `metrics` is the first one, and `repeats` holds each. `leakage` None: no instructions.
    """

    n: int
    answered: int
    abstained: int = 0
    malformed: int
    no_answer: int
    metrics: Metrics
    calls: CallSummary
    cost: Decimal
    student_models: tuple[str, ...]
    repeats: tuple[RepeatScore, ...] = ()
    leakage: Leakage | None = None

    @property
    def malformed_rate(self) -> float:
        """Share of examples whose reply came but could not be used, 0 to 1."""
        return self.malformed / self.n

    @property
    def abstention_rate(self) -> float:
        """Share of examples where the student said that it does not know, 0 to 1."""
        return self.abstained / self.n

    @property
    def spread(self) -> tuple[float, float, float]:
        """Lowest, mean and highest macro-F1 over the repetitions."""
        values = [one.macro_f1 for one in self.repeats] or [self.metrics.macro_f1]
        return min(values), sum(values) / len(values), max(values)


class Flip(Figure):
    """An example whose answer changed; an empty answer was not usable."""

    example: int
    gold: str
    before: str
    after: str


class LabelChange(Figure):
    """One label with all instructions, and without one of them; `given_*` count how often it was the answer."""

    before: LabelScore
    after: LabelScore
    given_before: int
    given_after: int

    @property
    def f1_change(self) -> float:
        """Without minus with; a label that nobody gave or should have given counts as 0."""
        return (self.after.f1 or 0.0) - (self.before.f1 or 0.0)


class AblationFigures(Figure):
    """What leaving one instruction out did, over the `paired.n` examples answered both times; changes are without
    minus with. `missing` examples got no answer. `paired` None: more than half of them, so nothing is said."""

    prompt_sha256: str
    missing: int
    flipped: int
    paired: PairedComparison | None
    labels: tuple[LabelChange, ...]
    flips: tuple[Flip, ...]
