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
    return {"alone_s": round(alone, 3), "together_s": round(together, 3), "ratio": round(together / alone, 3)}


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
