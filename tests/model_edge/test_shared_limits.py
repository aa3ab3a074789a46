"""Several workers on one endpoint: its limits hold over all of them together."""

import math
import threading
import time
import uuid
from bisect import bisect_left
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld_app.model_edge import CallReply, ModelUnavailable, calls_stream
from pld_app.model_edge.limit_state import Down, LimitState, Turn, Wait, request_rate
from pld_app.model_edge.limit_store import SharedLimits
from pld_app.model_edge.replies import Attempt
from pld_app.model_edge.runner import Runner
from pld_app.model_edge.types import Outcome
from tests.model_edge.harness import chat, endpoint, never
from tests.stub_server import StubServer, stub_server


class Together:
    """Streams of calls in threads of their own, which name the same limits."""

    def __init__(self, stub: StubServer, *, streams: int = 2, calls: int = 40, **fields: Any) -> None:
        self.config = endpoint(stub.url, shared_limits=uuid.uuid4().hex, **fields)
        self.calls = calls
        self.replies: list[list[CallReply]] = [[] for _ in range(streams)]
        self.errors: list[ModelUnavailable] = []

    def run(self) -> None:
        threads = [threading.Thread(target=self.stream, args=(number,)) for number in range(len(self.replies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stream(self, number: int) -> None:
        requests = (chat(f"s{number}-{call}") for call in range(self.calls))
        try:
            for reply in calls_stream(self.config, requests, should_stop=never):
                self.replies[number].append(reply)
        except ModelUnavailable as error:
            self.errors.append(error)


def test_streams_never_have_more_calls_at_a_time_than_the_endpoint_allows_and_share_them() -> None:
    with stub_server(latency_s=0.03) as stub:
        both = Together(stub, concurrency=6, calls=60)
        both.run()
        assert stub.max_in_flight == 6
        first_half = Counter(request.text.split()[-1].split("-")[0] for request in stub.requests[:60])
    assert all(reply.ok for replies in both.replies for reply in replies)
    assert [len(replies) for replies in both.replies] == [60, 60]
    assert min(first_half.values()) >= 15


def test_requests_per_minute_hold_over_all_streams() -> None:
    with stub_server() as stub:
        Together(stub, streams=3, calls=8, concurrency=4, requests_per_minute=600).run()
        times = [request.at for request in stub.requests]
    rate = request_rate(600)
    assert rate is not None
    assert len(times) == 24
    for place, start in enumerate(times):
        for window in (0.5, 1.0, 1.5):
            # A request is on its way for some milliseconds, so two may arrive closer than they were let go.
            within = bisect_left(times, start + window) - place
            assert within <= math.ceil(rate.burst + rate.per_s * (window + 0.1))


def test_a_429_for_one_slows_all() -> None:
    with stub_server(lambda request: "429:0.6" if request.number == 0 else "ok") as stub:
        Together(stub, calls=6, concurrency=1).run()
        times = [request.at for request in stub.requests]
    assert times[1] - times[0] >= 0.6


def test_what_one_stream_found_down_no_other_one_asks_until_the_time_is_over() -> None:
    with stub_server("500") as stub:
        trouble = Together(stub, streams=1, concurrency=1, breaker_open_s=0.8)
        trouble.run()
        sent = len(stub.requests)
        assert sent == 6
        trouble.run()
        assert len(stub.requests) == sent
        assert [error.retry_after_s is not None for error in trouble.errors] == [True, True]
        assert "keeps failing" in str(trouble.errors[1])
        time.sleep(0.8)
        stub.behaviour = "ok"
        trouble.replies = [[]]
        trouble.run()
    assert all(reply.ok for reply in trouble.replies[0])
    assert len(trouble.replies[0]) == 40


def test_the_places_of_a_worker_that_died_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pld_app.model_edge.limits.LEASE_S", 0.5)
    monkeypatch.setattr(Runner, "close", lambda _self: None)  # it says no goodbye
    with stub_server("hang") as stub:
        one = Together(stub, streams=1, concurrency=2, timeout_s=5)
        dead = calls_stream(one.config, [chat("a"), chat("b"), chat("c")], should_stop=never)
        thread = threading.Thread(target=lambda: next(dead, None), daemon=True)
        thread.start()
        deadline = time.monotonic() + 5
        while stub.in_flight < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        # Its loop stands still from here on: nothing renews what it holds.
        (loop_thread,) = [found for found in threading.enumerate() if found.name == "calls stub"]
        _stop_loop(loop_thread)
        monkeypatch.undo()
        stub.behaviour = "ok"
        started = time.monotonic()
        one.calls = 2
        one.run()
        waited = time.monotonic() - started
    assert [reply.ok for reply in one.replies[0]] == [True, True]
    assert 0.1 < waited < 3


def _stop_loop(thread: threading.Thread) -> None:
    bound: Any = thread
    runner: Runner = bound._target.__self__
    runner._loop.call_soon_threadsafe(time.sleep, 4)


def test_without_the_broker_nothing_is_sent_and_the_run_is_told_when_to_come_back(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with stub_server() as stub:
        lost = Together(stub, streams=1)
        lost.run()
        assert stub.requests == []
    assert "cannot be reached" in str(lost.errors[0])
    assert lost.errors[0].retry_after_s == 5


def attempt(kind: str) -> Attempt | None:
    return {
        "ok": Attempt(outcome=Outcome.OK, status=200, prompt_tokens=10, completion_tokens=5),
        "429": Attempt(outcome=Outcome.HTTP_ERROR, status=429, retryable=True, retry_after_s=0.2),
        "500": Attempt(outcome=Outcome.HTTP_ERROR, status=500, retryable=True),
        "cut": None,
    }[kind]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ask", "ok", "429", "500", "cut"])), max_size=60),
    st.floats(0.01, 2.0),
)
def test_whatever_happens_no_more_are_let_through_than_the_limits_allow(
    steps: list[tuple[str, str]], step_s: float
) -> None:
    config = endpoint("http://127.0.0.1:1/v1", concurrency=3, requests_per_minute=120)
    state, now, number = LimitState(), 1000.0, 0
    under_way: list[Turn] = []
    granted: list[float] = []
    for name, what in steps:
        now += step_s
        state = LimitState.from_text(state.as_text())
        if what == "ask":
            number += 1
            said = state.ask(config, Turn(name, str(number), 20, 0.0, probe=False), now, now + 3600)
            if isinstance(said, Turn):
                under_way.append(said)
                granted.append(now)
            else:
                assert isinstance(said, Wait | Down)
        elif own := [turn for turn in under_way if turn.stream == name]:
            under_way.remove(own[0])
            state.finish(config, own[0], attempt(what), now)
        assert len(under_way) <= config.concurrency
        assert sum(len(stream.turns) for stream in state.streams.values()) == len(under_way)
    for place, start in enumerate(granted):
        assert bisect_left(granted, start + 60) - place <= 120


def test_a_state_that_was_never_written_is_a_fresh_one() -> None:
    assert LimitState.from_text("") == LimitState()
    assert SharedLimits.is_shared
