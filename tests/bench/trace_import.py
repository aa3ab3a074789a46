"""Importing generated traces through upload and job: rows a second."""

import time

from tests.bench import generator
from tests.bench.machine import Figures, peak_mib


def measure(*, quick: bool) -> Figures:
    """Import once; then the same file again, whose rows are all known."""
    from tests.bench.loading import import_lines
    from tests.factories import make_task

    count = 1_000 if quick else 20_000
    task = make_task("import", **generator.TASK_FIELDS)
    lines = list(generator.generated_lines(count))
    started, started_cpu = time.monotonic(), time.process_time()
    first = import_lines(task, lines)
    between, cpu = time.monotonic(), time.process_time() - started_cpu
    again = import_lines(task, lines)
    ended = time.monotonic()
    assert (first.rows_new, again.rows_unchanged) == (count, count)
    return {
        "rows": count,
        "file_mib": round(first.file_bytes / 2**20, 1),
        "seconds_s": round(between - started, 2),
        "cpu_s": round(cpu, 2),
        "rows_per_s": round(count / (between - started)),
        "again_seconds_s": round(ended - between, 2),
        "again_rows_per_s": round(count / (ended - between)),
        "peak_rss_mib": peak_mib(),
    }
