"""Community detection on a weighted graph: the one place that calls scikit-network."""

from __future__ import annotations

import ctypes
from typing import Literal

import numpy as np
from scipy import sparse
from sknetwork.clustering import Leiden, Louvain

from rules.mining.arrays import IntArray

type GraphMethod = Literal["leiden", "louvain"]


def communities(graph: sparse.csr_matrix, method: GraphMethod, resolution: float, seed: int) -> IntArray:
    """Community number per node, from 0, no gaps. `resolution` is the factor on modularity's null model.

    Louvain visits nodes in row order and draws nothing: the same graph gives the same answer. Leiden draws, see below.
    """
    if method == "louvain":
        return np.asarray(Louvain(resolution=resolution).fit_predict(graph), dtype=np.int64)
    # scikit-network 0.33 refines with C's rand() and never seeds it, whatever `random_state` says. The generator is the
    # process's own, so Leiden repeats only while no other thread draws from it: the reason why Louvain is the default.
    ctypes.CDLL(None).srand(ctypes.c_uint(seed))
    return np.asarray(Leiden(resolution=resolution).fit_predict(graph), dtype=np.int64)
