"""The stream: how many calls at a time, in what order they are handed over, and how it ends."""

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from pld_app.model_edge import CallReply, CallRequest, ModelUnavailable, calls_stream
from tests.model_edge.harness import chat, endpoint, never, run
from tests.stub_server import StubRequest, stub_server
from tests.workers import wait_until


def many(count: int) -> list[CallRequest]:
    return [chat(f"t-{n}") for n in range(count)]


def edge_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("calls ")]


def collected(
    url: str, requests: list[CallRequest], **fields: object
) -> tuple[list[CallReply], ModelUnavailable | None]:
    """The replies and the reason the stream ended early, if it did."""
    replies: list[CallReply] = []
    try:
        for reply in calls_stream(endpoint(url, **fields), requests, should_stop=never):
            replies.append(reply)  # noqa: PERF402  # kept when the stream raises
    except ModelUnavailable as error:
        return replies, error
    return replies, None


def test_every_request_gets_one_reply_and_the_limit_is_used_and_kept() -> None:
    with stub_server(latency_s=0.03) as stub:
        replies = run(stub, many(60), concurrency=7)
        assert stub.max_in_flight == 7
        assert len(stub.requests) == 60
    assert Counter(reply.request.key for reply in replies) == Counter(f"t-{n}" for n in range(60))
    assert all(reply.ok for reply in replies)
    assert edge_threads() == []


def test_replies_come_in_order_of_completion() -> None:
    def slow_first(request: StubRequest) -> str:
        return "slow:0.4" if "t-0" in request.text else "ok"

    with stub_server(slow_first) as stub:
        keys = [reply.request.key for reply in run(stub, many(5), concurrency=5)]
    assert keys[-1] == "t-0"


def test_requests_are_read_as_places_become_free_and_only_by_the_caller() -> None:
    read_by: list[int] = []

    def requests() -> Iterator[CallRequest]:
        for n in range(100):
            read_by.append(threading.get_ident())
            yield chat(f"t-{n}")

    with stub_server() as stub:
        stream = calls_stream(endpoint(stub.url, concurrency=4), requests(), should_stop=never)
        for taken in range(1, 6):
            next(stream)
            time.sleep(0.1)  # time enough for the stream to run ahead, if it did
            assert len(read_by) <= 4 + taken - 1
            assert len(stub.requests) <= 4 + taken - 1
        stream.close()
    assert set(read_by) == {threading.get_ident()}


def test_a_stop_is_obeyed_before_the_next_call_and_what_was_paid_for_is_kept() -> None:
    stop = threading.Event()
    with stub_server(latency_s=0.3) as stub:
        threading.Timer(0.45, stop.set).start()
        started = time.monotonic()
        replies = run(stub, many(200), concurrency=4, should_stop=stop.is_set)
        seconds = time.monotonic() - started
        sent = len(stub.requests)
        time.sleep(0.3)
        assert len(stub.requests) == sent == 8
    assert [reply.outcome for reply in replies] == ["ok"] * 8
    assert seconds < 2.5
    assert edge_threads() == []


def test_a_stop_while_the_server_hangs_cuts_the_calls_after_the_grace() -> None:
    stop = threading.Event()
    with stub_server("hang") as stub:
        threading.Timer(0.2, stop.set).start()
        started = time.monotonic()
        stream = calls_stream(
            endpoint(stub.url, concurrency=3, timeout_s=60), many(9), should_stop=stop.is_set, drain_s=0.5
        )
        replies = list(stream)
        assert time.monotonic() - started < 2
        assert [(reply.outcome, reply.attempts) for reply in replies] == [("cancelled", 1)] * 3
        assert "cut off" in replies[0].error


def test_a_stop_ends_waiting_for_rate_limits_and_for_retries_at_once() -> None:
    stop = threading.Event()
    with stub_server("429:15") as stub:

        def stop_once_all_were_refused() -> None:
            wait_until(lambda: len(stub.requests) == 3, what="three requests")
            threading.Timer(0.3, stop.set).start()

        threading.Thread(target=stop_once_all_were_refused, daemon=True).start()
        started = time.monotonic()
        replies = run(stub, many(9), concurrency=3, call_deadline_s=60, should_stop=stop.is_set)
        assert time.monotonic() - started < 2
    assert {reply.status for reply in replies} == {429}
    with stub_server() as stub:
        stop.clear()
        threading.Timer(0.3, stop.set).start()
        replies = run(stub, many(9), concurrency=3, requests_per_minute=1, should_stop=stop.is_set)
        assert len(stub.requests) == 1
    assert Counter((reply.outcome, reply.attempts) for reply in replies) == {("ok", 1): 1, ("cancelled", 0): 3}


def test_closing_the_stream_cuts_its_calls_within_two_seconds() -> None:
    with stub_server(lambda request: "ok" if "t-0" in request.text else "hang") as stub:
        stream = calls_stream(endpoint(stub.url, concurrency=8, timeout_s=60), many(50), should_stop=never)
        assert next(stream).ok
        started = time.monotonic()
        stream.close()
        assert time.monotonic() - started < 2
        assert edge_threads() == []
        deadline = time.monotonic() + 2
        while stub.in_flight and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stub.in_flight == 0


