"""RFC 6962, section 2.1, transcribed as it stands: slow, recursive, over leaves in memory. Only for comparison.

Written from the text alone and sharing nothing with pld_app.transparency.merkle, so that one mistake is not made twice.
"""

import hashlib


def mth(d: list[bytes]) -> bytes:
    """2.1: the Merkle Tree Hash of the list of inputs D[n]."""
    n = len(d)
    if n == 0:
        return hashlib.sha256(b"").digest()
    if n == 1:
        return hashlib.sha256(bytes([0]) + d[0]).digest()
    k = _k(n)
    return hashlib.sha256(bytes([1]) + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    """2.1.1: PATH(m, D[n])."""
    n = len(d)
    if n == 1:
        return []
    k = _k(n)
    if m < k:
        return [*path(m, d[:k]), mth(d[k:])]
    return [*path(m - k, d[k:]), mth(d[:k])]


def proof(m: int, d: list[bytes]) -> list[bytes]:
    """2.1.2: PROOF(m, D[n]) = SUBPROOF(m, D[n], true)."""
    return _subproof(m, d, True)


def _subproof(m: int, d: list[bytes], b: bool) -> list[bytes]:
    n = len(d)
    if m == n:
        return [] if b else [mth(d)]
    k = _k(n)
    if m <= k:
        return [*_subproof(m, d[:k], b), mth(d[k:])]
    return [*_subproof(m - k, d[k:], False), mth(d[:k])]


def _k(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def verify_inclusion(leaf: bytes, index: int, size: int, proof_: list[bytes], root: bytes) -> bool:
    """By rebuilding the path from the top: which side each step is on follows from splitting the range again."""
    sides: list[bool] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _k(end - start)
        sides.append(index >= middle)
        start, end = (middle, end) if index >= middle else (start, middle)
    if len(sides) != len(proof_):
        return False
    found = hashlib.sha256(b"\0" + leaf).digest()
    for is_right, sibling in zip(reversed(sides), proof_, strict=True):
        found = hashlib.sha256(b"\1" + (sibling + found if is_right else found + sibling)).digest()
    return found == root
