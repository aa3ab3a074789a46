"""Which examples of a split a run asks about. Pure: the same rows, size and seed give the same examples anywhere."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from pld_app.canonical import canonical_json, sha256_hex


@dataclass(frozen=True, slots=True)
class Labelled:
    """An example without its text: its key, gold label, and the hash of its input."""

    example_id: int
    label: str
    input_sha256: str


def input_hash(values: Mapping[str, str]) -> str:
    """SHA-256 over the canonical JSON of an example's input fields: equal inputs have an equal one."""
    return sha256_hex(canonical_json(dict(values)))


def stratified_sample(examples: Sequence[Labelled], size: int, seed: int) -> list[Labelled]:
    """At most `size` of the examples, each label in its share of the whole, in the order given.

    Every label is in the sample when `size` allows it. Within a label the lowest SHA-256 of seed and input are
    taken, so a sample does not depend on row keys, and a larger one of the same seed holds most of a smaller one.
    """
    by_label = _by_label(examples)
    places = _places({label: len(group) for label, group in by_label.items()}, size)
    chosen: set[int] = set()
    for label, group in by_label.items():
        chosen.update(one.example_id for one in _ranked(group, seed)[: places[label]])
    return [example for example in examples if example.example_id in chosen]


def balanced_shots(examples: Sequence[Labelled], labels: Sequence[str], k: int, seed: int) -> list[Labelled]:
    """`k` examples to show, each label as often as any other as far as there are examples, in turn by label.

    Deterministic: the same examples, k and seed give the same ones in the same order, and a larger k begins with those
    of a smaller one.
    """
    ranked = {label: _ranked(group, seed) for label, group in _by_label(examples).items()}
    rounds = zip_longest(*(ranked.get(label, []) for label in labels))
    return [one for turn in rounds for one in turn if one is not None][:k]


def _by_label(examples: Sequence[Labelled]) -> dict[str, list[Labelled]]:
    by_label: dict[str, list[Labelled]] = defaultdict(list)
    for example in examples:
        by_label[example.label].append(example)
    return by_label


def _ranked(group: Sequence[Labelled], seed: int) -> list[Labelled]:
    """In the order of the SHA-256 of seed and input."""
    return sorted(group, key=lambda one: (sha256_hex(f"{seed}:{one.input_sha256}"), one.input_sha256))


def _places(counts: dict[str, int], size: int) -> dict[str, int]:
    """Share out `size` places by Webster's method (highest averages with odd divisors), one for each label first."""
    first = 1 if size >= len(counts) else 0
    places = dict.fromkeys(counts, first)
    for _ in range(min(size, sum(counts.values())) - sum(places.values())):
        open_labels = [label for label in counts if places[label] < counts[label]]
        # Ties go to the label that sorts first, so that the order of the rows does not matter.
        label = min(open_labels, key=lambda one: (-counts[one] / (2 * places[one] + 1), one))
        places[label] += 1
    return places


def examples_hash(examples: Sequence[Labelled]) -> str:
    """SHA-256 over input hashes and gold labels in order: equal for runs over the same examples."""
    return sha256_hex("\n".join(f"{one.input_sha256} {one.label}" for one in examples))


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One example of a dataset as its hash sees it."""

    external_id: str
    split: str
    label: str
    input_sha256: str


def dataset_hash(rows: Iterable[DatasetRow]) -> str:
    """SHA-256 over one line an example, in the order of the dataset: "split id input label", all but the split as
    SHA-256 in hex. The database computes the same when a dataset is frozen (`pld_dataset_sha256`)."""
    digest = hashlib.sha256()
    for row in rows:
        line = f"{row.split} {sha256_hex(row.external_id)} {row.input_sha256} {sha256_hex(row.label)}\n"
        digest.update(line.encode())
    return digest.hexdigest()
