"""What could make a prompt shorter: texts of one label that say nearly the same. Suggestions for a person, never acts.

Pure, and without scikit-learn, so that the web processes stay quick to start.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal

_WORD = re.compile(r"[^\W\d_]{2,}")
# Shares of the words' weight. Of the candidates of the 17 Contract-NLI questions no two reach either.
_MERGE = 0.5
_CONTAINED = 0.7
_LOW_SUPPORT = 0.5
# Comparing two texts takes two or three microseconds; the page compares no longer than about half a second.
MOST_COMPARED = 200_000


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction of a ruleset, in prompt order."""

    number: int
    label: str
    text: str
    support: int


@dataclass(frozen=True, slots=True)
class Measured:
    """How many of a student's `n` answers change when a line is left out; `stale` says in words what changed since."""

    flipped: int
    fixed: int
    broken: int
    n: int
    student: str
    split: str
    stale: str = ""

    @property
    def bound_percent(self) -> str:
        """The share of answers, in percent, that more than no change in `n` rules out at 95% (exact binomial bound)."""
        return f"{100 * no_flip_bound(self.n):.1f}"


def no_flip_bound(n: int) -> float:
    """The upper 95% bound of a share of which 0 in `n` were seen: 1 - 0.05^(1/n) (Clopper and Pearson, one-sided)."""
    return float(1 - 0.05 ** (1 / n))


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


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found among the first `lines` of a draft, which are all of them unless time was up."""

    found: list[Suggestion]
    lines: int


def suggestions_of(lines: Sequence[Line], *, most_compared: int = MOST_COMPARED) -> Looked:
    """Pairs of one label worth a look, the greatest overlap first; each pair at most once.

    Drop: 70% of a text's words, weighted by rarity, stand in one with at least twice its support; or the texts are the
    same. Merge: two texts share half of all their words. Weights are inverse document frequencies within the ruleset,
    so that what all texts say ("if", "label") weighs nothing. Only texts that share a telling word are compared, which
    loses no pair, and at most `most_compared` pairs.
    """
    texts = _Texts(lines)
    found: list[Suggestion] = []
    compared = 0
    for place in range(len(lines)):
        partners = texts.partners(place)
        if compared + len(partners) > most_compared:
            return Looked(_in_order(found), place)
        compared += len(partners)
        found += filter(None, (texts.compare(other, place) for other in sorted(partners)))
        texts.add(place)
    return Looked(_in_order(found), len(lines))


@dataclass(frozen=True, slots=True)
class Idle:
    """A line whose absence changed no answer. `twins` are lines of near the same words of which that holds as well.

    Of twins one may stand in for the other: what leaving out both would do was not measured.
    """

    number: int
    measured: Measured
    twins: tuple[int, ...]


def idle_lines(measured: Mapping[int, Measured], found: Iterable[Suggestion]) -> list[Idle]:
    """Lines that no answer depends on, by number; `found` says which are near the same."""
    idle = {number for number, one in measured.items() if not one.flipped}
    twins: defaultdict[int, set[int]] = defaultdict(set)
    for pair in found:
        if {pair.number, pair.other} <= idle:
            twins[pair.number].add(pair.other)
            twins[pair.other].add(pair.number)
    return [Idle(number, measured[number], tuple(sorted(twins[number]))) for number in sorted(idle)]


def _in_order(found: list[Suggestion]) -> list[Suggestion]:
    return sorted(found, key=lambda row: (-row.overlap, row.number, row.other))


class _Texts:
    """The lines as weighted words, with an index of those already added, so that few pairs are compared."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self.words = [frozenset(_WORD.findall(line.text.lower())) for line in lines]
        seen = Counter(word for own in self.words for word in own)
        self.weight = {word: log(len(lines) / count) for word, count in seen.items()}
        self.total = [sum(map(self.weight.__getitem__, own)) for own in self.words]
        self._by_word: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._by_telling_word: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._by_text: defaultdict[tuple[str, str], list[int]] = defaultdict(list)

    def _telling(self, place: int) -> list[str]:
        """The rarest words that together weigh more than half of the text: a pair worth a look shares one of them."""
        chosen, weighed = [], 0.0
        for word in sorted(self.words[place], key=lambda word: (-self.weight[word], word)):
            if weighed > self.total[place] / 2:
                break
            chosen.append(word)
            weighed += self.weight[word]
        return chosen

    def partners(self, place: int) -> set[int]:
        """Lines added before, of the same label, that may overlap enough with this one."""
        line = self.lines[place]
        # Equal texts may have no word of weight. The first of them stands for all.
        found = set(self._by_text[line.label, line.text][:1])
        if not self.total[place]:
            return found
        for word in self._telling(place):
            found.update(self._by_word[line.label, word])
        for word in self.words[place]:
            found.update(self._by_telling_word[line.label, word])
        return found

    def add(self, place: int) -> None:
        label = self.lines[place].label
        self._by_text[label, self.lines[place].text].append(place)
        for word in self.words[place]:
            self._by_word[label, word].append(place)
        for word in self._telling(place):
            self._by_telling_word[label, word].append(place)

    def compare(self, a: int, b: int) -> Suggestion | None:
        one, other = self.lines[a], self.lines[b]
        shared = sum(map(self.weight.__getitem__, self.words[a] & self.words[b]))
        first_is_small = (one.support, -one.number) <= (other.support, -other.number)
        small, big, own = (one, other, self.total[a]) if first_is_small else (other, one, self.total[b])
        every = self.total[a] + self.total[b] - shared
        return _suggestion(small, big, _share(shared, own), _share(shared, every))


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
