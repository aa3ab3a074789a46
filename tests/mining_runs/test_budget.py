"""What a run may cost: shown first, confirmed by a person, never exceeded, raised when it runs out."""

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from threading import Thread
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum
from django.test import Client

from pld_app.errors import InvalidInput
from pld_app.jobs import job_execute
from pld_app.model_edge import BudgetExhausted
from pld_app.models import EndpointKind, Job, ModelCall, User
from rules.exceptions import InvalidTransition
from rules.models import MicroRule, MicroRuleOrigin, MiningRun, RunState, Task
from rules.schemas import MiningParameters, RunEstimate
from rules.services.mining import mining_run_cancel, mining_run_create, mining_run_release
from rules.services.mining_budget import RunBudget
from tests.factories import audit_actions, make_endpoint, make_task, make_trace
from tests.stub_server import StubServer, stub_server

pytestmark = pytest.mark.django_db
PRICES: dict[str, Any] = {"price_in": Decimal(20), "price_out": Decimal(100)}
CALL = Decimal("0.004")  # what the stub's 100 and 20 tokens cost at these prices
TRACES = 24


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with stub_server() as server:
        yield server


@pytest.fixture
def paid(stub: StubServer) -> Task:
    """A task whose traces all need the teacher, which has a price."""
    teacher = make_endpoint(stub.url, concurrency=8, max_output_tokens=100, **PRICES)
    task = make_task(teacher=teacher)
    for n in range(TRACES):
        make_trace(task, instruction="", input={"clause": f"Clause {n} on copies.", "question": "Copies?"})
    return task


def created(task: Task, user: User) -> MiningRun:
    return mining_run_create(task=task, user=user, parameters=MiningParameters())


def released(run: MiningRun, user: User, *, calls: int | None = None, cost: Decimal | None = None) -> MiningRun:
    mining_run_release(run_id=run.pk, user=user, max_calls=calls, max_cost=cost)
    return worked(run)


def worked(run: MiningRun) -> MiningRun:
    job = Job.objects.filter(kind="mining_run", subject_id=run.pk).first()
    assert job is not None
    job_execute(job_id=job.pk)
    run.refresh_from_db()
    return run


def ledger_cost(run: MiningRun) -> Decimal:
    return ModelCall.objects.filter(run=str(run)).aggregate(sum=Sum("cost"))["sum"] or Decimal(0)


def test_a_run_that_costs_waits_for_a_person_and_calls_nobody(paid: Task, ada: User, stub: StubServer) -> None:
    run = created(paid, ada)
    assert run.state == RunState.AWAITING
    assert not Job.objects.filter(kind="mining_run").exists()
    estimate = RunEstimate.model_validate(run.estimate)
    extract, synthesis = estimate.stages
    assert (extract.stage, extract.calls, extract.recorded, extract.is_bound) == ("extract", TRACES, 0, False)
    assert (synthesis.stage, synthesis.is_bound) == ("synthesize", True)
    assert extract.output_tokens == TRACES * 100
    assert stub.requests == []
    released(run, ada, calls=estimate.calls, cost=estimate.cost)
    assert (run.state, run.error) == (RunState.SUCCEEDED, "")
    assert len(stub.requests) == run.calls_used == ModelCall.objects.filter(run=str(run)).count() <= estimate.calls
    assert run.cost_used == ledger_cost(run) == len(stub.requests) * CALL <= estimate.cost
    assert audit_actions(run) == ["mining.started", "mining.confirmed", "mining.finished"]


def test_a_run_without_paid_calls_starts_at_once(ada: User) -> None:
    task = make_task()
    make_trace(task)
    assert created(task, ada).state == RunState.QUEUED


def test_a_repeat_asks_nobody_and_may_spend_nothing(paid: Task, ada: User, stub: StubServer) -> None:
    released(created(paid, ada), ada, calls=1000)
    asked = len(stub.requests)
    again = created(paid, ada)
    assert (again.state, again.max_calls) == (RunState.QUEUED, 0)
    assert worked(again).state == RunState.SUCCEEDED
    assert len(stub.requests) == asked
    make_trace(paid, instruction="")
    assert created(paid, ada).state == RunState.AWAITING


def test_what_a_repeat_did_not_foresee_pauses_instead_of_being_paid(paid: Task, ada: User, stub: StubServer) -> None:
    released(created(paid, ada), ada, calls=1000)
    asked = len(stub.requests)
    again = created(paid, ada)
    paid.preamble = "Other words."
    paid.save()
    assert worked(again).state == RunState.PAUSED
    assert len(stub.requests) == asked


def test_the_budget_pauses_the_run_and_a_higher_one_lets_it_go_on(paid: Task, ada: User, stub: StubServer) -> None:
    run = released(created(paid, ada), ada, calls=10)
    assert run.state == RunState.PAUSED
    assert "10 calls" in run.error
    assert len(stub.requests) == 10
    assert MicroRule.objects.filter(run=run, origin=MicroRuleOrigin.TEACHER).count() == 10
    with pytest.raises(InvalidInput, match="10 calls"):
        mining_run_release(run_id=run.pk, user=ada, max_calls=10, max_cost=None)
    released(run, ada, calls=1000)
    assert (run.state, run.error) == (RunState.SUCCEEDED, "")
    texts = [request.text for request in stub.requests]
    assert len(texts) == len(set(texts)) == run.calls_used
    assert not MicroRule.objects.filter(run=run, origin=MicroRuleOrigin.FAILED).exists()
    assert audit_actions(run)[1:] == [
        "mining.confirmed",
        "mining.paused",
        "mining.budget_raised",
        "mining.finished",
    ]


