"""Agreement and shares against other implementations and a published example."""

import random

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from rules.agreement import Agreement, agreement_of, cohens_kappa, gwets_ac1, raw_agreement, share

# The three abstractors of the R package irrCAC (Gwet): 100 subjects, three categories.
ABSTRACTORS = np.array([[13.0, 0.0, 0.0], [0.0, 20.0, 7.0], [0.0, 4.0, 56.0]])
VERDICTS = ("approve", "reject")


def pairs_of(yes: int, first: int, second: int, no: int) -> list[tuple[str, str]]:
    """So many both approve, only the first does, only the second does, both reject."""
    return [
        *[("approve", "approve")] * yes,
        *[("approve", "reject")] * first,
        *[("reject", "approve")] * second,
        *[("reject", "reject")] * no,
    ]


def test_ac1_is_that_of_the_published_example() -> None:
    assert gwets_ac1(ABSTRACTORS) == pytest.approx(0.8493305, abs=1e-7)
    assert cohens_kappa(ABSTRACTORS) == pytest.approx(0.7964094, abs=1e-7)
    assert raw_agreement(ABSTRACTORS) == 0.89


def test_kappa_is_that_of_scikit_learn() -> None:
    draw = random.Random(7)
    for _ in range(30):
        pairs = [(draw.choice(VERDICTS), draw.choice(VERDICTS)) for _ in range(draw.randint(12, 80))]
        ours = agreement_of(pairs, VERDICTS).kappa.value
        theirs = cohen_kappa_score(*zip(*pairs, strict=True), labels=list(VERDICTS))
        assert ours == pytest.approx(theirs)


def test_where_one_verdict_is_rare_kappa_breaks_down_and_ac1_does_not() -> None:
    found = agreement_of(pairs_of(118, 5, 2, 0), VERDICTS)
    assert found.raw.value == pytest.approx(0.944)
    assert found.kappa.value == pytest.approx(-0.0234, abs=1e-4)
    assert found.ac1.value == pytest.approx(0.9408, abs=1e-4)


def test_all_alike_leaves_kappa_undefined_and_says_so() -> None:
    found = agreement_of(pairs_of(20, 0, 0, 0), VERDICTS)
    assert found.kappa.value is None
    assert (found.raw.value, found.ac1.value) == (1.0, 1.0)


def test_too_few_say_nothing() -> None:
    found = agreement_of(pairs_of(8, 1, 0, 0), VERDICTS)
    assert (found.raw.is_known, found.kappa.is_known, found.ac1.is_known, found.n) == (False, False, False, 9)
    assert agreement_of([], VERDICTS).n == 0


def test_intervals_hold_their_figure_and_are_the_same_each_time() -> None:
    pairs = pairs_of(60, 8, 5, 27)
    found, again = agreement_of(pairs, VERDICTS), agreement_of(pairs[::-1], VERDICTS)
    assert found == again
    for one in (found.raw, found.kappa, found.ac1):
        assert one.low is not None
        assert one.high is not None
        assert one.value is not None
        assert one.low < one.value < one.high


def test_the_interval_of_kappa_covers_what_is_true() -> None:
    """60 samples of 100 items from a known table: the interval holds the true kappa in at least 53 of them."""
    truth = np.array([[0.55, 0.08], [0.07, 0.30]])
    kappa = cohens_kappa(truth)
    assert kappa is not None
    draw = np.random.default_rng(3)
    held = 0
    for _ in range(60):
        cells = draw.multinomial(100, truth.ravel())
        found: Agreement = agreement_of(pairs_of(*(int(cell) for cell in cells)), VERDICTS)
        if found.kappa.low is not None and found.kappa.low <= kappa <= (found.kappa.high or 0):
            held += 1
    assert held >= 53


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Clopper and Pearson (1934), as every statistics package gives them.
    [(0, 10, 0.0, 0.3085), (8, 10, 0.4439, 0.9748), (10, 10, 0.6915, 1.0)],
)
def test_a_share_has_the_exact_interval(hits: int, n: int, low: float, high: float) -> None:
    found = share(hits, n)
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)


def test_a_share_of_nothing_is_unknown() -> None:
    assert not share(0, 0).is_known
