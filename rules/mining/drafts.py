"""Drafts without a teacher, put together from the micro-rules' own words, and the evidence around a cluster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rules.mining.arrays import FloatArray, IntArray, unit_rows
from rules.mining.wording import condition, label_phrase

# Weight of being typical of the cluster against being unlike what is already cited (maximal marginal relevance,
# Carbonell and Goldstein 1998). Farthest-first alone cited the cluster's strays.
_TYPICAL = 0.5
_SAME = 0.9  # cosine above which two members say the same


@dataclass(frozen=True)
class Draft:
    """A text quoted from members only. Numbers are rows of the cluster given; `cited` is medoid, then conditions."""

    text: str
    cited: list[int]
    medoid: int
    conditions: list[int]


@dataclass(frozen=True)
class Evidence:
    """Rows of the whole set, nearest to the cluster's centroid first: its own members, and its topic's others."""

    supporting: list[int]
    contradicting: list[int]


def draft_instruction(
    texts: Sequence[str], vectors: FloatArray, *, labels: Sequence[str] = (), max_conditions: int = 3
) -> Draft:
    """The medoid's text, then the distinct conditions of at most `max_conditions` members. Same input, same draft.

    `texts` and unit `vectors` (n >= 1 rows) are one cluster's; `labels` the task's label names, which end a condition.
    """
    if not texts or len(texts) != len(vectors):
        raise ValueError("A draft needs at least one text, and one vector for each.")
    phrase = label_phrase(labels)
    medoid = medoid_row(vectors)
    conditions = _distinct_conditions(texts, vectors, phrase, medoid, max_conditions)
    return Draft(_draft_text(texts, phrase, medoid, conditions), [medoid, *conditions], medoid, conditions)


def medoid_row(vectors: FloatArray) -> int:
    """The row with the highest mean cosine to all rows, the first of equals."""
    return int(np.argmax(np.round(vectors @ vectors.mean(axis=0), 5)))


def supporting_and_contradicting(
    vectors: FloatArray, topics: IntArray, labels: Sequence[str], *, topic: int, label: str, k: int = 5
) -> Evidence:
    """At most k rows each way for the cluster (topic, label); ties go to the lower row. No cluster, no evidence."""
    in_topic = np.flatnonzero(topics == topic)
    own = np.array([labels[row] == label for row in in_topic.tolist()], dtype=np.bool_)
    if not own.any():
        return Evidence([], [])
    centroid = unit_rows(vectors[in_topic[own]].mean(axis=0, keepdims=True))[0]
    nearest = np.lexsort((in_topic, -np.round(vectors[in_topic] @ centroid, 5)))
    ranked, ranked_own = in_topic[nearest], own[nearest]
    return Evidence(ranked[ranked_own][:k].tolist(), ranked[~ranked_own][:k].tolist())


def _distinct_conditions(
    texts: Sequence[str], vectors: FloatArray, phrase: re.Pattern[str], medoid: int, most: int
) -> list[int]:
    """Members to cite beside the medoid, the most telling first; none whose condition is already said."""
    typical = vectors @ unit_rows(vectors.mean(axis=0, keepdims=True))[0]
    nearest_cited = vectors @ vectors[medoid]
    said = {_plain(condition(texts[medoid], phrase))}
    open_rows = nearest_cited < _SAME
    chosen: list[int] = []
    while len(chosen) < most and open_rows.any():
        score = np.round(_TYPICAL * typical - (1 - _TYPICAL) * nearest_cited, 5)
        row = int(np.argmax(np.where(open_rows, score, -np.inf)))
        open_rows[row] = False
        words = _plain(condition(texts[row], phrase))
        if not words or words in said:
            continue
        said.add(words)
        chosen.append(row)
        nearest_cited = np.maximum(nearest_cited, vectors @ vectors[row])
        open_rows &= nearest_cited < _SAME
    return chosen


def _draft_text(texts: Sequence[str], phrase: re.Pattern[str], medoid: int, conditions: list[int]) -> str:
    own = " ".join(texts[medoid].split())
    if not conditions:
        return own
    if own[-1:] not in {".", "!", "?"}:
        own += "."
    return f"{own} Also applies where: {'; or '.join(condition(texts[row], phrase) for row in conditions)}."


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
