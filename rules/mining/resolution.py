"""The resolution of the topics, chosen by stability instead of by hand.

The criterion (after Ben-Hur, Elisseeff and Guyon 2002, and Lange et al. 2004): a division is real if it comes back
when a part of the rows is missing. For each resolution of a grid, 8 random parts of 80% of the rows are clustered;
the stability is the mean adjusted mutual information of the pairs, on the rows both hold. Of the resolutions within
0.01 of the most stable one, the finest wins: a merged topic hides a rule, while a split one costs a reviewer a
second card. Where no division comes back (below 0.6) or the set is tiny, plain modularity (1.0) is used. No
yardstick and no label is looked at.

Above 2,000 rows the stability is found on a sample. A resolution does not carry over to a denser set (15 neighbours
reach less far there, so the same value divides more): the whole set takes the finest resolution whose topics agree
best (again within 0.01), on the sampled rows, with the sample's own stable topics.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import sparse
from sklearn.metrics import adjusted_mutual_info_score

from rules.mining.arrays import FloatArray, IntArray
from rules.mining.communities import GraphMethod, communities
from rules.mining.neighbours import nearest_neighbours, neighbour_graph

RESOLUTIONS = (0.12, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
PLAIN_MODULARITY = 1.0
_TRIED = tuple(value for value in RESOLUTIONS if value >= 0.5)  # coarser ones serve the whole of a big set only
_SAMPLE = 2_000
_SMALLEST = 40
_REPEATS = 8
_PART = 0.8
_TOLERANCE = 0.01
_STABLE = 0.6
_PATIENCE = 2


@dataclass(frozen=True)
class ResolutionTrial:
    """One resolution tried: its stability (at most 1; 0 is chance) and the mean number of topics it gave."""

    resolution: float
    stability: float
    topics: float


@dataclass(frozen=True)
class StablePartition:
    """Topic per row, the resolution that gave it, and all that were tried (none for a tiny set)."""

    topics: IntArray
    resolution: float
    trials: tuple[ResolutionTrial, ...]


def partition_by_stability(
    vectors: FloatArray, graph: sparse.csr_matrix, method: GraphMethod, neighbours: int, seed: int
) -> StablePartition:
    """Divide the graph (n, n) of the vectors (n, d) at the resolution the criterion chooses."""
    n = graph.shape[0]
    if n < _SMALLEST:
        return StablePartition(communities(graph, method, PLAIN_MODULARITY, seed), PLAIN_MODULARITY, ())
    if n <= _SAMPLE:
        trials = resolution_trials(graph, method, seed)
        resolution = choose_resolution(trials)
        return StablePartition(communities(graph, method, resolution, seed), resolution, trials)
    sample = np.sort(np.random.default_rng(seed).choice(n, _SAMPLE, replace=False))
    sampled_graph = neighbour_graph(nearest_neighbours(vectors[sample], neighbours))
    stable = partition_by_stability(vectors[sample], sampled_graph, method, neighbours, seed)
    topics, resolution = _carried_over(graph, method, seed, sample, stable)
    return StablePartition(topics, resolution, stable.trials)


def resolution_trials(graph: sparse.csr_matrix, method: GraphMethod, seed: int) -> tuple[ResolutionTrial, ...]:
    """Stability of each resolution of the grid on this graph."""
    n = graph.shape[0]
    generator = np.random.default_rng(seed)
    parts = [np.sort(generator.choice(n, int(n * _PART), replace=False)) for _ in range(_REPEATS)]
    graphs = [graph[part][:, part] for part in parts]
    return tuple(_trial(parts, graphs, n=n, method=method, resolution=resolution, seed=seed) for resolution in _TRIED)


def choose_resolution(trials: tuple[ResolutionTrial, ...]) -> float:
    """The finest resolution within the tolerance of the most stable one, or plain modularity where none is stable."""
    best = max(trial.stability for trial in trials)
    if best < _STABLE:
        return PLAIN_MODULARITY
    return max(trial.resolution for trial in trials if trial.stability >= best - _TOLERANCE)


def _trial(
    parts: list[IntArray], graphs: list[sparse.csr_matrix], *, n: int, method: GraphMethod, resolution: float, seed: int
) -> ResolutionTrial:
    divisions = []
    for repeat, (part, graph) in enumerate(zip(parts, graphs, strict=True)):
        topics = np.full(n, -1, dtype=np.int64)
        topics[part] = communities(graph, method, resolution, seed + repeat)
        divisions.append(topics)
    agreements = [_agreement(one, other) for one, other in combinations(divisions, 2)]
    counts = [int(topics.max()) + 1 for topics in divisions]
    return ResolutionTrial(resolution, float(np.mean(agreements)), float(np.mean(counts)))


def _agreement(one: IntArray, other: IntArray) -> float:
    """Adjusted mutual information on the rows both hold; 0 if either is one topic, which says nothing."""
    shared = (one >= 0) & (other >= 0)
    if one[shared].max() == one[shared].min() or other[shared].max() == other[shared].min():
        return 0.0
    return float(adjusted_mutual_info_score(one[shared], other[shared]))


def _carried_over(
    graph: sparse.csr_matrix, method: GraphMethod, seed: int, sample: IntArray, stable: StablePartition
) -> tuple[IntArray, float]:
    """The division of the whole set that agrees best with the sample's topics, and its resolution; tried downwards."""
    tried: list[tuple[float, IntArray, float]] = []
    best = 0.0
    for resolution in sorted((value for value in RESOLUTIONS if value <= stable.resolution), reverse=True):
        topics = communities(graph, method, resolution, seed)
        agreement = float(adjusted_mutual_info_score(topics[sample], stable.topics))
        tried.append((agreement, topics, resolution))
        best = max(best, agreement)
        # Past the peak, or on its plateau: coarser ones can only merge more, and each costs a pass over the whole set.
        if agreement < best - _TOLERANCE or (len(tried) > _PATIENCE and best - tried[-1 - _PATIENCE][0] <= _TOLERANCE):
            break
    _, topics, resolution = next(one for one in tried if one[0] >= best - _TOLERANCE)
    return topics, resolution
