"""Micro-rules whose label their nearest neighbours contradict: the gold label may be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rules.mining.arrays import IntArray
from rules.mining.conflicts import SAME_CONDITION, Conditions

NEIGHBOURS = 10
_OVERWHELMING = 0.8
_BLOCK_ROWS = 1_000


@dataclass(frozen=True)
class SuspectRow:
    """A row, the closest of its neighbours that says the same under another label, and how many carry that label."""

    row: int
    neighbour: int
    others: int
    looked_at: int
    similarity: float


def find_suspects(
    conditions: Conditions, topics: IntArray, labels: Sequence[str], *, most: int = 100
) -> list[SuspectRow]:
    """At most `most` rows of which 8 of the 10 nearest of the topic carry one other label, and one says the same.

    The most contradicted come first, then the closest. Topics of fewer than 11 rows are too small to tell.
    """
    found: list[SuspectRow] = []
    for topic in np.unique(topics[topics >= 0]).tolist():
        rows = np.flatnonzero(topics == topic)
        if len(rows) > NEIGHBOURS:
            found += _of_topic(conditions, rows, labels)
    return sorted(found, key=lambda one: (-one.others, -one.similarity, one.row))[:most]


def _of_topic(conditions: Conditions, rows: IntArray, labels: Sequence[str]) -> list[SuspectRow]:
    own = conditions.vectors[rows]
    found = []
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = own[start : start + _BLOCK_ROWS] @ own.T
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        nearest = np.argpartition(-block, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        found += [
            suspect
            for place, others in enumerate(nearest)
            if (suspect := _suspect(conditions, int(rows[start + place]), rows[others], labels))
        ]
    return found


def _suspect(conditions: Conditions, row: int, nearest: IntArray, labels: Sequence[str]) -> SuspectRow | None:
    label, count = Counter(labels[other] for other in nearest.tolist()).most_common(1)[0]
    if label == labels[row] or count < _OVERWHELMING * len(nearest):
        return None
    others = np.array([other for other in nearest.tolist() if labels[other] == label], dtype=np.int64)
    similarity, opposed = conditions.compare(np.full(len(others), row, dtype=np.int64), others)
    similarity = np.where(opposed, 0, similarity)
    best = int(np.argmax(similarity))
    if similarity[best] < SAME_CONDITION:
        return None
    return SuspectRow(row, int(others[best]), count, len(nearest), float(similarity[best]))
