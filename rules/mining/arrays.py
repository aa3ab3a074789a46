"""Array types shared by the mining modules. Vectors are rows of float32; row numbers are int64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

type FloatArray = NDArray[np.float32]
type IntArray = NDArray[np.int64]


def unit_rows(matrix: NDArray[np.floating]) -> FloatArray:
    """Rows scaled to length 1, shape kept. A row shorter than 1e-6 (a text without a known word) becomes zero."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    scaled = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 1e-6)
    return np.ascontiguousarray(scaled, dtype=np.float32)
