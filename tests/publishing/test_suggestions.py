"""What could make a prompt shorter is said, and never done."""

import random
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from pld_app.models import User
from rules.models import Instruction, Ruleset, Task
from rules.services import rulesets
from rules.suggestions import Line, _Texts, suggestions_of
from tests.factories import approve_directly, make_instruction

COPIES = "If the recipient keeps archival copies of returned documents, then label Yes"
STAFF = "If staff of the other party must not be hired or solicited, then label Yes"
TERM = "If secrecy outlasts the agreement by five years, then label Yes"


def lines(*said: tuple[str, str, int]) -> list[Line]:
    return [Line(number, label, text, support) for number, (label, text, support) in enumerate(said, 1)]


def test_two_wordings_of_one_rule_could_be_merged_and_unlike_ones_not() -> None:
    again = COPIES.replace("keeps", "retains")
    (found,) = suggestions_of(lines(("Yes", COPIES, 9), ("Yes", again, 8), ("Yes", STAFF, 7), ("Yes", TERM, 6))).found
    assert (found.kind, found.number, found.other) == ("merge", 2, 1)
    assert 0.5 <= found.overlap < 1


def test_a_little_supported_text_within_a_longer_one_could_be_dropped() -> None:
    longer = f"{COPIES}; also where backups rotate, tapes are sealed, or counsel holds one original for disputes."
    said = [("Yes", longer, 40), ("Yes", COPIES, 4), ("Yes", STAFF, 7), ("Yes", TERM, 6)]
    (found,) = suggestions_of(lines(*said)).found
    assert (found.kind, found.number, found.other, found.support, found.other_support) == ("drop", 2, 1, 4, 40)


def test_another_label_is_a_conflict_and_no_matter_of_length() -> None:
    assert suggestions_of(lines(("Yes", COPIES, 9), ("No", COPIES, 1), ("Yes", STAFF, 7))).found == []


def test_the_same_text_twice_could_be_dropped_even_when_it_is_all_there_is() -> None:
    (found,) = suggestions_of(lines(("Yes", COPIES, 3), ("Yes", COPIES, 3))).found
    assert (found.kind, found.overlap) == ("drop", 1.0)


def every_pair(said: Sequence[Line]) -> set[tuple[int, int]]:
    """What comparing each text with each other one finds, equal texts aside."""
    texts = _Texts(said)
    pairs = ((a, b) for a, b in combinations(range(len(said)), 2) if said[a].label == said[b].label)
    found = [texts.compare(a, b) for a, b in pairs if said[a].text != said[b].text]
    return {(one.number, one.other) for one in found if one is not None}


@given(
    st.lists(st.tuples(st.sampled_from(["Yes", "No"]), st.text("abc ", max_size=40), st.integers(0, 50)), max_size=8)
)
def test_leaving_out_what_shares_no_telling_word_loses_no_pair(said: list[tuple[str, str, int]]) -> None:
    told = lines(*said)
    text_of = {line.number: line.text for line in told}
    found = {(one.number, one.other) for one in suggestions_of(told).found if text_of[one.number] != text_of[one.other]}
    assert found == every_pair(told)


def test_a_draft_of_a_thousand_lines_is_looked_at_whole() -> None:
    words = [f"{a}{b}{c}" for a in "bcdfghjklm" for b in ("ato", "eri", "ilo", "ona", "usi") for c in "aeiouprstz"]
    chosen = random.Random(3)
    said = [("Yes", "If " + " ".join(chosen.sample(words, 12)), 5) for _ in range(998)]
    said += [("Yes", COPIES, 9), ("Yes", COPIES.replace("keeps", "retains"), 8)]
    looked = suggestions_of(lines(*said), most_compared=500_000)
    assert looked.lines == 1000
    assert (1000, 999) in {(one.number, one.other) for one in looked.found}


def test_when_time_is_up_it_says_how_far_it_got() -> None:
    said = [("Yes", f"If {word * 3} is met by {word * 4}", 3) for word in "abcdefghij" for _ in "12"]
    looked = suggestions_of(lines(*said), most_compared=5)
    assert looked.lines == 11
    assert len(looked.found) == 5


@given(st.lists(st.tuples(st.sampled_from(["Yes", "No"]), st.text(max_size=60), st.integers(0, 50)), max_size=8))
def test_any_texts_give_shares_and_each_pair_once(said: list[tuple[str, str, int]]) -> None:
    found = suggestions_of(lines(*said)).found
    pairs = [frozenset((one.number, one.other)) for one in found]
    assert len(pairs) == len(set(pairs))
    assert all(0 < one.overlap <= 1.000001 and one.support <= one.other_support for one in found)


def draft_of(task: Task, reviewer: User, *texts: str) -> Ruleset:
    for text in texts:
        approve_directly(make_instruction(task, text, support=5), reviewer)
    return rulesets.ruleset_create(task=task, composer=reviewer, name="First")


@pytest.mark.django_db
def test_the_draft_names_both_links_them_and_changes_nothing(
    task: Task, ana: User, client_of: Callable[[User], Client]
) -> None:
    draft = draft_of(task, ana, COPIES, COPIES.replace("keeps", "retains"), STAFF, TERM)
    before = list(Instruction.objects.values()), list(draft.items.values())
    answer: Any = client_of(ana).get(reverse("ruleset-detail", args=["nda", draft.number]))
    page = answer.content.decode()
    assert "could be merged" in page
    assert "characters over four" in page
    for number in (1, 2):
        assert f'href="{reverse("instruction-detail", args=["nda", number])}">#{number}</a>' in page
    assert (list(Instruction.objects.values()), list(draft.items.values())) == before


@pytest.mark.django_db
def test_a_draft_without_overlap_says_so_and_costs_no_query_more(
    task: Task, ana: User, client_of: Callable[[User], Client]
) -> None:
    draft = draft_of(task, ana, STAFF, TERM)
    client, url = client_of(ana), reverse("ruleset-detail", args=["nda", draft.number])
    answer: Any = client.get(url)
    assert "No two texts of one label" in answer.content.decode()
    with CaptureQueriesContext(connection) as few:
        client.get(url)
    many = draft_of(task, ana, *(f"{COPIES}, case {n}" for n in range(23)))
    with CaptureQueriesContext(connection) as more:
        client.get(reverse("ruleset-detail", args=["nda", many.number]))
    assert len(few) == len(more)
