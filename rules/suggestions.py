"""What could make a prompt shorter: texts of one label that say nearly the same. Suggestions for a person, never acts.

Pure, and without scikit-learn, so that the web processes stay quick to start.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log
from typing import Literal

_WORD = re.compile(r"[^\W\d_]{2,}")
# Shares of the words' weight. Of the candidates of the 17 Contract-NLI questions no two reach either.
_MERGE = 0.5
_CONTAINED = 0.7
_LOW_SUPPORT = 0.5
# Every text is compared with every other one each time the page is shown: half a second for 200 of one label.
_MOST = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction of a ruleset, in prompt order."""

    number: int
    label: str
    text: str
    support: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """`number` could be dropped for, or merged with, `other`; `overlap` is the share of words in common, 0 to 1."""

    kind: Literal["merge", "drop"]
    number: int
    other: int
    overlap: float
    support: int
    other_support: int

    @property
    def percent(self) -> int:
        return round(100 * self.overlap)


def suggestions_of(lines: Sequence[Line]) -> list[Suggestion]:
    """Pairs of one label among the first 200 lines worth a look, the greatest overlap first; each pair at most once.

    Drop: 70% of a text's words, weighted by rarity, stand in one with at least twice its support; or the texts are the
    same. Merge: two texts share half of all their words. Weights are inverse document frequencies within the ruleset,
    so that what all texts say ("if", "label") weighs nothing.
    """
    lines = lines[:_MOST]
    words = [frozenset(_WORD.findall(line.text.lower())) for line in lines]
    seen = Counter(word for own in words for word in own)
    weight = {word: log(len(lines) / count) for word, count in seen.items()}
    total = [sum(map(weight.__getitem__, own)) for own in words]
    found = []
    for (a, one), (b, other) in combinations(enumerate(lines), 2):
        if one.label != other.label:
            continue
        shared = sum(map(weight.__getitem__, words[a] & words[b]))
        first_is_small = (one.support, -one.number) <= (other.support, -other.number)
        small, big, own = (one, other, total[a]) if first_is_small else (other, one, total[b])
        suggestion = _suggestion(small, big, shared / own if own else 0.0, _share(shared, total[a] + total[b] - shared))
        if suggestion:
            found.append(suggestion)
    return sorted(found, key=lambda row: (-row.overlap, row.number, row.other))


def _share(shared: float, every: float) -> float:
    return shared / every if every else 0.0


def _suggestion(small: Line, big: Line, contained: float, common: float) -> Suggestion | None:
    """`contained`: the share of the smaller one's words in the bigger; `common`: the share of all words in both."""
    supports = small.support, big.support
    if small.text == big.text:
        return Suggestion("drop", small.number, big.number, 1.0, *supports)
    if contained >= _CONTAINED and small.support <= _LOW_SUPPORT * big.support:
        return Suggestion("drop", small.number, big.number, contained, *supports)
    if common >= _MERGE:
        return Suggestion("merge", small.number, big.number, common, *supports)
    return None
