"""Which examples of a split a run asks about. Pure: the same rows, size and seed give the same examples anywhere."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pld_app.canonical import sha256_hex


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled example: trace key, gold label, and the hash of its content."""

    trace_id: int
    label: str
    content_hash: str


def stratified_sample(examples: Sequence[Example], size: int, seed: int) -> list[Example]:
    """At most `size` of the examples, each label in its share of the whole, in the order given.

    Every label is in the sample when `size` allows it. Within a label the lowest SHA-256 of seed and content are
    taken, so a sample does not depend on row keys, and a larger one of the same seed holds most of a smaller one.
    """
    by_label: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_label[example.label].append(example)
    places = _places({label: len(group) for label, group in by_label.items()}, size)
    chosen: set[int] = set()
    for label, group in by_label.items():
        ranked = sorted(group, key=lambda one: (sha256_hex(f"{seed}:{one.content_hash}"), one.content_hash))
        chosen.update(one.trace_id for one in ranked[: places[label]])
    return [example for example in examples if example.trace_id in chosen]


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


def examples_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over content hashes and gold labels in order: equal for runs over the same examples."""
    return sha256_hex("\n".join(f"{one.content_hash} {one.label}" for one in examples))
