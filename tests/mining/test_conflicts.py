"""Same condition under two labels, opposite conditions, and what is neither."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.mining.arrays import IntArray
from rules.mining.conflicts import Conditions, Overlap, find_overlaps
from rules.mining.polarity import polar_stems
from rules.mining.suspects import find_suspects
from rules.mining.vectors import centre, embed_tfidf

LABELS = ["Yes", "No"]
# Rules of another topic: with nothing else in the set, everything would be alike.
FILLER = [f"If invoices numbered {n} fall due within thirty days of delivery, then label Yes." for n in range(6)]


def overlaps_of(texts: list[str], labels: list[str], topics: IntArray | None = None) -> list[Overlap]:
    """Each label of `texts` is one group; the filler belongs to none."""
    every = texts + FILLER
    vectors = centre(embed_tfidf(every, labels=LABELS))
    groups = np.array([LABELS.index(label) for label in labels] + [-1] * len(FILLER), dtype=np.int64)
    where = np.zeros(len(every), dtype=np.int64) if topics is None else topics
    conditions = Conditions(every, vectors, LABELS)
    return find_overlaps(conditions, groups, where, labels + ["Yes"] * len(FILLER))


def rules(condition: str, label: str, count: int = 4) -> list[str]:
    return [f"If {condition} in case {n}, then label {label}." for n in range(count)]


def test_one_condition_under_two_labels_is_a_conflict() -> None:
    same = "the recipient may keep one archival copy of the documents"
    (found,) = overlaps_of(rules(same, "Yes") + rules(same, "No"), ["Yes"] * 4 + ["No"] * 4)
    assert (found.kind, found.first, found.second) == ("conflict", 0, 1)
    assert (found.same, found.opposed) == (16, 0)
    assert len(found.pairs) == 3
    assert len({pair.first for pair in found.pairs}) == len({pair.second for pair in found.pairs}) == 3
    assert 0.5 < found.strength <= 1


@pytest.mark.parametrize(
    ("said", "denied"),
    [
        ("the agreement has an archive clause for copies", "the agreement has no archive clause for copies"),
        ("the recipient may keep archival copies", "the recipient may never keep archival copies"),
        ("copying of the documents is allowed", "it is not said that copying of the documents is allowed"),
        ("return is due without any written request", "return is due upon any written request"),
    ],
)
def test_the_opposite_condition_under_another_label_is_a_boundary(said: str, denied: str) -> None:
    found = overlaps_of(rules(said, "Yes") + rules(denied, "No"), ["Yes"] * 4 + ["No"] * 4)
    assert [one.kind for one in found] == ["boundary"]
    assert found[0].same == 0


def test_two_topics_of_different_labels_do_not_overlap() -> None:
    texts = rules("the recipient may keep one archival copy", "Yes") + rules("staff must not be solicited", "No")
    assert overlaps_of(texts, ["Yes"] * 4 + ["No"] * 4) == []


def test_a_conflict_across_topics_counts_for_less() -> None:
    same = "the recipient may keep one archival copy of the documents"
    texts, labels = rules(same, "Yes") + rules(same, "No"), ["Yes"] * 4 + ["No"] * 4
    apart = np.array([0] * 4 + [1] * 4 + [2] * len(FILLER), dtype=np.int64)
    (inside,), (across,) = overlaps_of(texts, labels), overlaps_of(texts, labels, apart)
    assert across.strength == pytest.approx(0.7 * inside.strength, abs=0.01)


def test_one_label_alone_and_no_rules_at_all_give_nothing() -> None:
    assert overlaps_of(rules("copies are kept", "Yes"), ["Yes"] * 4) == []
    nothing = np.zeros(0, dtype=np.int64)
    assert find_overlaps(Conditions([], np.zeros((0, 1), dtype=np.float32)), nothing, nothing, []) == []


def test_words_without_letters_are_no_error() -> None:
    assert overlaps_of(["123", "456", "...", "!"], ["Yes", "Yes", "No", "No"]) == []


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("no licence is granted", {"licenc", "grant"}),
        ("a licence is granted", set()),
        ("copying is barred", {"copy"}),
        ("copying is barred, save for the archive", {"copy"}),
        ("the text never says that no licence passes", {"says"}),
        ("the recipient doesn't retain copies", {"retain", "copi"}),
        ("copies may not be kept except for the archive", {"kept"}),
    ],
)
def test_what_is_denied(text: str, denied: set[str]) -> None:
    assert {word for word, is_denied in polar_stems(text) if is_denied} == denied


@given(st.text(max_size=200))
def test_any_text_has_a_sense(text: str) -> None:
    assert all(word and len(word) <= 6 for word, _denied in polar_stems(text))


def test_a_label_among_neighbours_of_another_one_is_suspect_and_a_small_topic_is_left_alone() -> None:
    texts = [*rules("the recipient may keep one archival copy", "Yes", 12), *rules("staff is solicited", "Yes", 5)]
    texts[3] = texts[3].replace("label Yes", "label No")
    texts[13] = texts[13].replace("label Yes", "label No")
    labels = ["No" if "label No" in text else "Yes" for text in texts]
    topics = np.array([0] * 12 + [1] * 5, dtype=np.int64)
    conditions = Conditions(texts, centre(embed_tfidf(texts, labels=LABELS)), LABELS)
    (found,) = find_suspects(conditions, topics, labels)
    assert (found.row, found.others, found.looked_at) == (3, 10, 10)
    assert labels[found.neighbour] == "Yes"
    assert find_suspects(conditions, topics, labels, most=0) == []


def test_a_suspect_must_say_the_same_not_the_opposite() -> None:
    texts = rules("the agreement has an archive clause", "Yes", 12)
    texts.append("If the agreement has no archive clause in case 5, then label No.")
    labels = ["Yes"] * 12 + ["No"]
    conditions = Conditions(texts, centre(embed_tfidf(texts, labels=LABELS)), LABELS)
    assert find_suspects(conditions, np.zeros(13, dtype=np.int64), labels) == []
