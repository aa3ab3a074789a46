"""Which texts say nearly the same: nearest by the words they share, and how the one relates to the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from rules.mining.arrays import FloatArray
from rules.mining.wording import label_phrase, stems, without_label_phrase

type Kind = Literal["duplicate", "contradicts", "narrower", "wider", "near"]

NEAREST = 5
# Below it two texts share little but their subject.
LEAST = 0.25
DUPLICATE = 0.9
CONTRADICTS = 0.75
_BLOCK_CELLS = 8_000_000


@dataclass(frozen=True)
class Near:
    """`row` is the other text, `similarity` the cosine of both TF-IDF word vectors, from 0 to 1."""

    row: int
    similarity: float
    kind: Kind


def nearest_texts(
    texts: Sequence[str],
    labels: Sequence[str],
    *,
    names: Sequence[str] = (),
    apart: Mapping[int, Collection[int]] | None = None,
) -> list[list[Near]]:
    """For each text at most five others of the highest cosine, at least 0.25, the nearest first.

    `labels` names the label of each text, `names` all labels of the task: their phrases are left out, so that two rules
    of one condition and different labels lie close. Exact; a block of rows at a time.
    """
    if len(texts) < 2:
        return [[] for _ in texts]
    phrase = label_phrase(names)
    bare = [without_label_phrase(text, phrase) for text in texts]
    words = [frozenset(stems(text)) for text in bare]
    if not any(words):
        return [[] for _ in texts]
    weights = sparse.csr_matrix(
        TfidfVectorizer(analyzer=stems, sublinear_tf=True).fit_transform(bare), dtype=np.float32
    )
    found: list[list[Near]] = []
    step = max(1, _BLOCK_CELLS // len(texts))
    for start in range(0, len(texts), step):
        block = np.asarray((weights[start : start + step] @ weights.T).toarray())
        for place, similarities in enumerate(block):
            row = start + place
            similarities[[row, *(apart or {}).get(row, ())]] = -1
            found.append([_near(row, other, similarities, labels, words) for other in _best(similarities)])
    return found


def _best(similarities: FloatArray) -> list[int]:
    """At most NEAREST rows of at least LEAST, highest first; of equals the lower row."""
    count = min(NEAREST, len(similarities) - 1)
    rows = np.argpartition(-similarities, count - 1)[:count] if count else np.array([], dtype=np.int64)
    rows = rows[similarities[rows] >= LEAST]
    return [int(row) for row in rows[np.lexsort((rows, -similarities[rows]))]]


def _near(
    row: int, other: int, similarities: FloatArray, labels: Sequence[str], words: Sequence[frozenset[str]]
) -> Near:
    similarity = min(1.0, float(similarities[other]))
    return Near(other, similarity, _kind(row, other, similarity, labels, words))


def _kind(row: int, other: int, similarity: float, labels: Sequence[str], words: Sequence[frozenset[str]]) -> Kind:
    """What the other text is to this one. Narrower: it asks for all that this one asks for, and for more."""
    if labels[row] != labels[other]:
        return "contradicts" if similarity >= CONTRADICTS else "near"
    if similarity >= DUPLICATE:
        return "duplicate"
    if words[row] < words[other]:
        return "narrower"
    return "wider" if words[other] < words[row] else "near"


def families(found: Sequence[Sequence[Near]]) -> list[int]:
    """For each row the lowest row it is joined to by duplicates, itself where there is none."""
    lowest = list(range(len(found)))

    def root(row: int) -> int:
        while lowest[row] != row:
            lowest[row] = lowest[lowest[row]]
            row = lowest[row]
        return row

    for row, near in enumerate(found):
        for one in near:
            if one.kind == "duplicate":
                first, second = sorted((root(row), root(one.row)))
                lowest[second] = first
    return [root(row) for row in range(len(found))]
