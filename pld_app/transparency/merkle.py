"""The Merkle tree of RFC 6962, section 2.1, over SHA-256: roots, inclusion and consistency proofs, and their checks.

Plain Python, no Django. Hashes are 32 raw bytes. A leaf's hash is SHA-256(0x00 || leaf), an inner node's
SHA-256(0x01 || left || right). Indices count from 0; a proof runs from the leaf upwards.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# (level, index) -> the root of the full subtree over the leaves [index << level, (index + 1) << level).
type Subtree = Callable[[int, int], bytes]


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass
class Frontier:
    """What must be remembered of a tree to make it longer: its full subtrees from left to right, largest first.

    Their sizes are the bits of `size`, so a tree of a million leaves is at most 20 hashes.
    """

    size: int = 0
    hashes: list[bytes] = field(default_factory=list)

    def append(self, hashed_leaf: bytes, made: Callable[[int, int, bytes], None] | None = None) -> None:
        """Add one leaf; `made(level, index, hash)` is told of each full subtree above the leaf that this completes."""
        hashes, rest, level = self.hashes, self.size, 0
        while rest & 1:
            hashed_leaf = node_hash(hashes.pop(), hashed_leaf)
            rest >>= 1
            level += 1
            if made is not None:
                made(level, rest, hashed_leaf)
        hashes.append(hashed_leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self.hashes:
            return EMPTY_ROOT
        *others, root = self.hashes
        for left in reversed(others):
            root = node_hash(left, root)
        return root

    def copy(self) -> "Frontier":
        return Frontier(self.size, [*self.hashes])

    def to_bytes(self) -> bytes:
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, stored: bytes) -> "Frontier":
        """The inverse of `to_bytes`. Raises ValueError when the number of hashes does not belong to this size."""
        if len(stored) != HASH_BYTES * size.bit_count():
            raise ValueError("this is no frontier of a tree of that size")
        return cls(size, [stored[at : at + HASH_BYTES] for at in range(0, len(stored), HASH_BYTES)])


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    frontier = Frontier()
    for one in leaf_hashes:
        frontier.append(one)
    return frontier.root()


def subtrees_of(leaf_hashes: Sequence[bytes]) -> Subtree:
    """Full subtrees of leaves held in memory; each level is computed once."""
    levels: list[Sequence[bytes]] = [leaf_hashes]

    def subtree(level: int, index: int) -> bytes:
        while len(levels) <= level:
            below = levels[-1]
            levels.append([node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])
        return levels[level][index]

    return subtree


def inclusion_path(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """The audit path of leaf `index` in the tree of the first `size` leaves. Raises ValueError outside the tree."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_root(middle, end, subtree))
            end = middle
        else:
            path.append(_range_root(start, middle, subtree))
            start = middle
    path.reverse()
    return path


def consistency_path(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """The proof that the first `old` leaves of the tree of `new` are the tree of `old`. Empty if equal or 0."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} cannot grow into one of {new}")
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while old and start + (old - start) != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range_root(middle, end, subtree))
            end = middle
        else:
            path.append(_range_root(start, middle, subtree))
            start, whole = middle, False
    if old and not whole:
        path.append(_range_root(start, end, subtree))
    path.reverse()
    return path


def includes(hashed_leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves that the leaf stands at `index` of the tree of `size` leaves with this root."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, hashed_leaf
    for sibling in path:
        if last == 0 or len(sibling) != HASH_BYTES:
            return False
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def extends(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the tree of `new` leaves begins with the tree of `old` leaves."""
    if not 0 <= old <= new or any(len(one) != HASH_BYTES for one in path):
        return False
    if old in {0, new}:
        return not path and (old_root == (EMPTY_ROOT if old == 0 else new_root))
    steps = [*path] if old & (old - 1) else [old_root, *path]
    if not steps:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    of_old = of_new = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            of_old, of_new = node_hash(sibling, of_old), node_hash(sibling, of_new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            of_new = node_hash(of_new, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and of_old == old_root and of_new == new_root


def _split(count: int) -> int:
    """The largest power of two smaller than `count` (at least 2)."""
    return 1 << ((count - 1).bit_length() - 1)


def _range_root(start: int, end: int, subtree: Subtree) -> bytes:
    """The root over [start, end); every range that comes up here begins where a full subtree of its size would."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return subtree(level, start >> level)
    middle = start + _split(count)
    return node_hash(_range_root(start, middle, subtree), _range_root(middle, end, subtree))
