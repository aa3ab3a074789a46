"""What it costs to evaluate: wall time over the ideal, and memory as the number of examples grows."""

import math
import time

from tests.bench.machine import Figures, load, peak_mib, resident_mib, say
from tests.bench.processes import in_own_process, stub_endpoint

ROUNDS = 3
# Examples, latency of the stub in seconds, calls at a time.
LOAD = (2_000, 0.25, 32)
QUICK_LOAD = (64, 0.05, 16)
GROWTH = (500, 5_000)
QUICK_GROWTH = (50, 100)


def measure(*, quick: bool) -> Figures:
    """Zero-shot runs through their job, each in a process of its own; the best of three rounds, all listed."""
    examples, latency_s, concurrency = QUICK_LOAD if quick else LOAD
    ideal = math.ceil(examples / concurrency) * latency_s
    say(f"  {examples} examples of {latency_s} s, {concurrency} at a time: ideal {ideal:.1f} s, {ROUNDS} rounds")
    rounds = []
    with stub_endpoint(latency_s) as url:
        for number in range(ROUNDS):
            one = in_own_process(
                "tests.bench.evaluation:evaluated",
                slug=f"round-{number}",
                url=url,
                examples=examples,
                concurrency=concurrency,
            )
            rounds.append(one)
            say(f"  {one}")
    best = min(float(str(one["seconds_s"])) for one in rounds)
    found: Figures = {
        "ideal_s": ideal,
        "wall_best_s": best,
        "over_ideal_ratio": round(best / ideal, 3),
        "rounds": rounds,
    }
    with stub_endpoint(0) as url:
        for count in QUICK_GROWTH if quick else GROWTH:
            found[f"examples_{count}_latency_0ms"] = in_own_process(
                "tests.bench.evaluation:evaluated", slug=f"n-{count}", url=url, examples=count, concurrency=concurrency
            )
    return found


def evaluated(*, slug: str, url: str, examples: int, concurrency: int) -> Figures:
    """One run; what is timed is its job alone, from the first question to the figures."""
    from evaluation.models import PromptKind
    from evaluation.services.execution import JOB_KIND
    from evaluation.services.runs import evaluation_run_create
    from rules.models import RunState, Split, Trace
    from tests.bench.loading import job_finish
    from tests.factories import make_endpoint, make_task

    task = make_task(slug)
    clause = "A clause of some length. " * 40
    Trace.objects.bulk_create(
        Trace(
            task=task,
            external_id=f"t-{number}",
            input={"clause": f"{number} {clause}", "question": "May copies be kept?"},
            label=task.labels[number % 3],
            split=Split.VALIDATION,
            content_hash=f"{number:064d}",
        )
        for number in range(examples)
    )
    endpoint = make_endpoint(url, slug=f"{slug}-student", concurrency=concurrency)
    run = evaluation_run_create(
        task=task, user=None, kind=PromptKind.ZERO_SHOT, split=Split.VALIDATION, student=endpoint
    )
    before = resident_mib()
    started, cpu = time.monotonic(), time.process_time()
    job_finish(JOB_KIND, run.pk)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED, run.error
    assert run.done == examples
    return {
        "seconds_s": round(seconds, 3),
        "cpu_s": round(cpu, 2),
        "peak_rss_mib": peak_mib(),
        "rss_before_mib": before,
        "load": load()[0],
    }
