"""Sets of micro-rules with a known structure, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rules.mining.arrays import FloatArray, IntArray, unit_rows

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def generated_texts(sizes: Sequence[int], *, own_share: float = 0.3, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts of 12 to 50 made-up words, and each one's topic; `own_share` of the words belong to that topic alone."""
    generator = np.random.default_rng(seed)
    common = [f"common{one}{two}" for one in _LETTERS for two in _LETTERS[:8]]
    texts, truth = [], []
    for topic, size in enumerate(sizes):
        own = [f"q{topic}w{letter}k" for letter in _LETTERS[:12]]
        for _ in range(size):
            mine = generator.random(generator.integers(12, 50)) < own_share
            texts.append(" ".join(str(generator.choice(own if is_own else common)) for is_own in mine))
            truth.append(f"topic {topic}")
    return texts, truth


def generated_vectors(n: int, *, topics: int = 20, dimensions: int = 64, seed: int = 0) -> tuple[FloatArray, IntArray]:
    """Unit rows (n, dimensions) around topic centres of Zipf-like sizes, in random order, and each row's topic."""
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, topics + 1) ** 0.7
    truth = generator.choice(topics, size=n, p=weights / weights.sum())
    centres = unit_rows(generator.standard_normal((topics, dimensions)))
    # In 64 dimensions this noise is as long as 1.2 times the centre: neighbours are near, but nothing is trivial.
    noise = generator.standard_normal((n, dimensions)) * (1.2 / np.sqrt(dimensions))
    return unit_rows(centres[truth] + noise), np.asarray(truth, dtype=np.int64)
