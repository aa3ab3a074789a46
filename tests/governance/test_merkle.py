"""Test 41: proofs equal those of a second implementation and the published vectors; a wrong one is never accepted."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld_app.transparency import merkle
from tests.governance import rfc6962

# The reference tree of the Certificate Transparency project: eight leaves, and the root after each.
LEAVES = [
    bytes.fromhex(one)
    for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
# (index, size): path, from the same project.
PATHS = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
    (1, 5): (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
# (old, new): proof, from the same project.
GROWTH = {
    (1, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}


def hashes(leaves: list[bytes]) -> list[bytes]:
    return [merkle.leaf_hash(leaf) for leaf in leaves]


def numbered(count: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(count)]


def test_published_vectors() -> None:
    subtree = merkle.subtrees_of(hashes(LEAVES))
    for size, root in enumerate(ROOTS):
        assert merkle.root_of(hashes(LEAVES[:size])).hex() == root
    for (index, size), path in PATHS.items():
        assert [one.hex() for one in merkle.inclusion_path(index, size, subtree)] == list(path)
    for (old, new), path in GROWTH.items():
        assert [one.hex() for one in merkle.consistency_path(old, new, subtree)] == list(path)


def test_every_proof_below_seventy_one_equals_the_second_implementation() -> None:
    leaves = numbered(70)
    subtree = merkle.subtrees_of(hashes(leaves))
    roots = [rfc6962.mth(leaves[:size]) for size in range(71)]
    for size in range(1, 71):
        assert merkle.root_of(hashes(leaves[:size])) == roots[size]
        for index in range(size):
            path = merkle.inclusion_path(index, size, subtree)
            assert path == rfc6962.path(index, leaves[:size])
            assert merkle.includes(merkle.leaf_hash(leaves[index]), index, size, path, roots[size])
            assert rfc6962.verify_inclusion(leaves[index], index, size, path, roots[size])
        for old in range(1, size + 1):
            path = merkle.consistency_path(old, size, subtree)
            assert path == rfc6962.proof(old, leaves[:size])
            assert merkle.extends(old, roots[old], size, roots[size], path)


def test_two_hundred_random_proofs_in_trees_up_to_a_million() -> None:
    """Checked by the second implementation's own check and by roots of prefixes; the tree is built once."""
    size, chance = 10**6, random.Random(6962)
    leaves = hashes([number.to_bytes(4) for number in range(size)])
    subtree = merkle.subtrees_of(leaves)
    for _case in range(200):
        new = int(10 ** chance.uniform(0, 6))
        index, old = chance.randrange(new), chance.randint(1, new)
        root, old_root = _prefix_root(new, subtree), _prefix_root(old, subtree)
        path = merkle.inclusion_path(index, new, subtree)
        assert merkle.includes(leaves[index], index, new, path, root)
        assert rfc6962.verify_inclusion(index.to_bytes(4), index, new, path, root)
        growth = merkle.consistency_path(old, new, subtree)
        assert merkle.extends(old, old_root, new, root, growth)
        assert not merkle.includes(leaves[(index + 1) % size], index, new, path, root)
        assert old == new or not merkle.extends(old, root, new, root, growth)


def _prefix_root(size: int, subtree: merkle.Subtree) -> bytes:
    """The root from the bits of the size: the full subtrees of a prefix, folded from the right."""
    places = [level for level in range(size.bit_length()) if size >> level & 1]
    root = subtree(places[0], (size >> places[0]) - 1)
    for level in places[1:]:
        root = merkle.node_hash(subtree(level, (size >> level) - 1), root)
    return root


@given(st.data())
def test_no_altered_proof_is_accepted(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 90))
    leaves = numbered(size)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size - 1))
    subtree = merkle.subtrees_of(hashes(leaves))
    root, old_root, leaf = rfc6962.mth(leaves), rfc6962.mth(leaves[:old]), merkle.leaf_hash(leaves[index])

    def included(path: list[bytes]) -> bool:
        return merkle.includes(leaf, index, size, path, root)

    def extended(path: list[bytes]) -> bool:
        return merkle.extends(old, old_root, size, root, path)

    path, growth = merkle.inclusion_path(index, size, subtree), merkle.consistency_path(old, size, subtree)
    assert not merkle.includes(leaf, index + 1, size, path, root)
    assert not merkle.extends(old + 1, old_root, size, root, growth)
    for proof, check in ((path, included), (growth, extended)):
        assert check(proof)
        assert not check(proof[:-1])
        assert not check([*proof, root])
        if len(proof) > 1:
            assert not check([proof[1], proof[0], *proof[2:]])
        place, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
        changed = bytearray(proof[place])
        changed[bit // 8] ^= 1 << bit % 8
        assert not check([*proof[:place], bytes(changed), *proof[place + 1 :]])


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 1000])
def test_a_stored_frontier_grows_like_the_tree(size: int) -> None:
    leaves = hashes(numbered(size + 9))
    frontier = merkle.Frontier()
    for one in leaves[:size]:
        frontier.append(one)
    frontier = merkle.Frontier.from_bytes(size, frontier.to_bytes())
    made: dict[tuple[int, int], bytes] = {}
    for one in leaves[size:]:
        frontier.append(one, lambda level, index, node: made.__setitem__((level, index), node))
    assert frontier.root() == merkle.root_of(leaves)
    subtree = merkle.subtrees_of(leaves)
    assert made
    assert all(node == subtree(level, index) for (level, index), node in made.items())


def test_what_is_outside_the_tree_is_refused() -> None:
    subtree = merkle.subtrees_of(hashes(numbered(4)))
    for index, size in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(ValueError, match="no leaf"):
            merkle.inclusion_path(index, size, subtree)
    with pytest.raises(ValueError, match="cannot grow"):
        merkle.consistency_path(5, 4, subtree)
    with pytest.raises(ValueError, match="no frontier"):
        merkle.Frontier.from_bytes(3, b"x" * 32)
    assert merkle.consistency_path(0, 4, subtree) == merkle.consistency_path(4, 4, subtree) == []
    root = merkle.root_of(hashes(numbered(4)))
    assert merkle.extends(0, merkle.EMPTY_ROOT, 4, root, [])
    assert not merkle.extends(0, root, 4, root, [])
