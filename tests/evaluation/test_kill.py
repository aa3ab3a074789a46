"""A worker killed with -9 in the middle of an evaluation: the next one goes on, and no recorded call is made again."""

import json
import random
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from django.utils import timezone

from evaluation.models import AblationResult, PromptKind
from evaluation.schemas import RunFigures
from evaluation.services.ablation_execution import JOB_KIND as ABLATION_JOB
from evaluation.services.ablations import AblationChoice, ablation_create
from pld_app.models import Job, JobState, ModelCall, User
from rules.models import InstructionImpact, RunState, Task
from tests.evaluation.scene import examples, finished_directly, job_of, make_run, student
from tests.factories import audit_actions
from tests.publishing import steps
from tests.workers import calls_logged, process_environment, stub_process, wait_until

COUNT, CONCURRENCY = 120, 6


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_kill_9_repeats_no_recorded_call_and_the_run_ends_as_if_nothing_had_happened(
    task: Task, tmp_path: Path
) -> None:
    log = tmp_path / "calls.jsonl"
    examples(task, COUNT)
    with stub_process(log, latency_s=0.08) as url:
        student(url, task, concurrency=CONCURRENCY)
        run = make_run(task)
        job = job_of(run)
        recorded: list[set[str]] = []
        for _ in range(3):
            worker = _worker(job)
            # One more than fit at once: by then the first answer is recorded.
            seen, more = len(_asked(log)), random.randint(CONCURRENCY + 2, 25)
            wait_until(partial(_has_asked, log, seen + more), timeout_s=60, what="the next calls")
            worker.kill()
            assert worker.wait() != 0
            recorded.append(set(ModelCall.objects.filter(outcome="ok").values_list("subject", flat=True)))
            _lease_lapses(job)
        last = _worker(job)
        assert last.wait(timeout=60) == 0
        # A late duplicate of the first hint finds the job done.
        assert _worker(job).wait(timeout=60) == 0
        asked = Counter(_asked(log))
    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED
    assert run.predictions.count() == run.done == len(asked) == COUNT
    assert ModelCall.objects.filter(outcome="ok").count() == COUNT
    assert sum(asked.values()) - COUNT <= 3 * CONCURRENCY
    assert all(len(before) < len(after) for before, after in pairwise(recorded))
    clauses = dict(run.predictions.values_list("example_id", "example__input__clause"))
    assert {asked[clauses[int(subject)]] for subject in recorded[0]} == {1}, "the first worker's answers stand"
    assert RunFigures.model_validate(run.figures).n == COUNT
    assert audit_actions(run) == ["evaluation.started", "evaluation.finished"]


def _has_asked(log: Path, count: int) -> bool:
    return len(calls_logged(log)) >= count


def _asked(log: Path) -> list[str]:
    """The clauses the server was asked about, in order."""
    return [json.loads(call["body"]["messages"][-1]["content"])["clause"] for call in calls_logged(log)]


def _lease_lapses(job: Job) -> None:
    """What half a minute does: nobody renews the dead worker's lease."""
    held = Job.objects.filter(pk=job.pk, state=JobState.RUNNING)
    assert held.update(lease_until=timezone.now() - timedelta(seconds=1)) == 1


def _worker(job: Job) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.evaluation.job_worker", str(job.pk)]
    return subprocess.Popen(command, env=process_environment())


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_kill_9_in_an_ablation_repeats_at_most_the_calls_in_flight(task: Task, ana: User, tmp_path: Path) -> None:
    log, count = tmp_path / "calls.jsonl", 30
    examples(task, count)
    with stub_process(log, latency_s=0.08) as url:
        student(url, task, concurrency=CONCURRENCY)
        run = finished_directly(make_run(task, kind=PromptKind.DRAFT, ruleset=steps.draft(task, ana)))
        choice = AblationChoice(max_calls=1_000)
        ablation = ablation_create(run=run, user=None, choice=choice, confirmed=None)
        job = Job.objects.get(kind=ABLATION_JOB)
        for _ in range(2):
            worker = _worker(job)
            seen, more = len(calls_logged(log)), random.randint(CONCURRENCY + 2, 25)
            wait_until(partial(_has_asked, log, seen + more), timeout_s=60, what="the next calls")
            worker.kill()
            assert worker.wait() != 0
            _lease_lapses(job)
        assert _worker(job).wait(timeout=60) == 0
        asked = Counter(json.dumps(call["body"]["messages"]) for call in calls_logged(log))
    ablation.refresh_from_db()
    assert ablation.state == RunState.SUCCEEDED
    assert len(asked) == 3 * count == ModelCall.objects.filter(outcome="ok").count()
    assert sum(asked.values()) - 3 * count <= 2 * CONCURRENCY
    assert AblationResult.objects.count() == InstructionImpact.objects.count() == 3
    assert audit_actions(ablation) == ["ablation.started", "ablation.finished"]
