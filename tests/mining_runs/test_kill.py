"""kill -9 in the middle of a run: it goes on elsewhere, and no recorded model call is made again."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from django.utils import timezone

from pld_app import jobs
from pld_app.models import Job, JobState, ModelCall
from rules.models import Instruction, MicroRule, MiningRun, RunState
from rules.schemas import MiningParameters
from rules.services.mining import mining_run_create
from tests.factories import make_endpoint, make_task, make_trace
from tests.workers import calls_logged, celery_worker, process_environment, stub_process, wait_until

CONCURRENCY = 4
TRACES = 60


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_killed_worker_costs_at_most_the_calls_in_flight(tmp_path: Path) -> None:
    calls, worker_log = tmp_path / "calls.jsonl", tmp_path / "worker.log"
    with stub_process(calls, latency_s=0.08) as url:
        task = make_task(teacher=make_endpoint(url, concurrency=CONCURRENCY))
        for n in range(TRACES):
            make_trace(task, instruction="", input={"clause": f"Clause number {n} on copies.", "question": "Copies?"})
        run = mining_run_create(task=task, user=None, parameters=MiningParameters())
        with celery_worker(worker_log) as first:
            wait_until(lambda: len(calls_logged(calls)) >= TRACES // 3, what="a third of the calls")
            first.kill()
        recorded = set(ModelCall.objects.filter(outcome="ok").values_list("request_hash", flat=True))
        assert 0 < len(recorded) < TRACES
        assert MiningRun.objects.get(pk=run.pk).state == RunState.RUNNING
        with celery_worker(worker_log):
            wait_until(lambda: _swept_until_final(run), timeout_s=60, what="the run to end")
            # The worker says so right after the run's own last write.
            done = Job.objects.filter(kind="mining_run", subject_id=run.pk, state=JobState.DONE)
            wait_until(done.exists, what="the job to be done")
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.SUCCEEDED, "")
    assert MicroRule.objects.filter(run=run).exclude(text="").count() == TRACES
    assert Instruction.objects.filter(run=run).exists()
    asked = Counter(str(call["body"]["messages"]) for call in calls_logged(calls))
    answers = ModelCall.objects.filter(outcome="ok")
    assert len(asked) == answers.count() == answers.values("request_hash").distinct().count()
    assert sum(asked.values()) - len(asked) <= CONCURRENCY
    assert Job.objects.get(kind="mining_run", subject_id=run.pk).state == "done"


def _more_calls(log: Path, than: int) -> bool:
    return len(calls_logged(log)) > than


def _swept_until_final(run: MiningRun) -> bool:
    jobs.jobs_sweep()
    return MiningRun.objects.get(pk=run.pk).is_final


TEN_KILLS_TRACES = 300
KILLS = 10


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_ten_kills_at_random_moments_cost_at_most_the_calls_in_flight_each(tmp_path: Path) -> None:
    calls = tmp_path / "calls.jsonl"
    choose = random.Random(11)
    with stub_process(calls, latency_s=0.05) as url:
        # At most 20 calls a second, so that the run lasts longer than ten lives of a worker.
        teacher = make_endpoint(url, concurrency=CONCURRENCY, requests_per_minute=1200)
        task = make_task(teacher=teacher)
        for n in range(TEN_KILLS_TRACES):
            make_trace(task, instruction="", input={"clause": f"Clause number {n} on copies.", "question": "Copies?"})
        run = mining_run_create(task=task, user=None, parameters=MiningParameters())
        recorded: list[set[str]] = []
        for _ in range(KILLS):
            before = len(calls_logged(calls))
            with job_worker(run) as worker:
                wait_until(partial(_more_calls, calls, before), what="a call")
                time.sleep(choose.uniform(0.0, 0.8))
                worker.kill()
                worker.wait()
            recorded.append(set(ModelCall.objects.filter(outcome="ok").values_list("request_hash", flat=True)))
            Job.objects.filter(subject_id=run.pk, state="running").update(lease_until=timezone.now())
        assert MiningRun.objects.get(pk=run.pk).state == RunState.RUNNING
        with job_worker(run) as worker:
            worker.wait(timeout=60)
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.SUCCEEDED, "")
    assert MicroRule.objects.filter(run=run).exclude(text="").count() == TEN_KILLS_TRACES
    asked = Counter(str(call["body"]["messages"]) for call in calls_logged(calls))
    answers = ModelCall.objects.filter(outcome="ok")
    assert len(asked) == answers.count() == answers.values("request_hash").distinct().count()
    repeats = sum(asked.values()) - len(asked)
    print(f"{repeats} calls repeated after {KILLS} kills; recorded at each kill: {[len(one) for one in recorded]}")  # noqa: T201
    assert repeats <= KILLS * CONCURRENCY
    assert all(earlier <= later for earlier, later in pairwise(recorded))
    assert 0 < len(recorded[0]) < len(recorded[-1]) < TEN_KILLS_TRACES


@contextmanager
def job_worker(
    run: MiningRun, *, kind: str = "mining_run", subject: int | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that carries the run's job on (or another one); ended with the block."""
    job = Job.objects.get(kind=kind, subject_id=subject or run.pk)
    command = [sys.executable, "-m", "tests.evaluation.job_worker", str(job.pk)]
    with subprocess.Popen(command, env=process_environment(), stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()
