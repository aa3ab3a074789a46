"""Where two groups of micro-rules say the same of the case and give it different labels.

For each micro-rule its nearest neighbours under another label are looked up among the vectors. Then the two conditions
(the part before the label) are compared: how alike they are in meaning and in words, and whether the words they share
are said in the same sense. "The agreement has no archive clause" and "the agreement has an archive clause" are near but
opposed: there two rules border on each other, and do not conflict.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from rules.mining.arrays import FloatArray, IntArray
from rules.mining.polarity import polar_stems
from rules.mining.vectors import centre, embed_tfidf
from rules.mining.wording import condition, label_phrase

type Kind = Literal["conflict", "boundary"]

# From here on two conditions count as the same, on a scale from 0 to 1.
SAME_CONDITION = 0.4
_SAME_SENSE = 0.8  # share of the common words that both say in the same sense
_OTHER_TOPIC = 0.7  # rules of different topics answer different questions more often than not
_NEIGHBOURS = 20
_EXAMPLES = 3
_MOST_ROWS = 10_000
_BLOCK_ROWS = 1_000


@dataclass(frozen=True)
class ConditionPair:
    """Two micro-rules (rows) of different labels with like conditions; similarity from 0 to 1."""

    first: int
    second: int
    similarity: float
    opposed: bool


@dataclass(frozen=True)
class Overlap:
    """Two groups of different labels (`first` < `second`) whose conditions overlap.

    `same` and `opposed` count the pairs found in the same and in the opposite sense; a boundary has none in the same.
    `pairs`: at most three of that kind that share no row, the closest first. `strength` (0 to 1) is their mean
    similarity, times their share of all pairs found, times k / (k + 1) for k of them; a pair more is counted in each
    share against the finding, so that one lucky pair does not lead the list.
    """

    first: int
    second: int
    kind: Kind
    strength: float
    same: int
    opposed: int
    pairs: tuple[ConditionPair, ...]


class Conditions:
    """The conditions of n micro-rules, ready to compare any two of them."""

    def __init__(self, texts: Sequence[str], vectors: FloatArray, labels: Sequence[str] = ()) -> None:
        """`texts` and their centred unit `vectors` (n, d); `labels` are the task's label names."""
        phrase = label_phrase(labels)
        conditions = [condition(text, phrase) for text in texts]
        self.vectors = vectors
        self.meaning = centre(embed_tfidf(conditions, labels=labels)) if texts else vectors
        self.plain, self.marked = _word_weights([polar_stems(text) for text in conditions])

    def compare(self, first: IntArray, second: IntArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Similarity (0 to 1) of each pair of rows, and whether the two speak in opposite senses.

        The mean of three cosines: of the whole rules, of the conditions' meaning, and of their words in the same sense.
        Conditions without a common word are not alike.
        """
        plain = _cosines(self.plain, first, second)
        marked = _cosines(self.marked, first, second)
        whole = np.einsum("ij,ij->i", self.vectors[first], self.vectors[second])
        meaning = np.einsum("ij,ij->i", self.meaning[first], self.meaning[second])
        opposed = marked < _SAME_SENSE * plain
        # Words in the opposite sense are shared words all the same: how near the border is, not how far.
        words = np.where(opposed, plain, marked)
        alike = np.where(plain > 0, np.maximum(0, (words + whole + meaning) / 3), 0)
        return alike.astype(np.float32), opposed


def find_overlaps(conditions: Conditions, groups: IntArray, topics: IntArray, labels: Sequence[str]) -> list[Overlap]:
    """Overlapping pairs of groups, conflicts before boundaries, each kind strongest first.

    `groups` (n,) numbers the rules that one instruction rests on, -1 for none; all rows of a group share one label.
    Above 10,000 rows each group is represented by an even sample of its rows.
    """
    first, second = _neighbour_pairs(conditions.vectors, groups, labels)
    if not len(first):
        return []
    similarity, opposed = conditions.compare(first, second)
    similarity = np.where(topics[first] == topics[second], similarity, similarity * _OTHER_TOPIC)
    kept = similarity >= SAME_CONDITION
    found: defaultdict[tuple[int, int], list[ConditionPair]] = defaultdict(list)
    for one, other, value, is_opposed in zip(
        first[kept].tolist(), second[kept].tolist(), similarity[kept].tolist(), opposed[kept].tolist(), strict=True
    ):
        a, b = (one, other) if groups[one] < groups[other] else (other, one)
        found[int(groups[a]), int(groups[b])].append(ConditionPair(a, b, float(value), bool(is_opposed)))
    overlaps = [_overlap(key, pairs) for key, pairs in found.items()]
    return sorted(overlaps, key=lambda one: (one.kind == "boundary", -one.strength, one.first, one.second))


def _overlap(key: tuple[int, int], pairs: list[ConditionPair]) -> Overlap:
    same = [pair for pair in pairs if not pair.opposed]
    kind: Kind = "conflict" if same else "boundary"
    chosen = _apart(same or pairs)
    share = (len(same) or len(pairs)) / (len(pairs) + 1)
    similarity = sum(pair.similarity for pair in chosen) / len(chosen)
    strength = similarity * share * len(chosen) / (len(chosen) + 1)
    return Overlap(*key, kind, strength, len(same), len(pairs) - len(same), chosen)


def _apart(pairs: list[ConditionPair]) -> tuple[ConditionPair, ...]:
    """The closest pairs of which no two share a row: one odd rule that is near to many says little."""
    chosen: list[ConditionPair] = []
    for pair in sorted(pairs, key=lambda one: (-one.similarity, one.first, one.second)):
        if len(chosen) == _EXAMPLES:
            break
        if all(pair.first != one.first and pair.second != one.second for one in chosen):
            chosen.append(pair)
    return tuple(chosen)


def _neighbour_pairs(vectors: FloatArray, groups: IntArray, labels: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Each row with its nearest rows under other labels, every pair once."""
    rows = _represented(groups)
    codes = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)[1]
    own, kept_codes = vectors[rows], codes[rows]
    k = min(_NEIGHBOURS, len(rows) - 1)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = own[start : start + _BLOCK_ROWS] @ own.T
        block[kept_codes[start : start + _BLOCK_ROWS, None] == kept_codes[None, :]] = -np.inf
        nearest = np.argpartition(-block, k, axis=1)[:, :k] if k else np.zeros((len(block), 0), dtype=np.int64)
        for place, others in enumerate(nearest):
            positive = others[block[place, others] > 0]
            row = int(rows[start + place])
            pairs |= {(min(row, other), max(row, other)) for other in rows[positive].tolist()}
    ordered = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]


