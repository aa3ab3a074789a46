from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rules.mining.arrays import FloatArray
from rules.mining.vectors import centre, embed_tfidf
from rules.mining.wording import condition, label_phrase, stem, without_label_phrase
from tests.mining.generated import generated_texts

LABELS = ["Entailment", "Not Mentioned"]


def lengths(vectors: FloatArray) -> NDArray[np.floating]:
    return np.asarray(np.linalg.norm(vectors, axis=1))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=130))
def test_any_texts_give_one_unit_or_zero_row_each(texts: list[str]) -> None:
    for vectors in (embed_tfidf(texts), centre(embed_tfidf(texts))):
        assert vectors.dtype == np.float32
        assert len(vectors) == len(texts)
        assert vectors.shape[1] <= 64
        assert all(np.isclose(length, 1, atol=1e-4) or length == 0 for length in lengths(vectors))


def test_texts_without_content_words_are_zero_rows() -> None:
    assert lengths(embed_tfidf(["the of and", "", "12 34"])).tolist() == [0, 0, 0]
    assert lengths(embed_tfidf(["the of and", "return copies"])).tolist() == pytest.approx([0, 1])


def test_one_text_and_identical_texts_are_embedded() -> None:
    assert lengths(embed_tfidf(["return all copies"])).tolist() == pytest.approx([1])
    alike = embed_tfidf(["return all copies"] * 150)
    assert np.allclose(alike @ alike.T, 1, atol=1e-4)
    assert not centre(alike).any()


def test_embedding_is_deterministic_and_ignores_the_label() -> None:
    texts, _ = generated_texts([60, 60, 60])
    assert np.array_equal(embed_tfidf(texts, seed=3), embed_tfidf(texts, seed=3))
    assert embed_tfidf(texts, dimensions=10).shape == (180, 10)
    one, other = embed_tfidf(
        ["If copies return, then label Entailment.", "If copies return, label it as 'Not Mentioned'."], labels=LABELS
    )
    assert one @ other == pytest.approx(1)


def test_centring_removes_the_shared_direction() -> None:
    generator = np.random.default_rng(0)
    shared = np.append(10.0, np.zeros(19))
    centred = centre(generator.standard_normal((200, 20)) + shared)
    assert abs(float(centred.mean(axis=0) @ shared)) < 0.5
    assert np.allclose(lengths(centred), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("If copies stay, then label Not Mentioned for retention.", "If copies stay, for retention."),
        ("If copies stay, label 'Entailment'; notes count.", "If copies stay, ; notes count."),
        ("A label on the box stays.", "A label on the box stays."),
    ],
)
def test_label_phrases_are_taken_out(text: str, left: str) -> None:
    assert " ".join(without_label_phrase(text, label_phrase(LABELS)).split()) == left


def test_label_phrases_are_found_without_label_names() -> None:
    assert without_label_phrase("if x, then label Contradiction", label_phrase([])).strip() == "if x,"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("If copies  must be\nreturned, then label Entailment for return.", "copies must be returned"),
        ("Where notes stay: classify as Entailment.", "notes stay"),
        ("Copies stay. Nothing else counts.", "Copies stay"),
        ("Label Entailment when copies stay. More.", "Label Entailment when copies stay"),
        ("", ""),
    ],
)
def test_condition_is_what_precedes_the_label(text: str, expected: str) -> None:
    assert condition(text, label_phrase(LABELS)) == expected


def test_long_condition_is_cut_at_a_word() -> None:
    cut = condition("If " + "word " * 200 + "then label Entailment", label_phrase(LABELS))
    assert len(cut) <= 301
    assert cut.endswith("word…")


def test_stem_joins_inflections_but_keeps_short_words() -> None:
    assert stem("soliciting") == stem("solicited") == stem("solicitation") == "solicit"
    assert stem("uses") == "uses"
