"""Extraction by OpenAI's Batch API: paid once, recorded like direct calls, and nothing lost when it goes wrong."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import Sum
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from pld_app.jobs import job_execute
from pld_app.models import BatchState, Job, JobState, ModelBatch, ModelBatchItem, ModelCall, User
from rules.models import MicroRule, MicroRuleOrigin, MiningRun, RunState, Task
from rules.schemas import MiningParameters, RunEstimate
from rules.services.mining import mining_run_cancel, mining_run_create, mining_run_release
from rules.services.mining_batches import JOB_KIND
from tests.factories import audit_actions, make_endpoint
from tests.mining_runs.divided import one_endpoint_task, started
from tests.mining_runs.test_kill import job_worker
from tests.mining_runs.test_stages import Teacher
from tests.stub_server import StubServer, stub_server
from tests.workers import calls_logged, stub_process, wait_until

TRACES = 12
PRICES: dict[str, Any] = {"price_in": Decimal(20), "price_out": Decimal(100)}
DIRECT = Decimal("0.004")  # the stub's 100 and 20 tokens at these prices


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with stub_server(Teacher()) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(settings: Any) -> None:
    settings.BATCH_POLL_S = 0


def batch_task(url: str, **endpoint: Any) -> Task:
    values: dict[str, Any] = {"batch_api": True, "batch_price_percent": 50, "max_output_tokens": 100, **PRICES}
    return one_endpoint_task(url, traces=TRACES, **(values | endpoint))


def worked(run: MiningRun, *, rounds: int = 30) -> MiningRun:
    """Run whatever is queued, as if all waiting were over, until the run rests and its batches too."""
    for _ in range(rounds):
        queued = list(Job.objects.filter(state=JobState.QUEUED).order_by("pk").values_list("pk", flat=True))
        if not queued:
            break
        for pk in queued:
            Job.objects.filter(pk=pk).update(run_after=timezone.now())
            job_execute(job_id=pk)
    run.refresh_from_db()
    return run


def direct_calls(stub: StubServer) -> int:
    """Questions of extraction that came by themselves; those of a batch have no headers."""
    return sum(bool(one.headers) and "correct_label" in one.text for one in stub.requests)


def of_run(run: MiningRun) -> ModelBatch:
    return ModelBatch.objects.get(owner_id=run.pk)


@pytest.mark.django_db
def test_a_batch_is_recorded_like_direct_calls_at_its_own_price_and_a_repeat_is_free(stub: StubServer) -> None:
    run = started(task := batch_task(stub.url), batch=True)
    assert worked(run).state == RunState.SUCCEEDED, run.error
    calls = ModelCall.objects.filter(purpose="extract")
    assert (calls.count(), direct_calls(stub), stub.batches.created) == (TRACES, 0, 1)
    assert set(calls.values_list("cost", flat=True)) == {DIRECT / 2}
    assert run.micro_rules.filter(origin=MicroRuleOrigin.TEACHER).count() == TRACES
    batch = of_run(run)
    assert (batch.state, batch.answered, batch.failed, batch.spent) == (
        BatchState.COLLECTED,
        TRACES,
        0,
        TRACES * DIRECT / 2,
    )
    spent = ModelCall.objects.filter(run=str(run)).aggregate(sum=Sum("cost"))["sum"]
    assert (run.cost_used, run.calls_used) == (spent, ModelCall.objects.filter(run=str(run)).count())
    assert stub.batches.files == {}
    assert audit_actions(run).count("mining.batch_planned") == audit_actions(run).count("mining.batch_ended") == 1
    asked = len(stub.requests)
    again = worked(started(task))
    assert again.state == RunState.SUCCEEDED
    assert (len(stub.requests), stub.batches.created) == (asked, 1)


@pytest.mark.django_db
def test_no_worker_is_held_while_the_provider_works_and_progress_shows(
    stub: StubServer, client_of: Callable[[User], Client], ada: User
) -> None:
    stub.batches.looks = 3
    run = started(batch_task(stub.url), batch=True)
    job_execute(job_id=Job.objects.get(kind="mining_run").pk)
    own, of_batch = Job.objects.get(kind="mining_run"), Job.objects.get(kind=JOB_KIND)
    assert (own.state, own.run_after > timezone.now()) == (JobState.QUEUED, True)
    assert f"0 of {TRACES}" in own.last_error
    job_execute(job_id=of_batch.pk)
    of_batch.refresh_from_db()
    assert of_batch.state == JobState.QUEUED
    page = client_of(ada).get(reverse("mining-detail", args=["nda", run.pk])).content.decode()
    assert "in_progress" in page
    assert of_run(run).batch_id in page
    assert worked(run).state == RunState.SUCCEEDED


@pytest.mark.django_db
def test_the_whole_batch_is_set_aside_before_it_is_sent(stub: StubServer, ada: User) -> None:
    task = batch_task(stub.url)
    run = mining_run_create(task=task, user=ada, parameters=MiningParameters(batch=True))
    extract = RunEstimate.model_validate(run.estimate).stages[0]
    assert (extract.is_batch, extract.cost * 2, extract.direct_cost) == (True, extract.direct_cost, extract.direct_cost)
    mining_run_release(run_id=run.pk, user=ada, max_calls=TRACES - 1, max_cost=None)
    assert worked(run).state == RunState.PAUSED
    assert f"a batch of {TRACES}" in run.error
    assert (stub.batches.asked, run.calls_used) == ([], 0)
    mining_run_release(run_id=run.pk, user=ada, max_calls=None, max_cost=extract.cost)
    job_execute(job_id=Job.objects.filter(kind="mining_run").latest("pk").pk)
    run.refresh_from_db()
    assert (run.calls_used, run.cost_used) == (TRACES, extract.cost)


@pytest.mark.django_db
@pytest.mark.parametrize("ending", ["expired", "failed", "cancelled"])
def test_what_a_batch_left_unanswered_is_asked_directly(stub: StubServer, ending: str) -> None:
    stub.batches.ending = ending
    run = worked(started(batch_task(stub.url), batch=True))
    assert run.state == RunState.SUCCEEDED
    assert of_run(run).error
    assert direct_calls(stub) == (TRACES if ending == "failed" else TRACES // 2)
    calls = ModelCall.objects.filter(purpose="extract")
    assert calls.count() == calls.values("request_hash").distinct().count() == TRACES
    assert run.cost_used == ModelCall.objects.filter(run=str(run)).aggregate(sum=Sum("cost"))["sum"]


@pytest.mark.django_db
def test_a_batch_the_provider_will_not_start_is_asked_directly_too(stub: StubServer) -> None:
    stub.batches.refuse_create = "Batches are not available for this model."
    run = worked(started(batch_task(stub.url), batch=True))
    assert (run.state, direct_calls(stub)) == (RunState.SUCCEEDED, TRACES)
    assert "not available for this model" in of_run(run).error


@pytest.mark.django_db
def test_answers_in_vain_are_listed_with_their_reason_and_not_paid_again() -> None:
    bad = {"number 1 ": "400", "number 2 ": "length", "number 3 ": "500"}

    def some_bad(request: Any) -> Any:
        found = next((name for words, name in bad.items() if words in request.text and not request.headers), None)
        return found or Teacher()(request)

    with stub_server(some_bad) as stub:
        run = worked(started(batch_task(stub.url), batch=True))
        assert (run.state, direct_calls(stub)) == (RunState.SUCCEEDED, 1)
    lost = MicroRule.objects.filter(run=run, origin=MicroRuleOrigin.FAILED)
    assert Counter(rule.call.outcome for rule in lost if rule.call) == {"http_error": 1, "length": 1}
    assert all(rule.error for rule in lost)


@pytest.mark.django_db
def test_large_runs_go_in_several_batches(stub: StubServer, settings: Any) -> None:
    settings.BATCH_MAX_REQUESTS = 5
    run = worked(started(batch_task(stub.url), batch=True))
    assert run.state == RunState.SUCCEEDED
    sizes = list(ModelBatch.objects.filter(owner_id=run.pk).order_by("pk").values_list("requests", flat=True))
    assert sizes == [5, 5, 2]
    one = len(stub.requests)
    settings.BATCH_MAX_BYTES = 1
    task = run.task
    task.preamble = "Another question."
    task.save()
    by_size = worked(started(task, batch=True))
    assert ModelBatch.objects.filter(owner_id=by_size.pk).count() == TRACES
    assert len(stub.requests) > one


@pytest.mark.django_db
def test_cancelling_the_run_cancels_its_batch_and_keeps_what_was_answered(stub: StubServer, ada: User) -> None:
    stub.batches.looks = 50
    run = started(batch_task(stub.url), batch=True)
    worked(run, rounds=2)
    mining_run_cancel(run_id=run.pk, user=ada)
    worked(run)
    assert run.state == RunState.CANCELLED
    assert ("POST", f"/v1/batches/{of_run(run).batch_id}/cancel") in stub.batches.asked
    batch = of_run(run)
    assert (batch.status, batch.state, batch.answered) == ("cancelled", BatchState.COLLECTED, TRACES // 2)
    assert (run.calls_used, run.cost_used) == (TRACES // 2, TRACES // 2 * DIRECT / 2)
    assert direct_calls(stub) == 0


@pytest.mark.django_db
def test_an_intent_without_a_batch_asks_the_provider_before_it_starts_one(stub: StubServer) -> None:
    run = started(batch_task(stub.url, timeout_s=1), batch=True)
    job_execute(job_id=Job.objects.get(kind="mining_run").pk)
    batch = of_run(run)
    stub.batches.files["file-x"] = (f"pld-{batch.key}.jsonl", b"{}")
    status, theirs = stub.batches.respond(
        "POST", "/v1/batches", {}, json.dumps(_create("file-x", str(batch.key))).encode()
    )
    for n in range(3):  # others started theirs since, and the provider lists two at a time
        stub.batches.respond("POST", "/v1/batches", {}, json.dumps(_create("file-x", f"other {n}")).encode())
    stub.batches.page = 2
    assert status == 200
    assert isinstance(theirs, dict)
    # A request of the worker before may still be under way: nobody asks yet.
    ModelBatch.objects.filter(pk=batch.pk).update(submitting_at=timezone.now())
    job_execute(job_id=Job.objects.get(kind=JOB_KIND).pk)
    assert of_run(run).state == BatchState.PLANNED
    ModelBatch.objects.filter(pk=batch.pk).update(submitting_at=batch.created_at - timedelta(seconds=5))
    Job.objects.filter(kind=JOB_KIND).update(run_after=timezone.now())
    job_execute(job_id=Job.objects.get(kind=JOB_KIND).pk)
    assert of_run(run).batch_id == theirs["id"]
    assert stub.batches.created == 4


def _create(file: str, key: str) -> dict[str, Any]:
    return {
        "input_file_id": file,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"pld_batch": key},
    }


@pytest.mark.django_db
def test_the_database_keeps_a_batch_honest(task: Task) -> None:
    endpoint = make_endpoint("http://127.0.0.1:1/v1")
    fields: dict[str, Any] = {"endpoint": endpoint, "owner_id": 1, "requests": 1}
    batch = ModelBatch.objects.create(submitting_at=timezone.now(), batch_id="b1", **fields)
    ModelBatchItem.objects.create(batch=batch, owner_id=1, subject="1", request_hash="a" * 64)
    refused: list[Callable[[], object]] = [
        lambda: ModelBatch.objects.create(submitting_at=timezone.now(), batch_id="b1", **fields),
        lambda: ModelBatch.objects.create(batch_id="b2", **fields),
        lambda: ModelBatch.objects.create(state=BatchState.SENT, **fields),
        lambda: ModelBatchItem.objects.create(batch=batch, owner_id=1, subject="2", request_hash="a" * 64),
        lambda: type(endpoint).objects.filter(pk=endpoint.pk).update(batch_price_percent=101),
    ]
    for act in refused:
        with pytest.raises(IntegrityError), transaction.atomic():
            act()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_kill_9_between_any_two_steps_starts_one_batch(tmp_path: Path) -> None:
    log = tmp_path / "calls.jsonl"
    with stub_process(log, latency_s=0.15) as url:
        run = started(batch_task(url, timeout_s=1), batch=True)
        job_execute(job_id=Job.objects.get(kind="mining_run").pk)
        (job,) = Job.objects.filter(kind=JOB_KIND)
        steps = ["GET /v1/files", "POST /v1/files", "POST /v1/batches", "GET /v1/batches/", "/content"]
        for step in steps:
            with job_worker(run, kind=JOB_KIND, subject=of_run(run).pk) as worker:
                wait_until(partial(seen_or_over, log, step, worker), what=step)
                worker.kill()
                worker.wait()
            Job.objects.filter(pk=job.pk).update(run_after=timezone.now(), lease_until=timezone.now(), attempts=0)
            wait_until(lambda: _intent_is_settled(run), what="an old request to be over")
        for _ in range(6):
            Job.objects.filter(pk=job.pk).update(run_after=timezone.now())
            job_execute(job_id=job.pk)
        assert worked(run).state == RunState.SUCCEEDED
    created = [call for call in calls_logged(log) if call["path"] == "/v1/batches" and call.get("method") == "POST"]
    assert len(created) == 1
    assert of_run(run).answered == TRACES
    assert ModelCall.objects.filter(purpose="extract", outcome="ok").count() == TRACES


def seen(log: Path, step: str) -> bool:
    return any(f"{call.get('method')} {call['path']}".find(step) >= 0 for call in calls_logged(log))


def seen_or_over(log: Path, step: str, worker: "subprocess.Popen[bytes]") -> bool:
    return seen(log, step) or worker.poll() is not None


def _intent_is_settled(run: MiningRun) -> bool:
    batch = of_run(run)
    if batch.submitting_at is None or batch.batch_id:
        return True
    return (timezone.now() - batch.submitting_at).total_seconds() > 2.1
