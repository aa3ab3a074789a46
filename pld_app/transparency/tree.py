"""The sealed tree as it is stored: sizes, roots and proofs, read 256 hashes at a time."""

from collections import OrderedDict

from django.db.models import Max

from pld_app.models import SealedLeaf, SealedNode
from pld_app.transparency.merkle import (
    EMPTY_ROOT,
    Subtree,
    consistency_path,
    inclusion_path,
    node_hash,
    subtrees_of,
)

TILE_LEVELS = 8  # a tile is a full subtree of 256 hashes of one level
_TILES_KEPT = 512


def sealed_count() -> int:
    """How many leaves the tree has."""
    last = SealedLeaf.objects.aggregate(last=Max("index"))["last"]
    return 0 if last is None else last + 1


class StoredTree:
    """Proofs from the database. Keeps the tiles it read (8 KiB each, 4 MiB at most), so use one for many proofs."""

    def __init__(self) -> None:
        self._tiles: OrderedDict[tuple[int, int], Subtree] = OrderedDict()
        self._above: tuple[tuple[int, int], list[bytes]] = ((-1, -1), [])

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The audit path of leaf `index` in the tree of `size`, from the leaf upwards. ValueError outside the tree."""
        number, place = divmod(index, 1 << TILE_LEVELS)
        if index < 0 or (number + 1) << TILE_LEVELS > size:
            return inclusion_path(index, size, self.subtree)
        # From the top of a full tile on, all its leaves have the same path: neighbours share it.
        if self._above[0] != (number, size):
            self._above = (number, size), inclusion_path(index, size, self.subtree)[TILE_LEVELS:]
        tile = self._tile(0, number)
        return [*(tile(level, place >> level ^ 1) for level in range(TILE_LEVELS)), *self._above[1]]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that the tree of `new` leaves begins with that of `old`."""
        return consistency_path(old, new, self.subtree)

    def root(self, size: int) -> bytes:
        """The root over the first `size` leaves, from what is stored now."""
        if size == 0:
            return EMPTY_ROOT
        levels = [level for level in range(size.bit_length()) if size >> level & 1]
        root = self.subtree(levels[0], (size >> levels[0]) - 1)
        for level in levels[1:]:
            root = node_hash(self.subtree(level, (size >> level) - 1), root)
        return root

    def subtree(self, level: int, index: int) -> bytes:
        """The root of the full subtree over leaves [index << level, (index + 1) << level). KeyError if not sealed."""
        base, above = level - level % TILE_LEVELS, level % TILE_LEVELS
        width = TILE_LEVELS - above
        return self._tile(base, index >> width)(above, index & (1 << width) - 1)

    def _tile(self, level: int, number: int) -> Subtree:
        key = (level, number)
        if key not in self._tiles:
            self._tiles[key] = subtrees_of(self._hashes(level, number << TILE_LEVELS))
            if len(self._tiles) > _TILES_KEPT:
                self._tiles.popitem(last=False)
        self._tiles.move_to_end(key)
        return self._tiles[key]

    def _hashes(self, level: int, start: int) -> list[bytes]:
        end = start + (1 << TILE_LEVELS)
        if level == 0:
            rows = SealedLeaf.objects.filter(index__gte=start, index__lt=end).order_by("index")
            found = list(rows.values_list("index", "leaf_hash"))
        else:
            nodes = SealedNode.objects.filter(level=level, index__gte=start, index__lt=end).order_by("index")
            found = list(nodes.values_list("index", "hash"))
        if [index for index, _hash in found] != list(range(start, start + len(found))):
            raise KeyError(f"the stored tree has a hole at level {level} near {start}")
        return [bytes(one) for _index, one in found]
