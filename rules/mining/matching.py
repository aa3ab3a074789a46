"""Which candidate of a new run is which instruction that stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from rules.mining.arrays import FloatArray
from rules.mining.vectors import embed_tfidf

# Half of the smaller set of traces, or a text so like that only wording differs: below, two rules are two rules.
_SAME_TRACES = 0.5
_SAME_TEXT = 0.75
_TRACES_WEIGHT = 0.6


@dataclass(frozen=True)
class Known:
    """An instruction that stands (every text it has had, the present one first) or a candidate (its one text)."""

    label: str
    texts: tuple[str, ...]
    traces: frozenset[int]


def match_known(standing: Sequence[Known], fresh: Sequence[Known], *, labels: Sequence[str] = ()) -> dict[int, int]:
    """For each matched candidate (place in `fresh`) its instruction (place in `standing`), one to one, within a label.

    A candidate with one of the instruction's very texts goes first. Otherwise they must share half of the smaller one's
    traces, or be alike in words (cosine of at least 0.75); of several possible pairings the one with the highest sum is
    chosen (Kuhn 1955), traces counting 0.6 and words 0.4.
    """
    found: dict[int, int] = {}
    for label in sorted({one.label for one in standing} & {one.label for one in fresh}):
        old = [place for place, one in enumerate(standing) if one.label == label]
        new = [place for place, one in enumerate(fresh) if one.label == label]
        scores = _scores([standing[place] for place in old], [fresh[place] for place in new], labels)
        for row, column in zip(*linear_sum_assignment(scores, maximize=True), strict=True):
            if scores[row, column] > 0:
                found[new[column]] = old[row]
    return found


def _scores(standing: Sequence[Known], fresh: Sequence[Known], labels: Sequence[str]) -> FloatArray:
    """(standing, fresh); 0 where the two are not one rule."""
    words = _word_cosines(standing, fresh, labels)
    scores = np.zeros((len(standing), len(fresh)), dtype=np.float32)
    for row, old in enumerate(standing):
        for column, new in enumerate(fresh):
            if new.texts[0] in old.texts:
                scores[row, column] = 2.0
                continue
            shared = len(old.traces & new.traces) / max(1, min(len(old.traces), len(new.traces)))
            if shared >= _SAME_TRACES or words[row, column] >= _SAME_TEXT:
                scores[row, column] = _TRACES_WEIGHT * shared + (1 - _TRACES_WEIGHT) * max(0, words[row, column])
    return scores


def _word_cosines(standing: Sequence[Known], fresh: Sequence[Known], labels: Sequence[str]) -> FloatArray:
    """Cosine of the present texts, from -1 to 1."""
    vectors = embed_tfidf([one.texts[0] for one in (*standing, *fresh)], labels=labels)
    return vectors[: len(standing)] @ vectors[len(standing) :].T
