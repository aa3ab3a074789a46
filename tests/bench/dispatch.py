"""What it costs to make many model calls at once, beside a server that only waits: wall time over the ideal."""

import math
import time
from collections.abc import Callable, Iterator

from tests.bench.machine import Figures, say
from tests.bench.processes import stub_endpoint

ROUNDS = 3
# Calls, latency of the stub in seconds, calls at a time.
LOADS = ((200, 0.2, 16), (1000, 0.3, 32))
QUICK_LOADS = ((32, 0.05, 16),)


def measure(*, quick: bool) -> Figures:
    """Each load by the adapter alone, with the ledger, and as the extraction stage of a mining run; best of three."""
    return {
        f"calls_{calls}_latency_{round(latency_s * 1000)}ms_concurrency_{concurrency}": _load(
            calls, latency_s, concurrency
        )
        for calls, latency_s, concurrency in (QUICK_LOADS if quick else LOADS)
    }


def _load(calls: int, latency_s: float, concurrency: int) -> Figures:
    ideal = math.ceil(calls / concurrency) * latency_s
    say(f"  {calls} calls of {latency_s} s, {concurrency} at a time: ideal {ideal:.1f} s, {ROUNDS} rounds each way")
    ways = {"dispatch": _by_dispatch, "ledger": _by_ledger, "extraction": _by_extraction}
    with stub_endpoint(latency_s) as url:
        found = {name: _best(make(url, concurrency, calls), calls, ideal) for name, make in ways.items()}
    return {"ideal_s": ideal, **found}


def _best(answer: Callable[[int, int], int], calls: int, ideal: float) -> Figures:
    """Other work on the machine can only add time, so the best round says most."""
    rounds = []
    for number in range(ROUNDS):
        started = time.monotonic()
        answered = answer(number, calls)
        rounds.append(time.monotonic() - started)
        assert answered == calls
    return {
        "wall_best_s": round(min(rounds), 3),
        "rounds_s": [round(one, 3) for one in rounds],
        "over_ideal_ratio": round(min(rounds) / ideal, 3),
        "over_ideal_ms": round((min(rounds) - ideal) * 1000),
    }


def _texts(number: int, calls: int) -> Iterator[tuple[str, str]]:
    for call in range(calls):
        yield f"t-{number}-{call}", "A clause of some length. " * 40


def _by_dispatch(url: str, concurrency: int, calls: int) -> Callable[[int, int], int]:
    from pld_app.model_edge import calls_stream
    from tests.model_edge.harness import chat, endpoint, never

    config = endpoint(url, concurrency=concurrency, timeout_s=10)

    def answer(number: int, calls: int) -> int:
        requests = [chat(key, schema=True, text=text) for key, text in _texts(number, calls)]
        return sum(reply.ok for reply in calls_stream(config, requests, should_stop=never))

    return answer


def _by_extraction(url: str, concurrency: int, calls: int) -> Callable[[int, int], int]:
    from pld_app.jobs import job_claim
    from pld_app.models import Job
    from rules.models import MicroRuleOrigin
    from rules.schemas import MiningParameters
    from rules.services.mining import JOB_KIND, mining_run_create
    from rules.services.mining_parts import extraction_work
    from rules.services.mining_run import RunContext
    from tests.factories import make_endpoint, make_task, make_trace

    teacher = make_endpoint(url, slug=f"teacher-{concurrency}", concurrency=concurrency)
    runs = []
    for number in range(ROUNDS):
        task = make_task(f"round-{concurrency}-{number}", teacher=teacher)
        for key, text in _texts(number, calls):
            make_trace(task, instruction="", input={"clause": f"{key} {text}", "question": "May copies be kept?"})
        runs.append(mining_run_create(task=task, user=None, parameters=MiningParameters()))

    def answer(number: int, calls: int) -> int:
        run = runs[number]
        claimed = job_claim(Job.objects.get(kind=JOB_KIND, subject_id=run.pk).pk)
        assert claimed is not None
        extraction_work(RunContext(run, claimed[1]))
        return run.micro_rules.filter(origin=MicroRuleOrigin.TEACHER).count()

    return answer


def _by_ledger(url: str, concurrency: int, calls: int) -> Callable[[int, int], int]:
    from pld_app.model_edge.ledger import recorded_calls
    from tests.factories import make_endpoint
    from tests.model_edge.harness import chat, never

    row = make_endpoint(url, slug=f"stub-{concurrency}", concurrency=concurrency)

    def answer(number: int, calls: int) -> int:
        requests = (chat(key, schema=True, text=text) for key, text in _texts(number, calls))
        scope = f"bench {number}"
        made = list(recorded_calls(row, requests, scope=scope, should_stop=never))
        assert not any(call.reused for call in made)
        return sum(call.ok for call in made)

    return answer