def test_money_is_never_exceeded(paid: Task, ada: User, stub: StubServer) -> None:
    limit = 7 * CALL + Decimal("0.02")  # a call sets aside more than it costs: its longest reply
    run = released(created(paid, ada), ada, cost=limit)
    assert run.state == RunState.PAUSED
    assert "may spend" in run.error
    assert 0 < ledger_cost(run) == run.cost_used <= limit
    assert ledger_cost(run) == len(stub.requests) * CALL


def test_fifty_calls_at_once_on_a_budget_of_ten(ada: User, stub: StubServer) -> None:
    stub.latency_s = 0.3
    task = make_task(teacher=make_endpoint(stub.url, concurrency=50, **PRICES))
    for n in range(50):
        make_trace(task, instruction="", input={"clause": f"Clause {n}.", "question": "q"})
    run = released(created(task, ada), ada, calls=10)
    assert run.state == RunState.PAUSED
    assert (len(stub.requests), stub.max_in_flight, run.calls_used) == (10, 10, 10)


@pytest.mark.django_db(transaction=True)
def test_reservations_of_many_workers_never_exceed_the_limit(task: Task) -> None:
    run = MiningRun.objects.create(task=task, number=1, max_calls=10, max_cost=Decimal("0.5"))
    granted: list[bool] = []

    def reserve() -> None:
        budget = RunBudget(run.pk)
        for _ in range(5):
            try:
                budget.reserve(Decimal("0.04"))
                granted.append(True)
            except BudgetExhausted:
                granted.append(False)
        budget.flush()
        connection.close()

    threads = [Thread(target=reserve) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.refresh_from_db()
    # One worker may have held some that another was refused; none was given twice.
    assert len(granted) == 50
    assert 5 <= sum(granted) == run.calls_used <= 10
    assert run.cost_used == sum(granted) * Decimal("0.04")
    back = RunBudget(run.pk)
    back.settle(reserved=Decimal("0.04"), actual=Decimal("0.01"), calls=0)
    back.flush()
    run.refresh_from_db()
    assert run.calls_used == sum(granted) - 1
    assert run.cost_used == sum(granted) * Decimal("0.04") - Decimal("0.03")


def test_cancelling_while_it_waits_ends_it_without_a_call(paid: Task, ada: User, stub: StubServer) -> None:
    run = created(paid, ada)
    assert mining_run_cancel(run_id=run.pk, user=ada).state == RunState.CANCELLED
    with pytest.raises(InvalidTransition):
        mining_run_release(run_id=run.pk, user=ada, max_calls=5, max_cost=None)
    paused = released(created(paid, ada), ada, calls=3)
    assert mining_run_cancel(run_id=paused.pk, user=ada).state == RunState.CANCELLED
    assert len(stub.requests) == 3


def test_an_embedder_is_estimated_too(stub: StubServer, ada: User) -> None:
    embedder = make_endpoint(stub.url, slug="embedder", kind=EndpointKind.EMBEDDING, price_in=Decimal(1))
    task = make_task(embedder=embedder)
    for _ in range(70):
        make_trace(task)
    run = created(task, ada)
    (stage,) = RunEstimate.model_validate(run.estimate).stages
    assert (stage.stage, stage.calls, stage.is_bound) == ("embed", 2, False)
    released(run, ada, calls=2)
    assert run.state == RunState.SUCCEEDED
    # Known texts, all recorded: nothing is left to pay for.
    assert RunEstimate.model_validate(created(task, ada).estimate).calls == 0


def test_the_page_shows_the_estimate_takes_a_budget_and_shows_what_was_paid(
    paid: Task, ada: User, abe: User, client_of: Callable[[User], Client], stub: StubServer
) -> None:
    browser = client_of(ada)
    made = browser.post(f"/tasks/{paid.slug}/mining/new/", {**_form()})
    run = MiningRun.objects.get()
    url = f"/tasks/{paid.slug}/mining/{run.pk}/"
    assert made.headers["Location"] == url
    page = browser.get(url).text
    assert "Awaiting confirmation" in page
    assert f">{TRACES}<" in page
    assert "Confirm and start" in page
    assert "Confirm and start" not in client_of(abe).get(url).text
    assert browser.post(f"{url}release/", {"max_calls": "", "max_cost": ""}).status_code == 422
    assert browser.post(f"{url}release/", {"max_calls": "10"}).status_code == 302
    worked(run)
    page = browser.get(url).text
    assert "10 calls" in page
    assert "Raise the budget and go on" in page
    assert browser.post(f"{url}release/", {"max_calls": "1000", "max_cost": "5"}).status_code == 302
    worked(run)
    # To the cent what the server's own count comes to.
    assert f"{len(stub.requests) * CALL:.2f}" in browser.get(url).text
    assert client_of(abe).post(f"{url}release/", {"max_calls": "10"}).status_code == 403


def _form() -> dict[str, str]:
    return {
        name: str(value)
        for name, value in json.loads(MiningParameters().model_dump_json()).items()
        if value not in (None, False)
    }
