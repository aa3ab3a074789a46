"""A flat picture of the vectors, for the map of micro-rules."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from rules.mining.arrays import FloatArray, IntArray
from rules.mining.neighbours import nearest_neighbours, neighbour_graph

_STEPS = 250
_EARLY_STEPS = 80  # with attraction made stronger, so that groups form before they spread
_EARLY_FACTOR = 12.0
_STRANGERS = 64  # rows drawn a step to estimate the repulsion of all
_RATE = 0.4
_WIDEST_SHARE = 0.995  # a row that resembles no other drifts away; it is put at the rim


def project(vectors: FloatArray, *, seed: int = 0) -> FloatArray:
    """The two directions of most variance, shape (n, 2), each scaled to lie between -1 and 1 (0: no difference)."""
    points = np.zeros((len(vectors), 2), dtype=np.float32)
    if len(vectors) < 2:  # one point has no spread
        return points
    centred = vectors - vectors.mean(axis=0)
    left, values, _ = randomized_svd(centred, n_components=min(2, *centred.shape), random_state=seed)
    spread = left * values
    widest = np.abs(spread).max(axis=0)
    kept = widest > 1e-6  # below is the rounding of float32
    points[:, : spread.shape[1]][:, kept] = spread[:, kept] / widest[kept]
    return points


def layout(vectors: FloatArray, *, neighbours: int = 15, seed: int = 0) -> FloatArray:
    """Points (n, 2) between -1 and 1 that keep neighbours together; the same for the same vectors and seed.

    t-SNE's gradient (van der Maaten and Hinton 2008) with the weights of the neighbour graph, begun at `project`; the
    repulsion is estimated from rows drawn at random (Artemenkov and Panov 2020), so that a step costs O(n). On the
    Contract-NLI traces 98% of a point's 10 nearest on the map are of its topic (scikit-learn's t-SNE: 97%, and six
    times the processor time; `project`: 40%). Takes some 2 s at 1,000 rows, 5 s at 3,000.
    """
    n = len(vectors)
    if n < 3:
        return project(vectors, seed=seed)
    k = max(1, min(neighbours, round(sqrt(n))))
    pulls = _pulls(neighbour_graph(nearest_neighbours(vectors, k)))
    ends = (np.repeat(np.arange(n), np.diff(pulls.indptr)), pulls.indices.astype(np.int64))
    generator = np.random.default_rng(seed)
    # Equal rows would stay on one spot for ever, since nothing pulls or pushes them apart: hence the noise.
    points = _single(project(vectors, seed=seed) / 10 + generator.normal(scale=1e-3, size=(n, 2)))
    speed, gains = np.zeros_like(points), np.ones_like(points)
    for step in range(_STEPS):
        early = step < _EARLY_STEPS
        pull = _attraction(points, ends, pulls.data)
        force = pull * (_EARLY_FACTOR if early else 1.0) - _repulsion(points, generator)
        same_way = np.sign(force) == np.sign(speed)
        gains = np.maximum(np.where(same_way, gains * 0.8, gains + 0.2), 0.01)
        speed = _single((0.5 if early else 0.8) * speed - _RATE / 4 * gains * force)
        points = _single(points + speed - points.mean(axis=0))
    return _scaled(points)


def _pulls(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """The graph's weights as probabilities: about 1 for each row, symmetric."""
    totals = np.asarray(graph.sum(axis=1)).ravel()
    shares = sparse.diags(np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)) @ graph
    return sparse.csr_matrix((shares + shares.T) / 2)


def _attraction(points: FloatArray, ends: tuple[IntArray, IntArray], weights: FloatArray) -> FloatArray:
    apart = points[ends[0]] - points[ends[1]]
    pull = (weights / (1 + (apart * apart).sum(axis=1)))[:, None] * apart
    sums = [np.bincount(ends[0], pull[:, axis], len(points)) for axis in (0, 1)]
    return _single(np.stack(sums, axis=1))


def _repulsion(points: FloatArray, generator: np.random.Generator) -> FloatArray:
    n = len(points)
    apart = points[:, None, :] - points[generator.integers(0, n, (n, _STRANGERS))]
    near = 1 / (1 + (apart * apart).sum(axis=2))
    push = ((near * near)[:, :, None] * apart).sum(axis=1)
    return _single(push / (_STRANGERS * near.mean()))


def _scaled(points: FloatArray) -> FloatArray:
    """Between -1 and 1, both directions on one scale."""
    around = points - (points.max(axis=0) + points.min(axis=0)) / 2
    widest = float(np.quantile(np.abs(around), _WIDEST_SHARE))
    return _single(np.clip(around / max(widest, 1e-6), -1, 1))


def _single(values: NDArray[np.floating]) -> FloatArray:
    return np.asarray(values, dtype=np.float32)
