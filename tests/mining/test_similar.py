"""Nearest texts against a plain double loop, and what the one is to the other."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from rules.mining.similar import LEAST, NEAREST, families, nearest_texts
from rules.mining.wording import stems

WORDS = ["backup", "copies", "archive", "notice", "counsel", "erasure", "termination", "thirty"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=2, max_size=9)


@given(TEXTS)
def test_they_are_the_nearest_by_cosine(texts: list[str]) -> None:
    found = nearest_texts(texts, ["A"] * len(texts))
    cosines = cosine_similarity(TfidfVectorizer(analyzer=stems, sublinear_tf=True).fit_transform(texts))
    np.fill_diagonal(cosines, -1)
    for row, near in enumerate(found):
        best = sorted((float(one) for one in cosines[row] if one >= LEAST - 1e-6), reverse=True)[:NEAREST]
        assert np.allclose([one.similarity for one in near], best, atol=1e-5)
        assert row not in [one.row for one in near]
        assert all(abs(float(cosines[row][one.row]) - one.similarity) < 1e-5 for one in near)


def test_what_one_rule_is_to_another() -> None:
    texts = [
        "If backup copies may be kept after termination, then label Breach.",
        "If backup copies may be kept after termination, then label Compliant.",
        "If backup copies are kept after termination, then label Breach.",
        "If backup copies may be kept after termination in an encrypted archive, then label Breach.",
        "When payment is late, label Compliant.",
    ]
    labels = ["Breach", "Compliant", "Breach", "Breach", "Compliant"]
    found = nearest_texts(texts, labels, names=["Breach", "Compliant"])
    kinds = [{one.row: one.kind for one in near} for near in found]
    assert kinds[0] == {1: "contradicts", 2: "duplicate", 3: "narrower"}
    assert kinds[3][0] == "wider"
    assert found[4] == []
    assert families(found) == [0, 1, 0, 3, 4]


def test_texts_without_words_have_no_neighbours() -> None:
    assert nearest_texts([], []) == []
    assert nearest_texts(["..."], ["A"]) == [[]]
    assert nearest_texts(["...", "!"], ["A", "A"]) == [[], []]
