"""Extraction by two real workers at two endpoints, against one worker at one: the ratio of the seconds it takes."""

import tempfile
from pathlib import Path

from tests.bench.machine import Figures, say


def measure(*, quick: bool) -> Figures:
    """Seconds from the first recorded answer to the last, alone and together, in one run after the other."""
    from tests.mining_runs.divided import divided_task, started
    from tests.workers import celery_worker, stub_process

    traces, latency_s, concurrency = (24, 0.1, 4) if quick else (144, 0.5, 4)
    say(f"  {traces} calls of {latency_s} s, {concurrency} at a time and endpoint")
    folder = Path(tempfile.mkdtemp(prefix="pld-bench-"))
    with (
        stub_process(folder / "one.jsonl", latency_s=latency_s) as one,
        stub_process(folder / "two.jsonl", latency_s=latency_s) as two,
        celery_worker(folder / "first.log"),
        celery_worker(folder / "second.log"),
    ):
        task = divided_task(one, two, traces=traces, concurrency=concurrency)
        second, task.second_teacher = task.second_teacher, None
        task.save()
        alone = _extraction_s(started(task), traces)
        # Another question to each trace, so that nothing is in the ledger.
        task.preamble, task.second_teacher = "Read the clause again.", second
        task.save()
        together = _extraction_s(started(task), traces)
    return {
        "alone_s": round(alone, 3),
        "together_s": round(together, 3),
        "ratio": round(together / alone, 3),
        "one_endpoint": _one_endpoint(quick=quick),
    }


def _one_endpoint(*, quick: bool) -> Figures:
    """Two workers who share the calls to one endpoint, over one worker: what keeping its limits together costs."""
    from rules.schemas import MiningParameters
    from rules.services.mining import mining_run_create
    from tests.mining_runs.divided import one_endpoint_task
    from tests.workers import calls_logged, celery_worker, stub_process

    traces, latency_s, concurrency = (64, 0.1, 8) if quick else (640, 0.3, 32)
    say(f"  one endpoint: {traces} calls of {latency_s} s, {concurrency} at a time")
    folder = Path(tempfile.mkdtemp(prefix="pld-bench-"))
    found: dict[str, object] = {}
    with (
        stub_process(folder / "calls.jsonl", latency_s=latency_s) as url,
        celery_worker(folder / "first.log"),
        celery_worker(folder / "second.log"),
    ):
        task = one_endpoint_task(url, slug="one-endpoint", traces=traces, concurrency=concurrency)
        for workers, name in ((1, "alone_s"), (2, "together_s")):
            task.preamble = f"Read the clause, round {workers}."
            task.save()
            run = mining_run_create(task=task, user=None, parameters=MiningParameters(workers=workers))
            found[name] = round(_extraction_s(run, traces), 3)
        found["most_at_a_time"] = max(call["in_flight"] for call in calls_logged(folder / "calls.jsonl"))
    found["ratio"] = round(float(str(found["together_s"])) / float(str(found["alone_s"])), 3)
    return found


def _extraction_s(run: object, traces: int) -> float:
    from pld_app.models import ModelCall
    from rules.models import MiningRun
    from tests.mining_runs.divided import is_final
    from tests.workers import wait_until

    assert isinstance(run, MiningRun)
    wait_until(lambda: is_final(run), timeout_s=180, what="the run to end")
    times = list(ModelCall.objects.filter(purpose="extract", run=str(run)).order_by("at").values_list("at", flat=True))
    assert len(times) == traces
    return (times[-1] - times[0]).total_seconds()
