"""How far two reviewers agree beyond chance, and how sure a share of few can be: plain Python, no rows.

Figures follow docs/method.md, "Review quality", which names the sources.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Below this many there is nothing to say; below the second, kappa is shown and not acted on.
TOO_FEW = 10
FEW_FOR_KAPPA = 100
RESAMPLES = 2000
_SEED = 20_260_101

type Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95% interval and what it rests on; `value` is None where n is too small or it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def is_known(self) -> bool:
        return self.value is not None

    @property
    def percent(self) -> str:
        return _percent(self.value)

    @property
    def percent_interval(self) -> str:
        return f"{_percent(self.low)} to {_percent(self.high)}"

    @property
    def text(self) -> str:
        return _number(self.value)

    @property
    def interval(self) -> str:
        return f"{_number(self.low)} to {_number(self.high)}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}%"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def share(hits: int, n: int, *, too_few: int = 1) -> Estimate:
    """A share of n with the exact interval of Clopper and Pearson (1934), which never covers less than 95%."""
    if n < max(1, too_few):
        return Estimate(None, None, None, n)
    from scipy.stats import binomtest  # noqa: PLC0415  # slow to import, and only figures need it

    found = binomtest(hits, n).proportion_ci(0.95, method="exact")
    return Estimate(hits / n, float(found.low), float(found.high), n)


# Each of these takes one table of counts, first verdict in rows and second in columns, or a stack of them (..., K, K),
# and gives one figure for each; nan where it is undefined.


def raw_agreement(table: Counts) -> Counts:
    """Share of items on which both said the same."""
    same: Counts = np.trace(table, axis1=-2, axis2=-1) / table.sum(axis=(-2, -1))
    return same


def cohens_kappa(table: Counts) -> Counts:
    """Cohen (1960): chance from each rater's own marginals. Undefined where chance alone would always agree."""
    n = table.sum(axis=(-2, -1))
    expected = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1) / n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa: Counts = np.where(expected < 1, (raw_agreement(table) - expected) / (1 - expected), np.nan)
    return kappa


def gwets_ac1(table: Counts) -> Counts:
    """Gwet (2008): chance from the mean marginals, sum of p(1-p) over K-1, steady where one verdict is rare."""
    n = table.sum(axis=(-2, -1))[..., np.newaxis]
    mean = (table.sum(axis=-1) + table.sum(axis=-2)) / (2 * n)
    expected = (mean * (1 - mean)).sum(axis=-1) / (table.shape[-1] - 1)
    ac1: Counts = (raw_agreement(table) - expected) / (1 - expected)
    return ac1


@dataclass(frozen=True, slots=True)
class Agreement:
    raw: Estimate
    kappa: Estimate
    ac1: Estimate
    n: int

    @property
    def is_few_for_kappa(self) -> bool:
        return self.n < FEW_FOR_KAPPA


def agreement_of(pairs: Sequence[tuple[str, str]], verdicts: Sequence[str]) -> Agreement:
    """Of each item's first and second verdict. Intervals are percentiles of 2,000 resamples of items, seeded.

    The raw share has the exact interval. Below 10 items nothing is said.
    """
    n = len(pairs)
    if n < TOO_FEW:
        nothing = Estimate(None, None, None, n)
        return Agreement(nothing, nothing, nothing, n)
    places = {verdict: place for place, verdict in enumerate(verdicts)}
    table: Counts = np.zeros((len(verdicts), len(verdicts)))
    for first, second in pairs:
        table[places[first], places[second]] += 1
    same = int(np.trace(table))
    return Agreement(share(same, n), _bootstrapped(table, cohens_kappa), _bootstrapped(table, gwets_ac1), n)


def _bootstrapped(table: Counts, figure: Callable[[Counts], Counts]) -> Estimate:
    """Resampling items with replacement is drawing the cells of the table from a multinomial."""
    n, value = int(table.sum()), float(figure(table))
    if np.isnan(value):
        return Estimate(None, None, None, n)
    drawn = np.random.default_rng(_SEED).multinomial(n, (table / n).ravel(), size=RESAMPLES)
    found = figure(drawn.reshape(RESAMPLES, *table.shape).astype(float))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return Estimate(value, float(low), float(high), n)
