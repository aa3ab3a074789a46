"""A whole mining run through its job, and clustering alone: seconds, and the peak memory of the process that did it."""

import json
import random
import time
from collections.abc import Iterator

from tests.bench import generator, mining_scale
from tests.bench.machine import Figures, peak_mib, resident_mib, say
from tests.bench.processes import in_own_process

REAL_TRACES = 1037


def measure(*, quick: bool) -> Figures:
    """Runs over the real traces and over generated ones; each in a process that does nothing else."""
    large = 500 if quick else 20_000
    found: Figures = {}
    for name, source, count in (("real", "real", REAL_TRACES), ("large", "generated", large)):
        say(f"  importing {count} traces")
        imported = in_own_process("tests.bench.mining:imported", slug=name, source=source, count=count)
        say(f"  mining {count} traces")
        mined = in_own_process("tests.bench.mining:mined", slug=name)
        found[f"traces_{count}"] = imported | mined
    return found | mining_scale.measure(quick=quick)


def imported(*, slug: str, source: str, count: int) -> Figures:
    """Make a task and import its traces; not part of what is timed. Returns where they come from."""
    from tests.bench.loading import import_lines
    from tests.converters import contractnli
    from tests.factories import make_task

    real = contractnli.DATA / "traces.jsonl"
    if source == "generated":
        said = f"generated ({generator.__name__})"
        task = make_task(slug, **generator.TASK_FIELDS)
        import_lines(task, generator.generated_lines(count))
    elif real.exists():
        said = "Contract-NLI"
        task = make_task(slug, **contractnli.TASK_FIELDS)
        import_lines(task, contractnli.converted_lines(real, split="train"))
    else:
        said = "bundled sample, repeated with a word left out"
        task = make_task(slug)
        import_lines(task, _sample_lines(count))
    assert task.traces.count() == count
    return {"source": said}


def _sample_lines(count: int) -> Iterator[bytes]:
    """The bundled train traces again and again; each repetition leaves one word out of the instruction."""
    from django.conf import settings

    path = settings.BASE_DIR / "rules" / "sample" / "traces.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["split"] == "train"]
    choose = random.Random(1)
    for number in range(count):
        row = rows[number % len(rows)]
        words = row["instruction"].split(" ")
        if number >= len(rows):
            del words[choose.randrange(1, len(words) - 3)]
        yield json.dumps(row | {"id": f"{row['id']}-{number}", "instruction": " ".join(words)}).encode() + b"\n"


def mined(*, slug: str) -> Figures:
    """Mine the task's traces with the defaults; figures of time, memory and what was found."""
    from rules.models import RunState, Task
    from rules.schemas import MiningParameters
    from rules.selectors.mining import mining_report
    from rules.services.mining import JOB_KIND, mining_run_create
    from tests.bench.loading import job_finish

    before_mib = resident_mib()
    started, started_cpu = time.monotonic(), time.process_time()
    run = mining_run_create(task=Task.objects.get(slug=slug), user=None, parameters=MiningParameters())
    job_finish(JOB_KIND, run.pk)
    seconds, cpu = time.monotonic() - started, time.process_time() - started_cpu
    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED, run.error
    report = mining_report(run)
    names = ("rows", "topics", "clusters", "candidates", "ami_yardstick", "covered_share", "biggest_topic_share")
    return {
        "seconds_s": round(seconds, 2),
        "cpu_s": round(cpu, 2),
        "peak_rss_mib": peak_mib(),
        "rss_before_mib": before_mib,
        **{name: report[name] for name in names},
    }
