"""Clustering of precomputed vectors with a known structure: seconds and memory as the number of micro-rules grows."""

import time
from itertools import pairwise

from pld_app.devstack import paths
from tests.bench.machine import Figures, load, peak_mib, resident_mib, say
from tests.bench.plot import Series, Target, log_log_svg
from tests.bench.processes import in_own_process

SIZES = (5_000, 20_000, 50_000, 100_000)
QUICK_SIZES = (1_000, 2_500)
TOPICS = 60
PLOT = paths.ROOT / "docs" / "mining-scale.svg"
TARGETS = (Target(20_000, 10), Target(100_000, 60))


def measure(*, quick: bool) -> Figures:
    """Each size in a process of its own; a full run draws the plot of docs/benchmarks.md anew."""
    found: Figures = {}
    for count in QUICK_SIZES if quick else SIZES:
        say(f"  clustering {count} precomputed vectors")
        found[f"vectors_{count}"] = in_own_process("tests.bench.mining_scale:clustered", count=count)
    if not quick:
        PLOT.write_text(plotted(found), encoding="utf-8")
        say(f"  drawn: {PLOT}")
    return found


def clustered(*, count: int) -> Figures:
    """Cluster `count` generated vectors of 64 dimensions with the defaults, by stage."""
    from sklearn.metrics import adjusted_mutual_info_score

    from rules.mining.clusters import ClusterParameters, cluster_microrules
    from rules.mining.neighbours import nearest_neighbours, neighbour_graph
    from tests.mining.generated import generated_vectors

    vectors, truth = generated_vectors(count, topics=TOPICS)
    labels = ["even" if number % 2 else "odd" for number in range(count)]
    before_mib, load_before = resident_mib(), load()
    marks = [(time.monotonic(), time.process_time())]
    clustering = cluster_microrules(vectors, labels, ClusterParameters())
    marks.append((time.monotonic(), time.process_time()))
    peak = peak_mib()
    # The parts again, each alone: what the whole spends beyond them is choosing the resolution and the communities.
    neighbours = nearest_neighbours(vectors, ClusterParameters().neighbours)
    marks.append((time.monotonic(), time.process_time()))
    neighbour_graph(neighbours)
    marks.append((time.monotonic(), time.process_time()))
    whole, search, graph = ((end[0] - start[0], end[1] - start[1]) for start, end in pairwise(marks))
    return {
        "seconds_s": round(whole[0], 2),
        "cpu_s": round(whole[1], 2),
        "neighbours_cpu_s": round(search[1], 2),
        "graph_cpu_s": round(graph[1], 2),
        "rest_cpu_s": round(whole[1] - search[1] - graph[1], 2),
        "peak_rss_mib": peak,
        "rss_before_mib": before_mib,
        "load_1min": load_before[0],
        "topics": len(clustering.topic_sizes),
        "ami": round(float(adjusted_mutual_info_score(truth, clustering.topics)), 4),
        "covered_share": round(float((clustering.topics >= 0).mean()), 4),
    }


def plotted(found: Figures) -> str:
    """The figures of a run as an SVG: wall and processor seconds against the number of micro-rules."""
    sizes = [int(name.removeprefix("vectors_")) for name in found]
    rows = [value for value in found.values() if isinstance(value, dict)]
    series = [
        Series("wall", [float(row["seconds_s"]) for row in rows]),
        Series("processor", [float(row["cpu_s"]) for row in rows]),
    ]
    loads = ", ".join(str(row["load_1min"]) for row in rows)
    title = f"Seconds to cluster n micro-rules, 2 cores (load before each: {loads})"
    return log_log_svg(title, sizes, series, TARGETS)
