"""The vote of the nearest neighbours, by cosine similarity. Pure: no Django, no database."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
type Matrix = Any  # a dense array or a scipy sparse matrix, which share slicing and products but no type
BLOCK = 200


def tfidf(train: Sequence[str], asked: Sequence[str]) -> tuple[Matrix, Matrix]:
    """Unit TF-IDF vectors over words and pairs of words, fitted on `train` alone; sparse, one row a text."""
    # scikit-learn costs half a second to import; only this baseline and the check of datasets pay for it.
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    words = r"(?u)\b\w+\b"
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=words)
    known = vectoriser.fit_transform(train)
    return known, vectoriser.transform(asked)


def vote(asked: Matrix, known: Matrix, labels: Sequence[str], k: int) -> list[str]:
    """For each row of `asked` the label most of its `k` nearest rows of `known` carry; `labels` are those of `known`.

    Rows are unit vectors. Neighbours count once each; of equal votes the label of the nearer neighbour wins, and of
    equally near neighbours the earlier row. Memory is bounded by blocks of rows.
    """
    said: list[str] = []
    for start in range(0, asked.shape[0], BLOCK):
        product = asked[start : start + BLOCK] @ known.T
        similar = np.asarray(product.todense() if hasattr(product, "todense") else product)
        # Rounded: two ways to sum the same products must not decide which neighbour is nearer.
        nearest = np.argsort(-np.round(similar, 9), axis=1, kind="stable")[:, :k]
        said += [_winner([labels[column] for column in row]) for row in nearest]
    return said


def _winner(labels: Sequence[str]) -> str:
    """`labels` from near to far."""
    votes: dict[str, int] = defaultdict(int)
    for label in labels:
        votes[label] += 1
    return max(votes, key=lambda label: votes[label])  # max keeps the first of equals, which came first
