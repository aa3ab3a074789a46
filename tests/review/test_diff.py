"""The word diff gives both texts back, and dangerous changes are seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.diff import Pair, diff_summary, mark_shared, risky_changes, word_diff
from rules.hidden_text import Segment, hidden_in, readable, reveal, spelled, without_hidden

LABELS = ["Compliant", "Breach", "Unclear"]
WORDS = st.lists(st.sampled_from(["if", "not", "30", "days", ",", " ", "  ", "\n", "May", "é", "\u202e"])).map("".join)
TEXT = st.text(max_size=200) | WORDS


def side(pairs: list[Pair], op: str) -> str:
    return "".join(text for kind, text in pairs if kind in {"equal", op})


@given(TEXT, TEXT)
def test_either_text_comes_back_from_the_pairs(before: str, after: str) -> None:
    pairs = word_diff(before, after)
    assert side(pairs, "delete") == before
    assert side(pairs, "insert") == after
    assert all(text for _op, text in pairs)


@given(TEXT)
def test_the_same_text_has_no_change(text: str) -> None:
    assert word_diff(text, text) == ([("equal", text)] if text else [])


def test_a_changed_phrase_reads_as_one() -> None:
    pairs = word_diff("keep copies for thirty days only", "keep copies for sixty weeks only")
    assert pairs == [
        ("equal", "keep copies for "),
        ("delete", "thirty days"),
        ("insert", "sixty weeks"),
        ("equal", " only"),
    ]


def test_an_inserted_word_stands_alone() -> None:
    assert word_diff("may keep", "may not keep") == [("equal", "may "), ("insert", "not "), ("equal", "keep")]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("a b c", "a x c", "1 word added, 1 word removed"),
        ("a b", "a b c d", "2 words added"),
        ("a, b", "a b", "Only punctuation or spacing changed"),
        ("a", "a", "No change"),
    ],
)
def test_the_summary_counts_words(before: str, after: str, said: str) -> None:
    assert diff_summary(word_diff(before, after)) == said


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ("They may keep copies.", "They may not keep copies.", ["polarity"]),
        ("They must return it.", "They may return it.", ["polarity"]),
        ("It doesn't allow copies.", "It allows copies.", ["polarity"]),
        ("within 30 days", "within 60 days", ["number"]),
        ("within thirty days", "within sixty days", ["number"]),
        ("a fee of 1.5%", "a fee of 15%", ["number"]),
        ("before March 2024", "before April 2024", ["number"]),
        ("then label Breach", "then label Compliant", ["label"]),
        ("then label Breach", "then label breach", []),
        ("then label Breach", "then label Breaches", ["label"]),
        ("keep all copies", "keep every copy", ["polarity"]),
        ("may keep 2", "shall keep 3: Breach", ["polarity", "number", "label"]),
        ("the recipient keeps copies", "the receiver keeps copies", []),
    ],
)
def test_dangerous_changes_are_named(before: str, after: str, kinds: list[str]) -> None:
    assert [risk.kind for risk in risky_changes(before, after, LABELS)] == kinds


def test_a_warning_names_the_words() -> None:
    (risk,) = risky_changes("within 30 days", "within 60 days", LABELS)
    assert risk.message == "A number, date or period changed: removed “30”, added “60”."


@given(TEXT)
def test_revealing_loses_nothing_and_leaves_nothing_hidden(text: str) -> None:
    segments = reveal(text)
    assert "".join(segment.text for segment in segments if not segment.hidden) == without_hidden(text)
    assert list(dict.fromkeys(segment.text for segment in segments if segment.hidden)) == hidden_in(text)
    assert not hidden_in(without_hidden(text))
    assert not hidden_in(spelled(text))


@pytest.mark.parametrize("char", "\u202e\u200b\u2066\ufeff\u00ad\u2028\x07\ufe0f\u3164\U000e0020")
def test_invisible_characters_are_seen(char: str) -> None:
    assert hidden_in(f"a{char}b") == [f"U+{ord(char):04X}"]
    assert reveal(f"a{char}b")[1].hidden


def test_ordinary_text_hides_nothing() -> None:
    assert hidden_in("§ 3 “Ünïted” — 10 % 日本 café\n\tnext") == []


def test_a_shared_stretch_is_marked_and_a_short_one_is_not() -> None:
    rule = "If the recipient may retain one copy, then label Compliant."
    segments = mark_shared("The Recipient may retain one copy of it.", rule)
    assert Segment("The Recipient may retain one copy", shared=True) in segments
    assert "".join(segment.text for segment in segments) == "The Recipient may retain one copy of it."
    assert not any(segment.shared for segment in mark_shared("then label it", rule))


def test_a_long_text_is_cut_at_a_word() -> None:
    assert readable("one two three", 9) == "one two…"
    assert readable("one", 9) == "one"
    assert readable("x" * 20, 9) == "x" * 9 + "…"
