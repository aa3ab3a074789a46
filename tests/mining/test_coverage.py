"""No condition of a cluster is left out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rules.mining.coverage import left_out_drafts, left_out_rows
from rules.mining.vectors import centre, embed_tfidf

GROUPS = ("archive tapes outlive documents", "a solicitor holds sealed originals", "backup media rotate quarterly")
TEXTS = [f"If {group} in case {n}, then label Yes." for group in GROUPS for n in range(3)]
VECTORS = centre(embed_tfidf(TEXTS, labels=["Yes"]))


def test_what_one_cited_rule_leaves_out_gets_drafts_that_cover_it_all() -> None:
    drafts = left_out_drafts(TEXTS, VECTORS, [0], labels=["Yes"])
    covered = [row for one in drafts for row in one.covered]
    assert sorted(covered) == list(range(3, 9))
    assert all(set(one.cited) <= set(one.covered) for one in drafts)
    words = " ".join(one.text for one in drafts)
    assert GROUPS[1] in words
    assert GROUPS[2] in words


def test_a_rule_near_each_group_leaves_nothing_out() -> None:
    assert left_out_drafts(TEXTS, VECTORS, [0, 3, 6], labels=["Yes"]) == []
    assert left_out_rows(VECTORS, [0, 3, 6]) == []


def test_nothing_cited_leaves_everything_out() -> None:
    assert left_out_rows(VECTORS, []) == list(range(9))


def test_the_same_words_as_a_cited_rule_are_covered_even_without_a_vector() -> None:
    nothing = np.zeros((3, 4), dtype=np.float32)
    assert left_out_drafts(["Rule A.", "rule a", "Rule B."], nothing, [0])[0].covered == [2]


@given(st.lists(st.integers(0, 8), min_size=0, max_size=4, unique=True), st.integers(0, 3))
def test_every_row_is_near_a_cited_one_or_covered_by_one_draft(cited: list[int], max_conditions: int) -> None:
    drafts = left_out_drafts(TEXTS, VECTORS, cited, labels=["Yes"], max_conditions=max_conditions)
    covered = [row for one in drafts for row in one.covered]
    assert len(covered) == len(set(covered))
    assert set(covered) == set(left_out_rows(VECTORS, cited))
