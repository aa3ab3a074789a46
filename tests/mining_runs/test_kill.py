"""kill -9 in the middle of a run: it goes on elsewhere, and no recorded model call is made again."""

from collections import Counter
from pathlib import Path

import pytest

from pld_app import jobs
from pld_app.models import Job, ModelCall
from rules.models import Instruction, MicroRule, MiningRun, RunState
from rules.schemas import MiningParameters
from rules.services.mining import mining_run_create
from tests.factories import make_endpoint, make_task, make_trace
from tests.workers import calls_logged, celery_worker, stub_process, wait_until

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
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.SUCCEEDED, "")
    assert MicroRule.objects.filter(run=run).exclude(text="").count() == TRACES
    assert Instruction.objects.filter(run=run).exists()
    asked = Counter(str(call["body"]["messages"]) for call in calls_logged(calls))
    answers = ModelCall.objects.filter(outcome="ok")
    assert len(asked) == answers.count() == answers.values("request_hash").distinct().count()
    assert sum(asked.values()) - len(asked) <= CONCURRENCY
    assert Job.objects.get(kind="mining_run", subject_id=run.pk).state == "done"


def _swept_until_final(run: MiningRun) -> bool:
    jobs.jobs_sweep()
    return MiningRun.objects.get(pk=run.pk).is_final
