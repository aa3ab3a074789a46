"""Topics of micro-rules, and clusters: one topic under one label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from sklearn.cluster import DBSCAN

from rules.mining.arrays import FloatArray, IntArray
from rules.mining.communities import communities
from rules.mining.neighbours import nearest_neighbours, neighbour_graph
from rules.mining.resolution import ResolutionTrial, partition_by_stability

type Method = Literal["leiden", "louvain", "dbscan"]


@dataclass(frozen=True)
class ClusterParameters:
    """How to cluster. `eps` (cosine distance) and `min_samples` serve DBSCAN alone (the paper); the rest the graph.

    `resolution` None lets stability choose it (see `rules.mining.resolution`); higher gives more and smaller topics.
    """

    method: Method = "louvain"
    neighbours: int = 15
    resolution: float | None = None
    eps: float = 0.4
    min_samples: int = 6
    split_by_label: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Clustering:
    """What was found in n rows. Numbers start at 0, the biggest topic first; -1 is noise, which only DBSCAN gives.

    `resolution` is the one used (None: DBSCAN, or nothing to divide) and `trials` how it was chosen. `loose_topic`,
    always the last, holds the rows that resemble no other (None: there are none), so that none is lost.
    """

    topics: IntArray
    clusters: IntArray
    topic_sizes: tuple[int, ...]
    cluster_sizes: tuple[int, ...]
    noise: int
    resolution: float | None
    trials: tuple[ResolutionTrial, ...]
    loose_topic: int | None


@dataclass(frozen=True)
class _Topics:
    topics: IntArray
    resolution: float | None = None
    trials: tuple[ResolutionTrial, ...] = ()
    loose_topic: int | None = None


def cluster_topics(vectors: FloatArray, params: ClusterParameters) -> IntArray:
    """Topic number per row, shape (n,). Rows must be unit or zero; centre them first for the graph methods."""
    return _find_topics(vectors, params).topics


def cluster_microrules(vectors: FloatArray, labels: Sequence[str], params: ClusterParameters) -> Clustering:
    """Topics, each divided by label where the parameters say so: a minority label always keeps a cluster of its own."""
    if len(vectors) != len(labels):
        raise ValueError(f"{len(vectors)} vectors and {len(labels)} labels do not belong together.")
    found = _find_topics(vectors, params)
    clusters = _divided(found.topics, labels) if params.split_by_label else found.topics.copy()
    return Clustering(
        topics=found.topics,
        clusters=clusters,
        topic_sizes=_sizes(found.topics),
        cluster_sizes=_sizes(clusters),
        noise=int(np.count_nonzero(found.topics < 0)),
        resolution=found.resolution,
        trials=found.trials,
        loose_topic=found.loose_topic,
    )


def _find_topics(vectors: FloatArray, params: ClusterParameters) -> _Topics:
    if not len(vectors):
        return _Topics(np.zeros(0, dtype=np.int64))
    if params.method == "dbscan":
        # Holds every pair within eps: on 20,000 one-domain rows that all lie close this is some 3 GB.
        model = DBSCAN(eps=params.eps, min_samples=params.min_samples, metric="cosine")
        return _Topics(_biggest_first(model.fit_predict(vectors).astype(np.int64)))
    return _graph_topics(vectors, params)


def _graph_topics(vectors: FloatArray, params: ClusterParameters) -> _Topics:
    graph = neighbour_graph(nearest_neighbours(vectors, _neighbour_count(len(vectors), params.neighbours)))
    placed = np.flatnonzero(np.diff(graph.indptr))
    topics = np.zeros(len(vectors), dtype=np.int64)
    if not len(placed):
        return _Topics(topics)
    inner, algorithm = graph[placed][:, placed], params.method
    assert algorithm != "dbscan"
    if params.resolution is None:
        choice = partition_by_stability(vectors[placed], inner, algorithm, params.neighbours, params.seed)
        found, resolution, trials = choice.topics, choice.resolution, choice.trials
    else:
        resolution, trials = params.resolution, ()
        found = communities(inner, algorithm, resolution, params.seed)
    topics[placed] = _biggest_first(found)
    if len(placed) == len(vectors):
        return _Topics(topics, resolution, trials)
    loose = int(topics.max()) + 1
    topics[np.diff(graph.indptr) == 0] = loose
    return _Topics(topics, resolution, trials, loose)


def _neighbour_count(n: int, wanted: int) -> int:
    """Neighbours per row: about √n in a small set, where 15 neighbours would join everything to everything."""
    return max(1, min(wanted, round(sqrt(n))))


def _biggest_first(numbers: IntArray) -> IntArray:
    """Numbers 0, 1, ... by falling size, then by first row; -1 stays."""
    values, first, sizes = np.unique(numbers[numbers >= 0], return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    renumbered = np.full(int(numbers.max(initial=0)) + 1, -1, dtype=np.int64)
    renumbered[values[order]] = np.arange(len(values))
    return np.where(numbers >= 0, renumbered[numbers], -1)


def _divided(topics: IntArray, labels: Sequence[str]) -> IntArray:
    """A number for each (topic, label) that occurs, in the order of topic then label name; noise stays -1."""
    codes = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)[1]
    pairs = topics * (int(codes.max(initial=0)) + 1) + codes
    numbers = np.full(len(topics), -1, dtype=np.int64)
    kept = topics >= 0
    numbers[kept] = np.unique(pairs[kept], return_inverse=True)[1]
    return numbers


def _sizes(numbers: IntArray) -> tuple[int, ...]:
    return tuple(int(size) for size in np.bincount(numbers[numbers >= 0]))
