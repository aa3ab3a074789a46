"""A stage's calls shared by several workers on one endpoint: every item once, within the endpoint's limits."""

import math
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from pld_app.jobs import Lease, job_claim, job_execute
from pld_app.model_edge.limit_state import request_rate
from pld_app.models import EndpointKind, Job, JobState, ModelCall
from rules.models import Instruction, MicroRule, MiningPart, MiningRun, MiningStage, RunState, Task
from rules.services.mining import mining_run_cancel
from rules.services.mining_parts import JOB_KIND, _part_claim, _parts_open
from rules.services.mining_run import Part, RunContext
from tests.factories import make_endpoint, make_task, make_trace
from tests.mining_runs.divided import is_final, one_endpoint_task, started
from tests.mining_runs.test_stages import TOPICS, Teacher
from tests.stub_server import stub_server
from tests.workers import calls_logged, celery_worker, stub_process, wait_until


def worked_in_turn(run: MiningRun) -> list[str]:
    """Run the jobs of the run one after the other until it ends; the kinds in the order they ran."""
    ran: list[str] = []
    for _ in range(40):
        for job in Job.objects.filter(subject_id=run.pk, state=JobState.QUEUED).order_by("pk"):
            Job.objects.filter(pk=job.pk).update(run_after=job.created_at)
            job_execute(job_id=job.pk)
            ran.append(job.kind)
        run.refresh_from_db()
        if run.is_final:
            return ran
    raise AssertionError(f"{run} does not end: {run.stage}, {run.done} of {run.total}")


def rich_task(url: str, slug: str) -> Task:
    """Two calls of embedding at least, and several clusters to write."""
    teacher = make_endpoint(url, slug=f"teacher-{slug}")
    embedder = make_endpoint(url, slug=f"embedder-{slug}", kind=EndpointKind.EMBEDDING, model=f"embed-{slug}")
    task = make_task(slug, teacher=teacher, embedder=embedder)
    for topic, words in TOPICS.items():
        for n in range(50):
            label = ("Compliant", "Breach")[n % 3 == 0]
            make_trace(task, label=label, instruction=f"If {words} in case {n} of {topic}, then label {label}.")
    return task


@pytest.mark.django_db
def test_embedding_and_writing_are_divided_and_come_to_the_same() -> None:
    with stub_server(Teacher()) as stub:
        alone, shared = started(rich_task(stub.url, "alone")), started(rich_task(stub.url, "shared"), workers=3)
        assert worked_in_turn(alone) == ["mining_run"]
        ran = worked_in_turn(shared)
    assert (alone.state, shared.state) == (RunState.SUCCEEDED, RunState.SUCCEEDED)
    assert ran.count(JOB_KIND) >= 2
    parts = MiningPart.objects.filter(run=shared)
    assert Counter(parts.values_list("stage", flat=True)) == {MiningStage.EMBED: 3, MiningStage.SYNTHESIZE: 3}
    assert not parts.filter(finished_at=None).exists()
    assert parts.values("lease_token").distinct().count() >= 3
    assert not MiningPart.objects.filter(run=alone).exists()
    embedded = ModelCall.objects.filter(purpose="embed", endpoint__slug="embedder-shared")
    assert embedded.count() == embedded.values("request_hash").distinct().count() == 3
    texts = [
        sorted(Instruction.objects.filter(run=run).values_list("current_revision__text", flat=True))
        for run in (alone, shared)
    ]
    assert texts[0] == texts[1]


@pytest.mark.django_db
def test_a_cancelled_run_makes_no_call_in_any_part(ada: Any) -> None:
    with stub_server(Teacher()) as stub:
        run = started(one_endpoint_task(stub.url), workers=3)
        job = Job.objects.get(kind="mining_run", subject_id=run.pk)
        job_execute(job_id=job.pk)
        asked = len(stub.requests)
        assert asked == 4
        assert Job.objects.filter(kind=JOB_KIND, state=JobState.QUEUED).count() == 2
        mining_run_cancel(run_id=run.pk, user=ada)
        for helper in Job.objects.filter(kind=JOB_KIND):
            job_execute(job_id=helper.pk)
        assert len(stub.requests) == asked
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED


@pytest.mark.django_db
def test_a_part_is_held_only_as_long_as_its_worker_lives() -> None:
    run = started(one_endpoint_task("http://127.0.0.1:1/v1"), workers=2)
    first, second = opened(run), held_by_another_job(run)
    taken = _part_claim(first, is_helper=True)
    other = _part_claim(second, is_helper=True)
    assert taken is not None
    assert other is not None
    assert {taken.rest, other.rest} == {0, 1}
    assert _part_claim(first, is_helper=True) is None
    assert first.lease is not None
    Job.objects.filter(pk=first.lease.job_id).update(lease_until=run.created_at)
    again = _part_claim(second, is_helper=True)
    assert again is not None
    assert again.pk == taken.pk


