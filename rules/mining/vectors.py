"""Vectors of micro-rules without a provider: TF-IDF of stemmed words and truncated SVD."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from rules.mining.arrays import FloatArray, unit_rows
from rules.mining.wording import label_phrase, stems, without_label_phrase

# A word seen once places no text near another; in a small set it may still be all that a text has.
_RARE_WORDS_COUNT_BELOW = 100


def embed_tfidf(texts: Sequence[str], *, dimensions: int = 64, seed: int = 0, labels: Sequence[str] = ()) -> FloatArray:
    """Unit rows of shape (n, at most `dimensions`), float32, the same for the same texts, labels and seed.

    Words are stemmed single words with sublinear counts, label phrases taken out (`labels`: the task's label names).
    Word pairs were tried and left out: on the Contract-NLI traces they cost 0.03 AMI. A text without a known word is
    a zero row.
    """
    phrase = label_phrase(labels)
    weights = _tfidf([without_label_phrase(text, phrase) for text in texts])
    if weights.shape[1] <= dimensions:  # SVD would only rotate
        return unit_rows(weights.toarray())
    svd = TruncatedSVD(min(dimensions, len(texts)), random_state=seed)
    return unit_rows(svd.fit_transform(weights))


def centre(vectors: NDArray[np.floating]) -> FloatArray:
    """Unit rows around the set's own mean, shape kept: one-domain texts share a direction that says nothing about them.

    A set of identical rows becomes all zeros, and so does a single row: nothing in it tells rows apart.
    """
    if not len(vectors):
        return np.zeros(vectors.shape, dtype=np.float32)
    return unit_rows(vectors - vectors.mean(axis=0, dtype=np.float64).astype(vectors.dtype))


def _tfidf(texts: list[str]) -> sparse.csr_matrix:
    """Weights of shape (n, words), at least one column."""
    rarest = 2 if len(texts) >= _RARE_WORDS_COUNT_BELOW else 1
    vectorizer = TfidfVectorizer(analyzer=stems, sublinear_tf=True, min_df=rarest)
    try:
        return sparse.csr_matrix(vectorizer.fit_transform(texts))
    except ValueError:  # scikit-learn's way to say that no word is left
        return sparse.csr_matrix((len(texts), 1))
