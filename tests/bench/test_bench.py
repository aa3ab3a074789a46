"""The parts a figure rests on, and that every benchmark still runs."""

import json
import os
import subprocess
import sys
from collections import Counter
from xml.etree import ElementTree

import pytest

from pld_app.devstack import paths
from tests.bench.__main__ import NAMES
from tests.bench.generator import generated_lines
from tests.bench.machine import peak_mib, percentile, resident_mib
from tests.bench.mining_scale import clustered, plotted
from tests.bench.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, Target, log_log_svg
from tests.workers import database_url


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 95), percentile(values, 100)) == (50, 95, 100)
    assert percentile([7.0], 95) == 7


def test_peak_memory_keeps_what_was_given_back() -> None:
    block = b"x" * 50_000_000
    with_block = resident_mib()
    del block
    assert peak_mib() >= with_block - 1


def test_generated_traces_are_the_same_each_time_and_fall_into_their_topics() -> None:
    lines = list(generated_lines(600, topics=20))
    assert lines == list(generated_lines(600, topics=20))
    rows = [json.loads(line) for line in lines]
    sizes = Counter(row["metadata"]["yardstick"] for row in rows)
    assert len({row["id"] for row in rows}) == 600
    assert len(sizes) == 20
    assert sizes["topic 0"] > sizes["topic 19"]


# In parts, which test processes can share among them.
PARTS = (
    ("mining", "prompt_api", "dispatch"),
    ("review", "two_workers", "trace_import"),
    ("evaluation", "pipeline", "audit"),
)


def test_the_parts_are_all_there_is() -> None:
    assert sorted(name for part in PARTS for name in part) == sorted(NAMES)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("names", PARTS, ids="-".join)
def test_benchmarks_run_in_small_and_print_one_json_object(names: tuple[str, ...]) -> None:
    environment = os.environ | {"DATABASE_URL": database_url()}
    command = [sys.executable, "-m", "tests.bench", *names, "--quick"]
    done = subprocess.run(command, cwd=paths.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    benches = json.loads(done.stdout)["benches"]
    assert tuple(benches) == names
    assert all(len(bench["load_before"]) == len(bench["load_after"]) == 3 for bench in benches.values())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    command = [sys.executable, "-m", "tests.bench", "speed"]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "choose of mining, review" in done.stderr


def test_a_plot_puts_a_power_of_ten_on_each_grid_line_and_tells_its_numbers() -> None:
    svg = log_log_svg("Seconds", [1_000, 10_000], [Series("wall", [1.0, 10.0])], [Target(10_000, 100)])
    drawing = ElementTree.fromstring(svg)  # noqa: S314  # our own text
    name = "{http://www.w3.org/2000/svg}"
    first, last = ((float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in drawing.iter(f"{name}circle"))
    assert (first, last) == ((LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, (TOP + HEIGHT - BOTTOM) / 2))
    assert drawing.findtext(f"{name}desc") == "wall: 1,000: 1.0 s, 10,000: 10.0 s"


def test_clustering_at_scale_is_measured_against_its_known_topics() -> None:
    found = clustered(count=1_500)
    assert found["covered_share"] == 1
    assert float(str(found["ami"])) > 0.9
    assert float(str(found["cpu_s"])) > 0
    assert "<svg" in plotted({"vectors_1500": found})