@pytest.mark.django_db
def test_the_database_knows_each_part_once(task: Task) -> None:
    run = MiningRun.objects.create(task=task, number=1)
    part: dict[str, Any] = {"run": run, "stage": MiningStage.EXTRACT, "of": 2}
    MiningPart.objects.create(rest=0, **part)
    for rest in (0, 2):
        with pytest.raises(IntegrityError), transaction.atomic():
            MiningPart.objects.create(rest=rest, **part)


def opened(run: MiningRun) -> RunContext:
    """The run's own job at work on a stage of two parts."""
    MiningRun.objects.filter(pk=run.pk).update(state=RunState.RUNNING)
    run.refresh_from_db()
    claimed = job_claim(Job.objects.get(kind="mining_run", subject_id=run.pk).pk)
    assert claimed is not None
    context = RunContext(run, claimed[1])
    teacher = run.teacher
    assert teacher is not None
    _parts_open(context, [Part(teacher, 0, 2), Part(teacher, 1, 2)])
    return context


def held_by_another_job(run: MiningRun) -> RunContext:
    claimed = job_claim(Job.objects.get(kind=JOB_KIND, subject_id=run.pk).pk)
    assert claimed is not None
    return RunContext(run, claimed[1])


@pytest.mark.django_db(transaction=True)
def test_of_two_workers_at_once_each_takes_another_part() -> None:
    run = started(one_endpoint_task("http://127.0.0.1:1/v1", traces=4), workers=2)
    contexts = [opened(run), held_by_another_job(run)]
    for _ in range(20):
        MiningPart.objects.filter(run=run).update(lease_token=None)
        together = Barrier(2)
        taken: list[int] = []

        def take(context: RunContext, together: Barrier = together, taken: list[int] = taken) -> None:
            together.wait()
            row = _part_claim(context, is_helper=True)
            if row is not None:
                taken.append(row.rest)
            connection.close()

        threads = [Thread(target=take, args=(context,)) for context in contexts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(taken) == len(set(taken)) >= 1
    assert isinstance(contexts[0].lease, Lease)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("after", range(8))
def test_a_helper_that_claims_between_any_two_questions_leaves_the_other_part_to_the_runs_own_job(after: int) -> None:
    run = started(one_endpoint_task("http://127.0.0.1:1/v1", traces=4), workers=2)
    own, helper = opened(run), held_by_another_job(run)
    asked = 0

    def helper_claims() -> None:
        assert _part_claim(helper, is_helper=True) is not None
        connection.close()

    def helper_comes_in(execute: Any, *question: Any) -> Any:
        nonlocal asked
        answer = execute(*question)
        asked += 1
        if asked == after + 1:
            thread = Thread(target=helper_claims)
            thread.start()
            thread.join()
        return answer

    with connection.execute_wrapper(helper_comes_in):
        taken = _part_claim(own, is_helper=False)
    if asked <= after:
        helper_claims()
    assert taken is not None
    assert MiningPart.objects.exclude(lease_token=None).values("lease_token").distinct().count() == 2


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_two_worker_processes_on_one_endpoint_keep_its_limits_by_the_servers_own_log(tmp_path: Path) -> None:
    traces, concurrency, per_minute = 80, 4, 1200
    log = tmp_path / "calls.jsonl"
    with stub_process(log, latency_s=0.25) as url:
        task = one_endpoint_task(url, traces=traces, concurrency=concurrency, requests_per_minute=per_minute)
        with celery_worker(tmp_path / "a.log") as one, celery_worker(tmp_path / "b.log") as other:
            # Both are up before there is work: on a busy machine the first would have done both parts alone.
            wait_until(lambda: one.is_ready and other.is_ready, timeout_s=90, what="two workers")
            run = started(task, workers=2)
            wait_until(lambda: is_final(run), timeout_s=90, what="the run to end")
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.SUCCEEDED, "")
    assert MicroRule.objects.filter(run=run).exclude(text="").count() == traces
    calls = [call for call in calls_logged(log) if "Clause number" in str(call["body"])]
    assert len({str(call["body"]) for call in calls}) == len(calls) == traces
    assert max(call["in_flight"] for call in calls) == concurrency
    rate = request_rate(per_minute)
    assert rate is not None
    times = [call["time"] for call in calls]
    for place, start in enumerate(times):
        assert bisect_left(times, start + 1) - place <= math.ceil(rate.burst + rate.per_s * 1.1)
    extract = MiningPart.objects.filter(run=run, stage=MiningStage.EXTRACT)
    assert extract.values("lease_token").distinct().count() == 2
