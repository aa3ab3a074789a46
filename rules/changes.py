"""What a ruleset changes against another: added, removed, reworded and moved instructions. Pure."""

import difflib
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

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
class Relabelled:
    old: ManifestInstruction
    new: ManifestInstruction


@dataclass(frozen=True)
class Changes:
    added: tuple[ManifestInstruction, ...]
    removed: tuple[ManifestInstruction, ...]
    reworded: tuple[Reworded, ...]
    moved: tuple[Moved, ...]
    relabelled: tuple[Relabelled, ...]
    kept: int

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.reworded or self.moved or self.relabelled)


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
        relabelled=tuple(
            Relabelled(before[one.number], one)
            for one in new
            if one.number in before and before[one.number].label != one.label
        ),
        kept=len(before.keys() & after.keys()) - len(reworded),
    )


def _in_order(old: Sequence[ManifestInstruction], new: Sequence[ManifestInstruction]) -> set[int]:
    """Numbers of a largest set of instructions that both have in the same order: these stay, the others moved."""
    old_place = {one.number: place for place, one in enumerate(old, start=1)}
    both = {old_place[one.number]: one.number for one in new if one.number in old_place}
    return {both[place] for place in _longest_rising(list(both))}


def _moved(old: Sequence[ManifestInstruction], new: Sequence[ManifestInstruction]) -> tuple[Moved, ...]:
    old_place = {one.number: place for place, one in enumerate(old, start=1)}
    stayed = _in_order(old, new)
    return tuple(
        Moved(one, old_place[one.number], place)
        for place, one in enumerate(new, start=1)
        if one.number in old_place and one.number not in stayed
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


class RowKind(StrEnum):
    KEPT = "kept"
    REWORDED = "reworded"
    ADDED = "added"
    REMOVED = "removed"
    MOVED_AWAY = "moved_away"
    """On the old side, where it was."""
    MOVED_HERE = "moved_here"
    """On the new side, where it is now."""


@dataclass(frozen=True)
class SideRow:
    """One line of two lists beside each other. A place is None on the side that does not have it there."""

    kind: RowKind
    old: ManifestInstruction | None
    new: ManifestInstruction | None
    old_place: int | None
    new_place: int | None
    words: tuple[Word, ...]


def side_by_side(old: Sequence[ManifestInstruction], new: Sequence[ManifestInstruction]) -> list[SideRow]:
    """Both lists in one order of reading: what stayed stands opposite, what moved stands once on either side."""
    before = {one.number: (place, one) for place, one in enumerate(old, start=1)}
    after = {one.number: (place, one) for place, one in enumerate(new, start=1)}
    stayed = _in_order(old, new)
    rows: list[SideRow] = []
    left = iter(old)
    for one in new:
        if one.number in stayed:
            for gone in left:
                if gone.number == one.number:
                    break
                rows.append(_left_row(gone, before, after))
        rows.append(_right_row(one, before, after, is_opposite=one.number in stayed))
    rows.extend(_left_row(gone, before, after) for gone in left)
    return rows


type _Places = Mapping[int, tuple[int, ManifestInstruction]]


def _left_row(gone: ManifestInstruction, before: _Places, after: _Places) -> SideRow:
    kind = RowKind.MOVED_AWAY if gone.number in after else RowKind.REMOVED
    return SideRow(kind, gone, None, before[gone.number][0], after.get(gone.number, (None, None))[0], ())


def _right_row(one: ManifestInstruction, before: _Places, after: _Places, *, is_opposite: bool) -> SideRow:
    new_place = after[one.number][0]
    if one.number not in before:
        return SideRow(RowKind.ADDED, None, one, None, new_place, ())
    old_place, old = before[one.number]
    words = word_changes(old.text, one.text) if old.text != one.text else ()
    if not is_opposite:
        return SideRow(RowKind.MOVED_HERE, None, one, old_place, new_place, words)
    return SideRow(RowKind.REWORDED if words else RowKind.KEPT, old, one, old_place, new_place, words)


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