def _represented(groups: IntArray) -> IntArray:
    """Rows that stand in a group; where there are too many, evenly chosen from each."""
    rows = np.flatnonzero(groups >= 0)
    if len(rows) <= _MOST_ROWS:
        return rows
    numbers = np.unique(groups[rows])
    each = max(1, _MOST_ROWS // len(numbers))
    chosen = []
    for number in numbers.tolist():
        members = np.flatnonzero(groups == number)
        places = np.linspace(0, len(members) - 1, min(each, len(members))).astype(np.int64)
        chosen.append(members[places])
    return np.sort(np.concatenate(chosen))


def _word_weights(stems: list[list[tuple[str, bool]]]) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """TF-IDF rows over the words, and over the words kept apart by their sense, with the weight of the plain word."""
    plain = TfidfVectorizer(analyzer=_plain_words, sublinear_tf=True)
    marked = TfidfVectorizer(analyzer=_marked_words, sublinear_tf=True)
    try:
        plain_rows = plain.fit_transform(stems)
        marked.fit(stems)
    except ValueError:  # scikit-learn's way to say that no word is left
        nothing = sparse.csr_matrix((len(stems), 1))
        return nothing, nothing
    weight = dict(zip(plain.get_feature_names_out(), plain.idf_, strict=True))
    marked.idf_ = np.array([weight[word.removeprefix("~")] for word in marked.get_feature_names_out()])
    return sparse.csr_matrix(plain_rows), sparse.csr_matrix(marked.transform(stems))


def _plain_words(stems: list[tuple[str, bool]]) -> list[str]:
    return [word for word, _denied in stems]


def _marked_words(stems: list[tuple[str, bool]]) -> list[str]:
    return [f"~{word}" if denied else word for word, denied in stems]


def _cosines(rows: sparse.csr_matrix, first: IntArray, second: IntArray) -> FloatArray:
    return np.asarray(rows[first].multiply(rows[second]).sum(axis=1), dtype=np.float32).ravel()
