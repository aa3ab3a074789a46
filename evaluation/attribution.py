"""Which instruction an answered example speaks of, by likeness. Pure: no Django, no database.

An instruction is known by witnesses: the inputs of traces it rests on, and its own words. An example belongs to the
instruction whose nearest witness is nearest, among those of a fitting label:

- answered rightly: those of that label;
- answered wrongly: those of the label the student gave ("wide": it may say too much) and those of the gold label
  ("missed": it may say too little), the farther of the two only if it is at least half as near.

Where nothing is near enough no instruction speaks to the example. Likeness is no proof of cause: whoever shows a group
shows score and witness with each example. Where it was measured which instruction decided an answer, that counts
instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.neighbours import BLOCK, Floats, tfidf

# Below this cosine two texts of TF-IDF share little but common words.
NEAR_ENOUGH = 0.12
BOTH_FROM = 0.5

type Role = Literal["wide", "missed", "right", "uncovered"]


@dataclass(frozen=True, slots=True)
class Witness:
    """A text that speaks for an instruction (`owner`, its place); `trace` None: the instruction's own words."""

    owner: int
    text: str
    trace: int | None


@dataclass(frozen=True, slots=True)
class Answered:
    """An example's text, its gold label and what the student said; `said` None: no usable answer."""

    text: str
    gold: str
    said: str | None


@dataclass(frozen=True, slots=True)
class Placed:
    """An example (by its place) at an instruction (None: none speaks to it), and by which witness, at which cosine.

    With an instruction and without a witness it was measured.
    """

    example: int
    owner: int | None
    role: Role
    score: float
    witness: int | None


def attribute(witnesses: Sequence[Witness], labels: Sequence[str], answered: Sequence[Answered]) -> list[Placed]:
    """Every failure once or twice, every success at most once, in the order of `answered`; `labels` by owner."""
    if not answered:
        return []
    if not witnesses:
        return [_uncovered(place) for place, one in enumerate(answered) if one.said != one.gold]
    texts = [one.text for one in answered]
    # Fitted on inputs alone: what is said in every instruction ("if", "then label") is no word of theirs. Nothing is
    # learned from the labels.
    inputs, known = tfidf(texts + [one.text for one in witnesses if one.trace], [one.text for one in witnesses])
    asked = inputs[: len(texts)]
    columns = {
        label: np.array([place for place, one in enumerate(witnesses) if labels[one.owner] == label], dtype=np.int64)
        for label in set(labels)
    }
    found: list[Placed] = []
    for start in range(0, len(answered), BLOCK):
        cosines = np.asarray((asked[start : start + BLOCK] @ known.T).todense())
        for row, one in enumerate(answered[start : start + BLOCK]):
            found += _placed(start + row, one, cosines[row], columns, witnesses)
    return found


def _placed(
    place: int, one: Answered, cosines: Floats, columns: dict[str, "np.ndarray"], witnesses: Sequence[Witness]
) -> Iterator[Placed]:
    if one.said == one.gold:
        right = _nearest(place, "right", cosines, columns.get(one.gold), witnesses)
        if right is not None:
            yield right
        return
    both = (
        _nearest(place, "wide", cosines, columns.get(one.said or ""), witnesses),
        _nearest(place, "missed", cosines, columns.get(one.gold), witnesses),
    )
    near = sorted((one for one in both if one is not None), key=lambda one: -one.score)
    if not near:
        yield _uncovered(place)
    for other in near:
        if other.score >= BOTH_FROM * near[0].score:
            yield other


def _nearest(
    place: int, role: Role, cosines: Floats, columns: "np.ndarray | None", witnesses: Sequence[Witness]
) -> Placed | None:
    if columns is None:
        return None
    # Rounded: two ways to sum the same products must not decide which witness is nearer.
    best = int(columns[np.argmax(np.round(cosines[columns], 9))])
    score = min(1.0, float(cosines[best]))
    return Placed(place, witnesses[best].owner, role, score, best) if score >= NEAR_ENOUGH else None


def measured_first(
    placed: Sequence[Placed], answered: Sequence[Answered], flips: Mapping[int, Sequence[int]]
) -> list[Placed]:
    """Put what was measured in the place of likeness; `flips`: owners whose instruction decided an answer, by example.

    The instruction that should have spoken and did not ("missed") is still found by likeness alone.
    """
    kept = [one for one in placed if one.example not in flips or one.role == "missed"]
    for place, owners in flips.items():
        role: Role = "right" if answered[place].said == answered[place].gold else "wide"
        kept += [Placed(place, owner, role, 1.0, None) for owner in owners]
    return sorted(kept, key=lambda one: one.example)


def _uncovered(place: int) -> Placed:
    return Placed(place, None, "uncovered", 0.0, None)
