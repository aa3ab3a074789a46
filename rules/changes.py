"""What a ruleset changes against another: added, removed, reworded and moved instructions. Pure."""

import difflib
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from rules.manifest import ManifestInstruction

type Word = tuple[str, str]
"""(op, text): op is equal, insert or delete; the texts hold their own spaces."""


@dataclass(frozen=True)
class Reworded:
    old: ManifestInstruction
    new: ManifestInstruction
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Moved:
    """An instruction both hold, at another place among those both hold. Places count from 1 in the whole list."""

    instruction: ManifestInstruction
    old_place: int
    new_place: int


@dataclass(frozen=True)
class Changes:
    added: tuple[ManifestInstruction, ...]
    removed: tuple[ManifestInstruction, ...]
    reworded: tuple[Reworded, ...]
    moved: tuple[Moved, ...]
    kept: int

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.reworded or self.moved)


def changes_between(old: Sequence[ManifestInstruction], new: Sequence[ManifestInstruction]) -> Changes:
    """Compare by instruction number. `moved` is the smallest set whose move turns the old order into the new one."""
    before = {one.number: one for one in old}
    after = {one.number: one for one in new}
    reworded = tuple(
        Reworded(before[one.number], one, word_changes(before[one.number].text, one.text))
        for one in new
        if one.number in before and before[one.number].text != one.text
    )
    return Changes(
        added=tuple(one for one in new if one.number not in before),
        removed=tuple(one for one in old if one.number not in after),
        reworded=reworded,
        moved=_moved(old, new),
        kept=len(before.keys() & after.keys()) - len(reworded),
    )


def _moved(old: Sequence[ManifestInstruction], new: Sequence[ManifestInstruction]) -> tuple[Moved, ...]:
    old_place = {one.number: place for place, one in enumerate(old, start=1)}
    both = [(place, one) for place, one in enumerate(new, start=1) if one.number in old_place]
    in_order = _longest_rising([old_place[one.number] for _, one in both])
    return tuple(
        Moved(one, old_place[one.number], place) for place, one in both if old_place[one.number] not in in_order
    )


def _longest_rising(values: Sequence[int]) -> set[int]:
    """A longest increasing subsequence of distinct values (patience sorting, Fredman 1975)."""
    tails: list[int] = []
    before: dict[int, int | None] = {}
    for value in values:
        at = bisect_left(tails, value)
        before[value] = tails[at - 1] if at else None
        tails[at : at + 1] = [value]
    found: set[int] = set()
    last = tails[-1] if tails else None
    while last is not None:
        found.add(last)
        last = before[last]
    return found


def word_changes(old: str, new: str) -> tuple[Word, ...]:
    """Words kept, taken away and put in, in reading order; together the kept and new ones are the new text."""
    a, b = re.findall(r"\s+|\S+", old), re.findall(r"\s+|\S+", new)
    words: list[Word] = []
    for op, a1, a2, b1, b2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if op == "equal":
            words.append(("equal", "".join(a[a1:a2])))
        if op in {"delete", "replace"}:
            words.append(("delete", "".join(a[a1:a2])))
        if op in {"insert", "replace"}:
            words.append(("insert", "".join(b[b1:b2])))
    return tuple(words)
