"""Every way an endpoint can fail, in one run: each trace is mined or listed with its reason, each request recorded."""

import random
import threading
import time
from collections import Counter
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.test import override_settings

from pld_app.jobs import job_execute
from pld_app.models import Job, ModelCall, User
from rules.models import MicroRule, MicroRuleOrigin, MiningRun, RunState, Task
from rules.schemas import MiningParameters
from rules.services.mining import mining_run_cancel, mining_run_create
from tests.factories import make_endpoint, make_task, make_trace
from tests.stub_server import StubRequest, stub_server

TRACES = 120
# What an item meets: its first request this, later ones a good answer where asking again can help.
PASSING = ("429:1", "500", "cut", "hang", "reset")
LASTING = ("not-json", "wrong-schema", "other-item", "empty", "no-choices", "refusal", "length", "400")
WORDS = {
    "wrong-schema": "does not fit",
    "other-item": "another question",
    "empty": "empty",
    "refusal": "refused",
    "length": "output limit",
    "400": "status 400",
    "not-json": "cannot be used",
    "no-choices": "no choices",
}


class Faults:
    """A third of the items fails once in a way that passes, a third for good, a third never."""

    def __init__(self) -> None:
        self.fault_of: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self._draw = random.Random(7)

    def __call__(self, request: StubRequest) -> str:
        if "correct_label" not in request.text:
            return "ok"
        item = request.text.split('"clause": "')[1].split('"')[0]
        if item not in self.fault_of:
            self.fault_of[item] = self._draw.choice((self._draw.choice(PASSING), self._draw.choice(LASTING), "ok"))
        self.asked[item] += 1
        fault = self.fault_of[item]
        return fault if fault in LASTING or self.asked[item] == 1 else "ok"


def task_to_extract(url: str, count: int, **endpoint: Any) -> Task:
    task = make_task(teacher=make_endpoint(url, **endpoint))
    for n in range(count):
        make_trace(task, instruction="", input={"clause": f"Clause {n} on copies.", "question": "Copies?"})
    return task


def worked_to_the_end(run: MiningRun, *, timeout_s: float = 60) -> MiningRun:
    """Carry the run on, slice after slice, without waiting for the times it puts itself off to."""
    deadline = time.monotonic() + timeout_s
    while not run.is_final and time.monotonic() < deadline:
        Job.objects.filter(subject_id=run.pk, state="queued").update(run_after="2000-01-01T00:00:00Z")
        for job in Job.objects.filter(subject_id=run.pk, kind="mining_run", state="queued"):
            job_execute(job_id=job.pk)
        run.refresh_from_db()
    return run


@pytest.mark.slow
@pytest.mark.django_db
@override_settings(ENDPOINT_BREAKER_S=0.2)
def test_every_fault_in_one_run_loses_no_trace_and_no_call() -> None:
    faults = Faults()
    with stub_server(faults) as stub:
        task = task_to_extract(stub.url, TRACES, concurrency=8, timeout_s=1)
        run = mining_run_create(task=task, user=None, parameters=MiningParameters())
        worked_to_the_end(run)
        sent = len(stub.requests)
    assert (run.state, run.error) == (RunState.SUCCEEDED, "")
    assert ModelCall.objects.aggregate(sent=Sum("attempts"))["sent"] == sent == run.calls_used
    rules = {rule.trace.input["clause"]: rule for rule in MicroRule.objects.filter(run=run).select_related("trace")}
    assert set(rules) == set(faults.fault_of)
    assert set(faults.fault_of.values()) == {*PASSING, *LASTING, "ok"}
    for item, fault in faults.fault_of.items():
        rule = rules[item]
        if fault in LASTING:
            assert (rule.origin, rule.text) == (MicroRuleOrigin.FAILED, ""), fault
            assert WORDS[fault] in rule.error, (fault, rule.error)
        else:
            assert (rule.origin, rule.error) == (MicroRuleOrigin.TEACHER, ""), (fault, rule.error)
    assert run.figures["failed_extractions"] == sum(fault in LASTING for fault in faults.fault_of.values())


@pytest.mark.django_db(transaction=True)
def test_cancelling_stops_new_calls_within_two_seconds(ada: User) -> None:
    with stub_server(latency_s=0.2) as stub:
        # Five calls a second: the next ones wait for the endpoint's own limit, as the worst case for a stop.
        task = task_to_extract(stub.url, 200, concurrency=8, requests_per_minute=600)
        run = mining_run_create(task=task, user=None, parameters=MiningParameters())
        job = Job.objects.get(subject_id=run.pk)
        worker = threading.Thread(target=_work_and_close, args=(job.pk,))
        worker.start()
        while len(stub.requests) < 10:
            time.sleep(0.01)
        cancelled_at = time.monotonic()
        mining_run_cancel(run_id=run.pk, user=ada)
        worker.join(timeout=15)
        took = time.monotonic() - cancelled_at
        last = max(request.at for request in stub.requests) - cancelled_at
        sent = len(stub.requests)
        time.sleep(0.3)
        assert len(stub.requests) == sent
    print(f"last call {last:.2f} s after the cancel, run over after {took:.2f} s")  # noqa: T201
    assert last <= 2
    assert sent < 60
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert ModelCall.objects.aggregate(sent=Sum("attempts"))["sent"] == sent
    assert MicroRule.objects.filter(run=run).count() == ModelCall.objects.filter(outcome="ok").count()


def _work_and_close(job_id: int) -> None:
    job_execute(job_id=job_id)
    connection.close()
