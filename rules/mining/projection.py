"""A flat picture of the vectors, for the map of micro-rules."""

from __future__ import annotations

import numpy as np
from sklearn.utils.extmath import randomized_svd

from rules.mining.arrays import FloatArray


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
