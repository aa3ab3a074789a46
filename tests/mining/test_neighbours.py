from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from rules.mining import neighbours
from rules.mining.arrays import unit_rows
from rules.mining.neighbours import nearest_neighbours, neighbour_graph


@pytest.mark.parametrize(("n", "k"), [(2, 1), (3, 2), (33, 5), (500, 15), (1_501, 15), (700, 40)])
def test_neighbours_equal_brute_force(n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK_CELLS", 40_000)  # several blocks, the last one partial
    vectors = unit_rows(np.random.default_rng(n).standard_normal((n, 20)))
    distances, rows = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(vectors).kneighbors()
    found = nearest_neighbours(vectors, k)
    assert np.allclose(1 - found.similarities, distances, atol=1e-5)
    assert np.array_equal(found.rows, rows)


def test_neighbours_leave_out_the_row_itself_even_among_twins() -> None:
    found = nearest_neighbours(unit_rows(np.ones((50, 4))), 10)
    assert not (found.rows == np.arange(50)[:, None]).any()
    assert all(len(set(row)) == 10 for row in found.rows.tolist())


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_has_no_neighbours(n: int) -> None:
    assert nearest_neighbours(np.ones((n, 3), dtype=np.float32), 15).rows.shape == (n, 0)


def test_graph_is_symmetric_and_positive() -> None:
    vectors = unit_rows(np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [0.0, 0.0]]))
    graph = neighbour_graph(nearest_neighbours(vectors, 2)).toarray()
    assert np.array_equal(graph, graph.T)
    assert (graph > 0).tolist() == [[False, True, False, False], [True, False, False, False], [False] * 4, [False] * 4]
