"""The examples of a run: stratified, seeded, the same again."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.sampling import Labelled, examples_hash, stratified_sample
from pld_app.canonical import sha256_hex


def examples(counts: dict[str, int], *, first_id: int = 1) -> list[Labelled]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [Labelled(first_id + n, label, sha256_hex(f"{label} {n}")) for n, label in enumerate(labels)]


def test_each_label_keeps_its_share() -> None:
    sample = stratified_sample(examples({"A": 700, "B": 200, "C": 100}), 100, seed=1)
    assert Counter(one.label for one in sample) == {"A": 70, "B": 20, "C": 10}


def test_a_rare_label_is_in_the_sample_when_there_is_room() -> None:
    sample = stratified_sample(examples({"A": 997, "B": 2, "C": 1}), 5, seed=1)
    assert set(Counter(one.label for one in sample)) == {"A", "B", "C"}


def test_the_seed_chooses_and_row_keys_do_not() -> None:
    counts = {"A": 50, "B": 50}
    first = [one.input_sha256 for one in stratified_sample(examples(counts), 20, seed=1)]
    assert first == [one.input_sha256 for one in stratified_sample(examples(counts, first_id=900), 20, seed=1)]
    assert first != [one.input_sha256 for one in stratified_sample(examples(counts), 20, seed=2)]


def test_the_order_is_that_of_the_split() -> None:
    sample = stratified_sample(examples({"A": 30, "B": 30}), 20, seed=3)
    assert [one.example_id for one in sample] == sorted(one.example_id for one in sample)


@given(st.dictionaries(st.sampled_from("ABCDE"), st.integers(1, 30), min_size=1), st.integers(1, 200))
def test_the_size_is_what_was_asked_or_all_there_is(counts: dict[str, int], size: int) -> None:
    everything = examples(counts)
    sample = stratified_sample(everything, size, seed=0)
    assert len(sample) == min(size, len(everything))
    assert len(set(sample)) == len(sample)
    if size >= len(counts):
        assert {one.label for one in sample} == set(counts)


@pytest.mark.parametrize("change", ["label", "order", "content"])
def test_the_hash_tells_sets_of_examples_apart(change: str) -> None:
    before = examples({"A": 2, "B": 2})
    after = list(before)
    if change == "label":
        after[0] = Labelled(before[0].example_id, "B", before[0].input_sha256)
    elif change == "order":
        after.reverse()
    else:
        after[0] = Labelled(before[0].example_id, "A", sha256_hex("other"))
    assert examples_hash(before) != examples_hash(after)
