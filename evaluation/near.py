"""Texts that are nearly the same. Pure: no Django, no database."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

BLOCK = 200


@dataclass(frozen=True, slots=True)
class Near:
    """Two texts of different sets, by their ids; `similarity` is from 0 to 1."""

    one: str
    other: str
    similarity: float


def near_pairs(one: Mapping[str, str], other: Mapping[str, str], *, least: float) -> Iterator[Near]:
    """For each text of `one` the closest text of `other`, where it is at least `least` similar.

    Similarity is the cosine of TF-IDF vectors over groups of four characters within words, so that a changed digit or
    ending counts for little. Compared block by block.
    """
    if not one or not other:
        return
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4), dtype=np.float32)
    known = vectoriser.fit_transform(other.values()).T.tocsr()
    rows = vectoriser.transform(one.values())
    names, others = list(one), list(other)
    for start in range(0, rows.shape[0], BLOCK):
        product = (rows[start : start + BLOCK] @ known).tocsr()
        best = np.asarray(product.argmax(axis=1)).ravel()
        for offset, column in enumerate(best):
            similarity = float(product[offset, column])
            if similarity >= least:
                yield Near(names[start + offset], others[int(column)], min(similarity, 1.0))
