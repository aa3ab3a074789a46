"""The ledger: an answer is paid for once, every call leaves its row, and a budget is never exceeded."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pld_app.model_edge import (
    BudgetExhausted,
    CallRequest,
    EndpointMisconfigured,
    ModelUnavailable,
    Outcome,
    request_hash,
)
from pld_app.model_edge.budget import LocalBudget
from pld_app.model_edge.estimate import calls_estimate
from pld_app.model_edge.ledger import (
    RecordedCall,
    endpoint_config,
    key_variable_allowed,
    recorded_calls,
)
from pld_app.models import EndpointKind, ModelCall, ModelEndpoint
from tests.factories import make_endpoint
from tests.model_edge.harness import KEY, chat, embed, never
from tests.stub_server import StubRequest, embedding, stub_server
from tests.workers import calls_logged, process_environment, stub_process

pytestmark = pytest.mark.django_db


def many(count: int, *, schema: bool = True) -> list[CallRequest]:
    return [chat(f"t-{n}", schema=schema) for n in range(count)]


def answers(
    endpoint: ModelEndpoint, requests: list[CallRequest], *, scope: str = "", **more: Any
) -> list[RecordedCall]:
    return list(recorded_calls(endpoint, requests, scope=scope, should_stop=never, **more))


def test_a_second_pass_makes_no_call_and_gives_the_same_answers() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url)
        first = {call.request.key: call for call in answers(endpoint, many(30))}
        second = {call.request.key: call for call in answers(endpoint, many(30))}
        assert len(stub.requests) == ModelCall.objects.count() == 30
    assert not any(call.reused for call in first.values())
    assert all(call.reused and call.ok for call in second.values())
    assert {key: call.text for key, call in first.items()} == {key: call.text for key, call in second.items()}
    assert {key: call.call_id for key, call in first.items()} == {key: call.call_id for key, call in second.items()}


def test_a_run_answered_from_the_ledger_needs_no_endpoint_at_all() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url)
        answers(endpoint, many(5))
    assert all(call.reused for call in answers(endpoint, many(5)))


def test_the_row_says_what_was_asked_and_what_came_back() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url, price_in=Decimal(2), price_out=Decimal(10))
        (call,) = answers(endpoint, many(1))
    row = ModelCall.objects.get()
    assert (row.endpoint, row.purpose, row.subject, row.scope) == (endpoint, "test", "t-0", "")
    assert (row.outcome, row.http_status, row.attempts) == ("ok", 200, 1)
    assert (row.model_requested, row.model_returned) == ("stub-1", "stub-1")
    assert (row.prompt_tokens, row.completion_tokens, row.cost) == (100, 20, Decimal("0.000400"))
    assert row.text == call.text
    assert "label" in json.loads(row.text)
    assert len(row.request_hash) == len(row.prompt_sha256) == 64
    assert json.loads(row.raw_reply)["object"] == "chat.completion"


def test_a_scope_of_its_own_asks_again() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url)
        answers(endpoint, many(3))
        answers(endpoint, many(3), scope="evaluation 7")
        assert len(stub.requests) == 6


def test_lookups_are_batched(django_assert_num_queries: Callable[[int], Any]) -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url, concurrency=16)
        answers(endpoint, many(210))
    with django_assert_num_queries(2):
        answers(endpoint, many(210))


def test_failures_are_recorded_and_asked_again() -> None:
    def odd(request: StubRequest) -> str:
        return "length" if request.number < 3 else "ok"

    with stub_server(odd) as stub:
        endpoint = make_endpoint(stub.url, concurrency=1)
        first = answers(endpoint, many(3))
        second = answers(endpoint, many(3))
        assert len(stub.requests) == ModelCall.objects.count() == 6
    assert [call.outcome for call in first] == ["length"] * 3
    assert all(call.ok and not call.reused for call in second)
    assert all(call.call_id is not None and "output limit" in call.error for call in first)


def test_equal_requests_in_one_stream_make_one_call() -> None:
    with stub_server(latency_s=0.05) as stub:
        endpoint = make_endpoint(stub.url, concurrency=4)
        same = [chat("same") for _ in range(10)]
        calls = answers(endpoint, [*same, *many(4), *same])
        assert len(stub.requests) == 5
    assert len(calls) == 24
    assert sum(not call.reused for call in calls) == 5


def test_equal_requests_share_a_failure_too() -> None:
    with stub_server("refusal", latency_s=0.05) as stub:
        calls = answers(make_endpoint(stub.url), [chat("same"), chat("same")])
        assert len(stub.requests) == 1
    assert [call.outcome for call in calls] == ["refused", "refused"]


def test_another_workers_answer_wins_and_the_second_payment_is_recorded_as_duplicate() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url)
        digest = request_hash(endpoint_config(endpoint), chat("x"))

        def other_worker_answers() -> bool:
            # should_stop is asked between the lookup and the call: the moment another worker can slip in.
            values = {"endpoint": endpoint, "purpose": "test", "outcome": "ok", "text": "theirs"}
            ModelCall.objects.get_or_create(request_hash=digest, outcome="ok", defaults=values)
            return False

        (call,) = recorded_calls(endpoint, [chat("x")], scope="", should_stop=other_worker_answers)
        assert len(stub.requests) == 1
    assert call.text == "theirs"
    assert Counter(ModelCall.objects.values_list("outcome", flat=True)) == {"ok": 1, "duplicate": 1}


def test_vectors_survive_the_ledger_exactly() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url, kind=EndpointKind.EMBEDDING)
        (first,) = answers(endpoint, [embed("one text", "another text")])
        (second,) = answers(endpoint, [embed("one text", "another text")])
        assert len(stub.requests) == 1
    assert first.vectors is not None
    assert second.vectors is not None
    assert first.vectors.shape == (2, 32)
    assert np.array_equal(first.vectors, second.vectors)
    assert np.allclose(first.vectors[0], embedding("one text"), atol=1e-6)


def test_the_rows_attempts_equal_the_servers_count_under_faults() -> None:
    faults = ["ok", "500", "ok", "cut", "not-json", "429:0.1", "ok", "empty", "length", "ok", "refusal", "html"]

    with stub_server(lambda request: faults[request.number % len(faults)]) as stub:
        endpoint = make_endpoint(stub.url, concurrency=8)
        calls = answers(endpoint, many(60))
        assert sum(ModelCall.objects.values_list("attempts", flat=True)) == len(stub.requests)
    assert len(calls) == 60
    assert ModelCall.objects.count() == 60


def test_a_budget_of_calls_stops_the_run_with_the_amount() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url, concurrency=4)
        budget = LocalBudget(max_calls=10)
        done: list[RecordedCall] = []
        with pytest.raises(BudgetExhausted, match="10 calls"):  # noqa: PT012
            for call in recorded_calls(endpoint, many(50), scope="", should_stop=never, budget=budget):
                done.append(call)  # noqa: PERF402  # kept when the stream raises
        assert len(stub.requests) == len(done) == ModelCall.objects.count() == 10
        # What the ledger holds is free, so the same ten pass again under a spent budget.
        assert all(call.reused for call in answers(endpoint, many(10), budget=budget))


def test_money_is_set_aside_before_and_settled_after() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url, concurrency=4, price_in=1, price_out=Decimal(100), max_output_tokens=200)
        # Worst case a call: about 0.02 for 200 tokens out; real cost 0.0021.
        budget = LocalBudget(max_cost=Decimal("0.10"))
        with pytest.raises(BudgetExhausted):
            answers(endpoint, many(500), budget=budget)
        spent = sum(ModelCall.objects.values_list("cost", flat=True))
        assert budget.cost == spent == len(stub.requests) * Decimal("0.0021")
    assert Decimal("0.07") < spent <= Decimal("0.10")


def test_without_a_token_count_the_reservation_is_what_it_cost() -> None:
    with stub_server("html") as stub:
        endpoint = make_endpoint(stub.url, price_out=Decimal(100), max_output_tokens=200)
        answers(endpoint, many(1))
    assert ModelCall.objects.get().cost == Decimal("0.020000")


def test_fifty_threads_cannot_overdraw_a_budget() -> None:
    budget, granted = LocalBudget(max_calls=10), []

    def job() -> None:
        try:
            budget.reserve(Decimal(0))
            granted.append(1)
        except BudgetExhausted:
            pass

    threads = [threading.Thread(target=job) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == budget.calls == 10


def test_calls_that_were_never_sent_leave_no_row_and_cost_nothing() -> None:
    with stub_server("401") as stub:
        endpoint = make_endpoint(stub.url, concurrency=2, price_out=100)
        budget = LocalBudget()
        done: list[RecordedCall] = []
        with pytest.raises(ModelUnavailable):  # noqa: PT012
            for call in recorded_calls(endpoint, many(30), scope="", should_stop=never, budget=budget):
                done.append(call)  # noqa: PERF402  # kept when the stream raises
        assert ModelCall.objects.count() == len(stub.requests) == budget.calls
    assert budget.cost == 0
    assert {call.outcome for call in done} <= {Outcome.HTTP_ERROR, Outcome.CANCELLED}


def test_the_key_comes_from_the_environment_and_is_stored_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("STUB_API_KEY", KEY)
    with stub_server(["ok", "400", "401"]) as stub:
        endpoint = make_endpoint(stub.url, api_key_env="STUB_API_KEY", concurrency=1)
        with pytest.raises(ModelUnavailable):
            answers(endpoint, many(5))
        assert stub.requests[0].headers["authorization"] == f"Bearer {KEY}"
    rows = json.dumps(list(ModelCall.objects.values()), default=str)
    assert KEY not in rows + caplog.text
    assert "May copies" not in caplog.text
    assert ModelCall.objects.count() == 3


def test_a_missing_key_is_refused_in_words_before_anything_is_sent() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url, api_key_env="NO_SUCH_API_KEY")
        with pytest.raises(EndpointMisconfigured, match="NO_SUCH_API_KEY"):
            answers(endpoint, many(1))
        assert stub.connections == 0


@pytest.mark.parametrize("name", ["DATABASE_URL", "PLD_SECRET_KEY", "REDIS_URL", "PATH", "PLD_SIGNING_KEY", "A KEY"])
def test_our_own_secrets_cannot_be_named_as_a_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "secret of ours")
    assert not key_variable_allowed(name)
    with stub_server() as stub:
        with pytest.raises(EndpointMisconfigured, match="not a provider's key"):
            answers(make_endpoint(stub.url, api_key_env=name), many(1))
        assert stub.connections == 0


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "MISTRAL_KEY", "HF_TOKEN", "PLD_TEACHER_API_KEY"])
def test_provider_keys_can_be_named(name: str) -> None:
    assert key_variable_allowed(name)


def test_an_endpoint_that_is_off_or_not_on_the_list_is_refused(settings: Any) -> None:
    with stub_server() as stub:
        with pytest.raises(EndpointMisconfigured, match="switched off"):
            answers(make_endpoint(stub.url, slug="off", is_active=False), many(1))
        settings.ENDPOINT_ALLOW_PRIVATE = []
        with pytest.raises(ModelUnavailable, match="private"):
            answers(make_endpoint(stub.url), many(1))
        assert stub.connections == 0


def test_the_estimate_counts_what_the_ledger_does_not_hold() -> None:
    with stub_server() as stub:
        endpoint = make_endpoint(stub.url, price_in=3, price_out=15)
        answers(endpoint, many(3))
        estimate = calls_estimate(endpoint, [*many(10), *many(10)], scope="")
        assert len(stub.requests) == 3
    assert (estimate.requests, estimate.recorded, estimate.calls) == (20, 13, 7)
    assert estimate.output_tokens == 7 * 1024
    assert estimate.cost > Decimal("0.1")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_kill_9_repeats_at_most_the_calls_in_flight_and_no_recorded_one(tmp_path: Path) -> None:
    count, concurrency, log = 150, 8, tmp_path / "calls.jsonl"
    with stub_process(log) as url:
        make_endpoint(url, concurrency=concurrency)
        kills = 0
        for _ in range(3):
            worker = _worker("stub", count)
            kills += _killed_after(worker, log, calls=random.randint(concurrency + 1, 30))
            answered = set(ModelCall.objects.filter(outcome="ok").values_list("subject", flat=True))
            assert answered
        last = _worker("stub", count)
        printed, _ = last.communicate(timeout=60)
        assert printed.strip() == str(count)
    assert kills >= 1
    sent = Counter(line["body"]["messages"][-1]["content"] for line in calls_logged(log))
    assert len(sent) == ModelCall.objects.filter(outcome="ok").count() == count
    assert sum(sent.values()) - count <= kills * concurrency


def _killed_after(worker: subprocess.Popen[str], log: Path, *, calls: int) -> bool:
    """Kill -9 once the worker has sent that many calls; False if it finished first."""
    until, deadline = len(calls_logged(log)) + calls, time.monotonic() + 60
    while len(calls_logged(log)) < until and worker.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.kill()
    return worker.wait() != 0


def _worker(slug: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.model_edge.ledger_worker", slug, str(count)]
    return subprocess.Popen(command, env=process_environment(), stdout=subprocess.PIPE, text=True)
