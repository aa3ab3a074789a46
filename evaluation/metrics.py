"""Figures of an evaluation run, from gold and predicted labels. Pure: no Django, no database.

A prediction of `None` is a malformed or withheld answer: wrong in every figure, with a column of its own.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MALFORMED = "malformed"
CONFIDENCE = 0.95
SIGNIFICANT = 0.05


class _Figure(BaseModel):
    """A stored figure: `model_dump(mode="json")` writes it, `model_validate` reads it back."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LabelScore(_Figure):
    """One-against-rest figures of one label, 0 to 1. `f1` is None for a label neither gold nor predicted."""

    label: str
    precision: float
    recall: float
    f1: float | None
    support: int


class Interval(_Figure):
    """Percentile-bootstrap interval. Where all answers are right (or all wrong) it has no width at any n."""

    low: float
    high: float
    level: float
    resamples: int
    seed: int
    n: int


class Confusion(_Figure):
    """`counts[i][j]`: examples of gold label i answered with label j; the last column is malformed answers."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Metrics(_Figure):
    """Everything a page or a gate says about the answers of one run. Rates run from 0 to 1."""

    n: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    by_label: tuple[LabelScore, ...]
    malformed: int
    malformed_rate: float
    confusion: Confusion


class CallSummary(_Figure):
    """Latency percentiles (None without calls) and token sums over the calls that reported usage.

    `cached_tokens` are those of the prompts that servers had in their cache; None when no server said.
    """

    calls: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    prompt_tokens: int
    completion_tokens: int
    calls_without_usage: int
    cached_tokens: int | None = None


class PairedComparison(_Figure):
    """Two runs over the same examples; changes are after minus before.

    `p_value`: exact two-sided McNemar test, that is, a binomial test of the fixed among the changed examples. It alone
    decides `verdict`; the intervals (paired percentile bootstrap over the examples) say how large the change may be.
    """

    n: int
    fixed: int
    broken: int
    both_right: int
    both_wrong: int
    accuracy_change: float
    accuracy_change_interval: Interval
    macro_f1_change: float
    macro_f1_change_interval: Interval
    p_value: float

    @property
    def verdict(self) -> Literal["better", "worse", "not shown"]:
        """Whether the runs differ at the 5% level."""
        if self.p_value >= SIGNIFICANT:
            return "not shown"
        return "better" if self.fixed > self.broken else "worse"


def score_run(
    gold: Sequence[str],
    predicted: Sequence[str | None],
    labels: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = 1_000,
) -> Metrics:
    """Score predictions against gold labels, paired by position.

    ValueError on an empty run, unequal lengths, repeated labels, or a label outside `labels`.
    """
    counts = _confusion_counts(gold, predicted, labels)
    n = int(counts.sum())
    accuracy_interval, macro_f1_interval = _bootstrap(counts, seed=seed, resamples=resamples)
    malformed = int(counts[:, -1].sum())
    return Metrics(
        n=n,
        accuracy=float(_accuracy(counts)),
        accuracy_interval=accuracy_interval,
        macro_f1=float(_macro_f1(counts)),
        macro_f1_interval=macro_f1_interval,
        by_label=_by_label(counts, labels),
        malformed=malformed,
        malformed_rate=malformed / n,
        confusion=Confusion(labels=tuple(labels), counts=tuple(tuple(row) for row in counts.tolist())),
    )


def macro_f1(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> float:
    """The macro-F1 of `score_run` alone, without intervals. ValueError as there."""
    return float(_macro_f1(_confusion_counts(gold, predicted, labels)))


def summarise_calls(
    latencies_ms: Sequence[float],
    prompt_tokens: Sequence[int | None],
    completion_tokens: Sequence[int | None],
    cached_tokens: Sequence[int | None] = (),
) -> CallSummary:
    """Sum up calls, one position each; None where no usage was reported. Percentiles interpolate linearly."""
    usage = list(zip(prompt_tokens, completion_tokens, strict=True))
    if len(usage) != len(latencies_ms):
        raise ValueError("Each call needs one latency and one entry of each token count.")
    p50, p95 = np.percentile(latencies_ms, [50, 95]).tolist() if latencies_ms else (None, None)
    return CallSummary(
        calls=len(usage),
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        prompt_tokens=sum(prompt or 0 for prompt, _ in usage),
        completion_tokens=sum(completion or 0 for _, completion in usage),
        calls_without_usage=sum(prompt is None or completion is None for prompt, completion in usage),
        cached_tokens=sum(said) if (said := [count for count in cached_tokens if count is not None]) else None,
    )


def compare_runs(
    gold: Sequence[str],
    before: Sequence[str | None],
    after: Sequence[str | None],
    *,
    seed: int = 0,
    resamples: int = 1_000,
) -> PairedComparison:
    """Compare two runs example by example: fixed is wrong before and right after, broken the reverse."""
    # SciPy's statistics cost three quarters of a second to import; only this page pays for them.
    from scipy.stats import binomtest  # noqa: PLC0415

    pairs = [(old == truth, new == truth) for truth, old, new in zip(gold, before, after, strict=True)]
    if not pairs:
        raise ValueError("A comparison needs at least one example.")
    fixed, broken = pairs.count((False, True)), pairs.count((True, False))
    discordant = fixed + broken
    labels = sorted({*gold, *(label for label in (*before, *after) if label is not None)})
    accuracy_interval, macro_f1_interval = _paired_bootstrap(
        gold, before, after, labels, seed=seed, resamples=resamples
    )
    return PairedComparison(
        n=len(pairs),
        fixed=fixed,
        broken=broken,
        both_right=pairs.count((True, True)),
        both_wrong=pairs.count((False, False)),
        accuracy_change=(fixed - broken) / len(pairs),
        accuracy_change_interval=accuracy_interval,
        macro_f1_change=macro_f1(gold, after, labels) - macro_f1(gold, before, labels),
        macro_f1_change_interval=macro_f1_interval,
        p_value=float(binomtest(fixed, discordant, 0.5).pvalue) if discordant else 1.0,
    )


def _confusion_counts(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> Counts:
    """Counts of shape (labels, labels + 1); the last column is for None."""
    if len(gold) != len(predicted) or not gold:
        raise ValueError("A run needs at least one example and one prediction for each.")
    position = {label: index for index, label in enumerate(labels)}
    if len(position) != len(labels):
        raise ValueError("Each label may be listed once.")
    unknown = (set(gold) | {label for label in predicted if label is not None}) - set(position)
    if unknown:
        raise ValueError(f"Not among the task's labels: {', '.join(sorted(unknown))}.")
    counts = np.zeros((len(labels), len(labels) + 1), dtype=np.int64)
    rows = [position[label] for label in gold]
    columns = [len(labels) if label is None else position[label] for label in predicted]
    np.add.at(counts, (rows, columns), 1)
    return counts


def _hits(counts: Counts) -> Counts:
    """Right answers by label, of shape (..., labels)."""
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _accuracy(counts: Counts) -> Floats:
    return np.asarray(_hits(counts).sum(axis=-1) / counts.sum(axis=(-2, -1)), dtype=np.float64)


def _f1(counts: Counts) -> Floats:
    """2TP / (2TP + FP + FN), of shape (..., labels); NaN for a label neither gold nor predicted."""
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)[..., :-1]
    return _ratio(2 * _hits(counts), support + predicted, missing=np.nan)


def _macro_f1(counts: Counts) -> Floats:
    """Mean of per-class F1, 0 to 1 (not F1 of mean precision and recall: Opitz and Burst 2019).

    A class never predicted scores 0. A class neither gold nor predicted has no F1 and no part in the mean.
    """
    return np.asarray(np.nanmean(_f1(counts), axis=-1), dtype=np.float64)


def _by_label(counts: Counts, labels: Sequence[str]) -> tuple[LabelScore, ...]:
    support, predicted = counts.sum(axis=1), counts.sum(axis=0)[:-1]
    precision = _ratio(_hits(counts), predicted, missing=0.0)
    recall = _ratio(_hits(counts), support, missing=0.0)
    f1 = _f1(counts)
    return tuple(
        LabelScore(
            label=label,
            precision=float(precision[i]),
            recall=float(recall[i]),
            f1=None if np.isnan(f1[i]) else float(f1[i]),
            support=int(support[i]),
        )
        for i, label in enumerate(labels)
    )


def _ratio(part: Counts, whole: Counts, *, missing: float) -> Floats:
    return np.divide(part, whole, out=np.full(whole.shape, missing, dtype=np.float64), where=whole > 0)


def _bootstrap(counts: Counts, *, seed: int, resamples: int) -> tuple[Interval, Interval]:
    """Intervals of accuracy and macro-F1 (Efron's percentile method).

    Drawing n examples with replacement makes the cells of the confusion matrix multinomial, and the figures
    depend on the cells alone; so the cells are drawn, in memory that does not grow with n.
    """
    n = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(n, counts.ravel() / n, size=resamples)
    drawn = drawn.reshape(resamples, *counts.shape)
    return _interval(_accuracy(drawn), seed, n), _interval(_macro_f1(drawn), seed, n)


def _paired_bootstrap(
    gold: Sequence[str],
    before: Sequence[str | None],
    after: Sequence[str | None],
    labels: Sequence[str],
    *,
    seed: int,
    resamples: int,
) -> tuple[Interval, Interval]:
    """Intervals of the change of accuracy and macro-F1: each draw takes both answers to an example together.

    As above the counts of equal examples (gold, before, after) are drawn; only those that occur are held.
    """
    place = {label: index for index, label in enumerate(labels)}
    cells = [
        (place[g], *(len(labels) if one is None else place[one] for one in (b, a)))
        for g, b, a in zip(gold, before, after, strict=True)
    ]
    kinds, counts = np.unique(np.asarray(cells, dtype=np.int64), axis=0, return_counts=True)
    n, shape = len(cells), (len(labels), len(labels) + 1)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)

    def confusion(answer: int) -> Counts:
        flat = np.zeros((len(kinds), shape[0] * shape[1]), dtype=np.int64)
        flat[np.arange(len(kinds)), kinds[:, 0] * shape[1] + kinds[:, answer]] = 1
        return np.asarray(drawn @ flat, dtype=np.int64).reshape(resamples, *shape)

    old, new = confusion(1), confusion(2)
    return (
        _interval(_accuracy(new) - _accuracy(old), seed, n),
        _interval(_macro_f1(new) - _macro_f1(old), seed, n),
    )


def _interval(values: Floats, seed: int, n: int) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return Interval(low=low, high=high, level=CONFIDENCE, resamples=len(values), seed=seed, n=n)