def test_an_error_in_the_callers_own_code_ends_the_thread() -> None:
    def broken() -> Iterator[CallRequest]:
        yield chat()
        raise LookupError("no more rows")

    with stub_server() as stub, pytest.raises(LookupError):
        run(stub, broken(), concurrency=4)
    assert edge_threads() == []


def test_requests_per_minute_are_kept() -> None:
    with stub_server() as stub:
        started = time.monotonic()
        run(stub, many(16), concurrency=8, requests_per_minute=600)
        seconds = time.monotonic() - started
    # Ten a second, of which one second's worth may go at once: 6 more take 0.6 s.
    assert 0.55 < seconds < 1.5


def test_tokens_per_minute_are_kept_by_what_the_server_counted() -> None:
    # The server counts 120 tokens a call; 24,000 a minute are 400 a second, and 4,000 may go at once.
    with stub_server() as stub:
        started = time.monotonic()
        run(stub, many(40), concurrency=2, tokens_per_minute=24_000, max_output_tokens=90)
        seconds = time.monotonic() - started
    assert 1.0 < seconds < 4.0


def test_a_429_halves_the_calls_at_a_time_and_successes_bring_them_back() -> None:
    def first_wave(request: StubRequest) -> str:
        return "429" if request.number < 8 else "slow:0.05"

    with stub_server(first_wave) as stub:
        # The first wave halves 8 to 4 once, although eight calls were refused.
        replies = run(stub, many(16), concurrency=8, retry_base_s=0.2)
        assert all(reply.ok for reply in replies)
        stub.max_in_flight = 0
    assert len(stub.requests) == 24

    def level(request: StubRequest) -> str:
        levels.append(stub.in_flight)
        return first_wave(request)

    levels: list[int] = []
    with stub_server(level) as stub:
        run(stub, many(120), concurrency=8, retry_base_s=0.2)
    assert max(levels[8:28]) == 4
    assert max(levels[28:]) > 4


def test_five_failures_in_a_row_open_the_circuit_and_a_good_probe_closes_it() -> None:
    def down_at_first(request: StubRequest) -> str:
        return "500" if request.number < 5 else "ok"

    with stub_server(down_at_first) as stub:
        replies, error = collected(stub.url, many(20), concurrency=1, max_attempts=9, breaker_open_s=0.5)
        times = [request.at for request in stub.requests]
    assert error is None
    assert all(reply.ok for reply in replies)
    assert times[5] - times[4] >= 0.5


def test_a_probe_that_fails_ends_the_stream_with_a_reason_and_no_hammering() -> None:
    with stub_server("500") as stub:
        replies, error = collected(stub.url, many(500), concurrency=2, breaker_open_s=0.3)
        sent = len(stub.requests)
    assert error is not None
    assert "keeps failing" in str(error.user_message)
    assert error.retry_after_s == 0.3
    # Five to open it, one more that may have been under way, and the probe.
    assert 6 <= sent <= 7
    assert len(replies) < 6


def test_bad_requests_do_not_open_the_circuit() -> None:
    with stub_server("400") as stub:
        replies, error = collected(stub.url, many(20), concurrency=2)
    assert error is None
    assert len(replies) == 20


def test_a_long_retry_after_ends_the_stream_and_says_when_to_come_back() -> None:
    with stub_server("429:110") as stub:
        replies, error = collected(stub.url, many(500), concurrency=4)
        assert len(stub.requests) <= 8
    assert error is not None
    assert error.retry_after_s == 110
    assert all(reply.retry_after_s == 110 or reply.attempts == 0 for reply in replies)


@pytest.mark.parametrize("behaviour", ["quota", "401"])
def test_what_only_a_person_can_mend_ends_the_stream(behaviour: str) -> None:
    with stub_server(behaviour) as stub:
        _, error = collected(stub.url, many(500), concurrency=4)
        assert len(stub.requests) <= 8
    assert error is not None
    assert error.retry_after_s is None


def test_a_mixture_of_faults_gives_every_request_its_one_reply() -> None:
    faults = ["ok", "500", "ok", "cut", "not-json", "ok", "429:0.1", "empty", "ok", "hang", "length", "ok", "refusal"]

    def mixed(request: StubRequest) -> str:
        return faults[request.number % len(faults)]

    with stub_server(mixed) as stub:
        requests = [chat(f"t-{n}", schema=True) for n in range(100)]
        replies, error = collected(stub.url, requests, concurrency=16)
        assert error is None
        assert sum(reply.attempts for reply in replies) == len(stub.requests)
    assert len({reply.request.key for reply in replies}) == len(replies) == 100
    assert all(reply.ok or reply.error for reply in replies)
    assert sum(reply.ok for reply in replies) >= 50
