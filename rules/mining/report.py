"""Figures that say how good a clustering is, alone and against a yardstick the miner never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score

from rules.mining.arrays import IntArray


@dataclass(frozen=True)
class ClusteringFigures:
    """Shares are of all n rows, 0 to 1; sizes fall. AMI is scikit-learn's adjusted mutual information.

    1 is the same division, 0 is chance, None no yardstick; DBSCAN's noise counts as one group of its own.
    """

    rows: int
    topics: int
    clusters: int
    covered_share: float
    biggest_topic_share: float
    topic_sizes: tuple[int, ...]
    cluster_sizes: tuple[int, ...]
    ami_yardstick: float | None
    ami_yardstick_and_label: float | None

    def as_json(self) -> dict[str, object]:
        """Plain numbers, lists and None, ready for json.dumps or a JSON column."""
        return asdict(self) | {"topic_sizes": list(self.topic_sizes), "cluster_sizes": list(self.cluster_sizes)}


def clustering_figures(
    topics: IntArray, clusters: IntArray, labels: Sequence[str], yardstick: Sequence[str] | None = None
) -> ClusteringFigures:
    """Topics are measured against the yardstick, clusters against yardstick and label together. All of length n."""
    n = len(topics)
    topic_sizes, cluster_sizes = _falling_sizes(topics), _falling_sizes(clusters)
    pairs = None if yardstick is None else list(zip(yardstick, labels, strict=True))
    return ClusteringFigures(
        rows=n,
        topics=len(topic_sizes),
        clusters=len(cluster_sizes),
        covered_share=float(np.mean(topics >= 0)) if n else 0.0,
        biggest_topic_share=max(topic_sizes, default=0) / n if n else 0.0,
        topic_sizes=topic_sizes,
        cluster_sizes=cluster_sizes,
        ami_yardstick=None if yardstick is None else _ami(yardstick, topics),
        ami_yardstick_and_label=None if pairs is None else _ami(pairs, clusters),
    )


def agreement_of(one: IntArray, other: IntArray) -> float:
    """AMI of two divisions of the same rows; noise counts as one group of its own."""
    return float(adjusted_mutual_info_score(one, other))


def _falling_sizes(numbers: IntArray) -> tuple[int, ...]:
    sizes = np.bincount(numbers[numbers >= 0])
    return tuple(int(size) for size in np.sort(sizes[sizes > 0])[::-1])


def _ami(truth: Sequence[object], found: IntArray) -> float:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(truth))}
    return float(adjusted_mutual_info_score([numbers[value] for value in truth], found))
