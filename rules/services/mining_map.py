"""Where the map draws each micro-rule of a run: a sample of a big one."""

from dataclasses import dataclass

import numpy as np
from django.db import connection

from rules.mining.arrays import IntArray
from rules.mining.clusters import Clustering
from rules.mining.projection import layout
from rules.models import MicroRule
from rules.services.mining_vectors import Mined

# More marks are neither told apart nor quickly sent.
MAX_DRAWN = 3_000


@dataclass(frozen=True)
class Placed:
    """Rows of the mined micro-rules with their points, each from -1 to 1."""

    rows: list[int]
    points: list[tuple[float, float]]


def map_points(mined: Mined, clustering: Clustering, *, neighbours: int, seed: int) -> Placed:
    """Points for at most MAX_DRAWN micro-rules, with one of each cluster as long as there is room."""
    rows = rows_to_draw(clustering.clusters, seed)
    points = np.round(layout(mined.vectors[rows], neighbours=neighbours, seed=seed), 4)
    return Placed(rows.tolist(), [(float(x), float(y)) for x, y in points])


def rows_to_draw(clusters: IntArray, seed: int) -> IntArray:
    """All rows, or MAX_DRAWN drawn at random of which every cluster has its share, and at least one."""
    if len(clusters) <= MAX_DRAWN:
        return np.arange(len(clusters))
    order = np.random.default_rng(seed).permutation(len(clusters))
    firsts = order[np.unique(clusters[order], return_index=True)[1]]
    others = order[~np.isin(order, firsts)]
    return np.sort(np.concatenate([firsts, others])[:MAX_DRAWN])


def map_write(mined: Mined, placed: Placed) -> None:
    """Store the points, in the caller's transaction; rows left out of an earlier drawing lose theirs."""
    table = MicroRule._meta.db_table
    points = dict(zip(placed.rows, placed.points, strict=True))
    at = [points.get(row, (None, None)) for row in range(len(mined.rules))]
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} m SET map_x = v.x, map_y = v.y "  # noqa: S608  # the table's name is our own
            "FROM unnest(%s::bigint[], %s::float8[], %s::float8[]) AS v(rule, x, y) WHERE m.id = v.rule",
            [[rule.pk for rule in mined.rules], [x for x, _y in at], [y for _x, y in at]],
        )
