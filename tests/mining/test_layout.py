"""The map's layout: near on the map is near in the vectors, and the same vectors give the same map."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from rules.mining.arrays import FloatArray, IntArray
from rules.mining.projection import layout, project
from rules.mining.vectors import centre, embed_tfidf
from tests.mining.conftest import LabelledTexts
from tests.mining.generated import generated_vectors


def own_topic_share(points: FloatArray, topics: IntArray) -> float:
    """Of each point's 10 nearest on the map, the share that is of its topic."""
    nearest = NearestNeighbors(n_neighbors=10).fit(points).kneighbors(return_distance=False)
    return float((topics[nearest] == topics[:, None]).mean())


def test_neighbours_stay_together_where_two_directions_cannot_hold_them() -> None:
    vectors, topics = generated_vectors(600, topics=12)
    points = layout(vectors)
    assert own_topic_share(points, topics) >= 0.95
    assert own_topic_share(project(vectors), topics) < 0.6
    assert np.abs(points).max() <= 1
    assert np.abs(points).max(axis=0).min() > 0.5


def test_the_same_vectors_give_the_same_map() -> None:
    vectors, _ = generated_vectors(200, topics=4)
    assert np.array_equal(layout(vectors, seed=3), layout(vectors, seed=3))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 20])
def test_any_number_of_rows_has_finite_points(n: int) -> None:
    for vectors in (np.zeros((n, 4), dtype=np.float32), np.full((n, 4), 0.5, dtype=np.float32)):
        points = layout(vectors)
        assert points.shape == (n, 2)
        assert np.isfinite(points).all()


def test_equal_rows_do_not_hide_behind_each_other() -> None:
    vectors = generated_vectors(60, topics=3)[0].repeat(2, axis=0)
    assert len(np.unique(layout(vectors), axis=0)) == 120


def test_the_real_topics_lie_apart(contract_nli: LabelledTexts) -> None:
    vectors = centre(embed_tfidf(contract_nli.texts, labels=contract_nli.label_names))
    questions = np.unique(contract_nli.questions, return_inverse=True)[1]
    assert own_topic_share(layout(vectors), questions) >= 0.9
