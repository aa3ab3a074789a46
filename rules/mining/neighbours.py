"""Exact nearest neighbours by cosine, in bounded memory, and the graph they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rules.mining.arrays import FloatArray, IntArray

_BLOCK_CELLS = 24_000_000  # similarities held at once: about 100 MB of float32
_FOLD = 32


@dataclass(frozen=True)
class Neighbours:
    """For each of n rows its k nearest others, most similar first: `rows` and `similarities`, both of shape (n, k)."""

    rows: IntArray
    similarities: FloatArray


def nearest_neighbours(vectors: FloatArray, k: int) -> Neighbours:
    """The k (at most n - 1) other rows with the highest cosine. Rows must be unit or zero.

    Takes O(n²) time, and about 200 MB at any n.
    """
    n = len(vectors)
    k = max(0, min(k, n - 1))
    rows = np.zeros((n, k), dtype=np.int64)
    similarities = np.zeros((n, k), dtype=np.float32)
    if k == 0:
        return Neighbours(rows, similarities)
    others = _padded(np.ascontiguousarray(vectors, dtype=np.float32))
    step = max(1, _BLOCK_CELLS // len(others))
    for start in range(0, n, step):
        block = others[start : min(start + step, n)] @ others.T
        block[:, n:] = -np.inf
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        rows[start : start + len(block)], similarities[start : start + len(block)] = _top(block, k)
    return Neighbours(rows, similarities)


def neighbour_graph(neighbours: Neighbours) -> sparse.csr_matrix:
    """Symmetric weights (n, n): the cosine of each neighbour pair, if positive. A row like no other has no edge."""
    n, k = neighbours.rows.shape
    keep = neighbours.similarities.ravel() > 0
    ends = (np.repeat(np.arange(n), k)[keep], neighbours.rows.ravel()[keep])
    directed = sparse.csr_matrix((neighbours.similarities.ravel()[keep], ends), shape=(n, n))
    return sparse.csr_matrix(directed.maximum(directed.T))


def _padded(vectors: FloatArray) -> FloatArray:
    """Zero rows added up to a multiple of the fold."""
    return np.pad(vectors, ((0, -len(vectors) % _FOLD), (0, 0)))


def _top(block: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Columns and values of each row's k highest cells, highest first.

    The columns are folded into n / 32 groups. A group's best cell is among the k best only if the group is among the k
    best groups, so only k * 32 cells per row are ever sorted: many times faster than partitioning whole rows.
    """
    count, width = block.shape
    groups = width // _FOLD
    if groups > k:
        best = block.reshape(count, _FOLD, groups).max(axis=1)
        chosen = np.argpartition(best, groups - k, axis=1)[:, groups - k :]
        columns = (chosen[:, None, :] + groups * np.arange(_FOLD)[None, :, None]).reshape(count, -1)
    else:
        columns = np.broadcast_to(np.arange(width), (count, width))
    values = np.take_along_axis(block, columns, axis=1)
    picked = np.argpartition(values, values.shape[1] - k, axis=1)[:, values.shape[1] - k :]
    columns, values = np.take_along_axis(columns, picked, axis=1), np.take_along_axis(values, picked, axis=1)
    order = np.lexsort((columns, -values), axis=1)
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)
