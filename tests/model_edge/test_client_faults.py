"""Every way a server can fail becomes a reply with clear words, in bounded time and memory."""

import resource
import time
import traceback
from typing import Any

import pytest

from pld_app.model_edge import CallReply, ModelUnavailable, Outcome, Secret, call_once, calls_stream
from tests.model_edge.harness import KEY, chat, embed, endpoint, never, run
from tests.stub_server import Behaviour, Plan, StubServer, completion, embedding, stub_server


def ask(behaviour: Behaviour, *, schema: bool = False, **fields: Any) -> tuple[CallReply, StubServer, float]:
    """The reply to one call, the server, and the seconds it took."""
    with stub_server(behaviour) as stub:
        started = time.monotonic()
        reply = call_once(endpoint(stub.url, **fields), chat(schema=schema))
        return reply, stub, time.monotonic() - started


def test_a_good_reply_carries_text_model_tokens_and_the_raw_body() -> None:
    reply, stub, _ = ask("ok", schema=True)
    assert reply.ok
    assert reply.text in {'{"label": "Compliant"}', '{"label": "Breach"}'}
    assert (reply.model_returned, reply.prompt_tokens, reply.completion_tokens) == ("stub-1", 100, 20)
    assert (reply.attempts, reply.status, reply.error) == (1, 200, "")
    assert '"chat.completion"' in reply.raw
    assert stub.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_server_without_a_key_gets_no_authorization_header() -> None:
    _, stub, _ = ask("ok", api_key=Secret(""))
    assert "authorization" not in stub.requests[0].headers


@pytest.mark.parametrize(
    ("behaviour", "schema", "outcome", "words"),
    [
        ("html", False, "malformed", "web page"),
        ("garbage", False, "malformed", "not JSON"),
        ("not-utf8", False, "malformed", "UTF-8"),
        ("wrong-shape", False, "malformed", "no choices"),
        ("no-choices", False, "malformed", "no choices"),
        ("error-200", False, "malformed", "model is loading"),
        ("empty", False, "malformed", "empty"),
        ("null", False, "malformed", "empty"),
        ("nul", False, "malformed", "NUL"),
        ("surrogate", False, "malformed", "half of a character"),
        ("not-json", True, "malformed", "not JSON"),
        ("duplicate-keys", True, "malformed", "same key twice"),
        ("nan", True, "malformed", "NaN"),
        ("deep", True, "malformed", "nested"),
        ("tool", False, "malformed", "tool"),
        ("length", True, "length", "output limit"),
        ("refusal", False, "refused", "refused"),
        ("filtered", False, "refused", "refused"),
        ("400", False, "http_error", "did not accept"),
        ("404", False, "http_error", "does not know"),
        ("gzip", False, "too_large", "compressed"),
    ],
)
def test_unusable_replies_are_failures_and_are_not_asked_again(
    behaviour: str, schema: bool, outcome: str, words: str
) -> None:
    reply, stub, seconds = ask(behaviour, schema=schema)
    assert reply.outcome == outcome
    assert words in reply.error
    assert reply.error.endswith(".")
    assert reply.text == ""
    assert reply.attempts == len(stub.requests) == 1
    assert seconds < 2


@pytest.mark.parametrize(
    ("behaviour", "outcome", "status", "words"),
    [
        ("500", "http_error", 500, "failed"),
        ("503", "http_error", 503, "failed"),
        ("429", "http_error", 429, "fewer calls"),
        ("hang", "timeout", None, "silent for 0.5 s"),
        ("reset", "connection", None, "broke"),
        ("cut", "connection", None, "broke"),
    ],
)
def test_passing_failures_are_tried_three_times(behaviour: str, outcome: str, status: int | None, words: str) -> None:
    reply, stub, seconds = ask(behaviour)
    assert (reply.outcome, reply.status) == (outcome, status)
    assert words in reply.error
    assert reply.attempts == len(stub.requests) == 3
    assert seconds < 3


def test_a_failure_that_passes_ends_in_an_answer() -> None:
    reply, stub, _ = ask(["500", "reset", "ok"])
    assert reply.ok
    assert reply.attempts == len(stub.requests) == 3


def test_nobody_listens() -> None:
    started = time.monotonic()
    reply = call_once(endpoint("http://127.0.0.1:1/v1"), chat())
    assert (reply.outcome, reply.attempts) == ("connection", 3)
    assert "could not be reached" in reply.error
    assert time.monotonic() - started < 2


def test_an_unknown_name() -> None:
    reply = call_once(endpoint("http://no-such-host.invalid/v1", max_attempts=1), chat())
    assert reply.outcome == "connection"


def test_a_trickle_meets_the_wall_clock_of_one_attempt_and_is_not_asked_again() -> None:
    reply, stub, seconds = ask("trickle")
    assert reply.outcome == "timeout"
    assert "did not finish within 1 s" in reply.error
    assert len(stub.requests) == 1
    assert seconds < 2


def test_all_attempts_together_meet_the_deadline_of_the_call() -> None:
    reply, _, seconds = ask("hang", timeout_s=0.8, call_deadline_s=1.0, max_attempts=10)
    assert reply.outcome == "timeout"
    assert seconds < 2


@pytest.mark.parametrize(("behaviour", "sent"), [("huge", 1), ("huge-error", 1), ("huge-stated", 1)])
def test_a_huge_body_is_dropped_at_the_cap(behaviour: str, sent: int) -> None:
    ask("ok")  # imports and pools are not what is measured
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reply, stub, seconds = ask(behaviour, timeout_s=5)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert reply.outcome == "too_large"
    assert "4 MiB" in reply.error
    assert len(stub.requests) == sent
    assert grown_mib < 32
    assert seconds < 3


def test_short_retry_after_is_waited_in_place() -> None:
    reply, stub, seconds = ask(["429:1", "ok"])
    assert reply.ok
    assert 1.0 <= stub.requests[1].at - stub.requests[0].at < 1.6
    assert seconds < 3


@pytest.mark.parametrize("seconds", ["110", "3600"])
def test_long_retry_after_is_given_back_instead_of_slept(seconds: str) -> None:
    reply, stub, took = ask(f"429:{seconds}")
    assert (reply.outcome, reply.status, reply.retry_after_s) == ("http_error", 429, float(seconds))
    assert len(stub.requests) == 1
    assert took < 2


@pytest.mark.parametrize("nonsense", ["soon", "-5", "nan", "Wed, 99 Foo 2026"])
def test_a_retry_after_that_makes_no_sense_does_not_hurt(nonsense: str) -> None:
    reply, _, seconds = ask([f"429:{nonsense}", "ok"])
    assert reply.ok
    assert seconds < 2


def test_a_retry_after_in_the_form_of_a_date() -> None:
    reply, _, _ = ask("503:Fri, 31 Dec 2100 23:59:59 GMT")
    assert reply.retry_after_s is not None
    assert reply.retry_after_s > 1e9


def test_a_used_up_quota_is_never_tried_again() -> None:
    reply, stub, _ = ask("quota")
    assert "quota" in reply.error
    assert len(stub.requests) == 1


def test_fenced_json_is_accepted_from_servers_that_only_promise_words() -> None:
    reply, _, _ = ask("fenced", schema=True, structured_output="none")
    assert reply.text == '{"label": "A"}'


def test_raw_is_bounded() -> None:
    with stub_server(lambda _: Plan(completion("x" * 200_000))) as stub:
        reply = call_once(endpoint(stub.url), chat())
    assert reply.ok
    assert len(reply.raw) == 64 * 1024
    assert len(reply.text) == 200_000


def test_embeddings_come_back_in_the_order_of_the_inputs() -> None:
    with stub_server() as stub:
        reply = call_once(endpoint(stub.url, kind="embedding"), embed("first text", "second text"))
    assert reply.vectors == (tuple(embedding("first text")), tuple(embedding("second text")))
    assert reply.prompt_tokens == 2
    assert reply.raw == ""


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("few-vectors", "1 vectors for 2 texts"),
        ("odd-vectors", "differ in length"),
        ("nan-vectors", "NaN"),
        ("wrong-shape", "no data"),
    ],
)
def test_wrong_embeddings_are_failures(behaviour: str, words: str) -> None:
    with stub_server(behaviour) as stub:
        reply = call_once(endpoint(stub.url, kind="embedding"), embed("first text", "second text"))
    assert reply.outcome is Outcome.MALFORMED
    assert words in reply.error
    assert reply.vectors is None


def test_a_key_that_the_server_quotes_is_hidden(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with stub_server("401") as stub:
        stream = calls_stream(endpoint(stub.url), [chat()], should_stop=never)
        reply = next(stream)
        with pytest.raises(ModelUnavailable) as caught:
            next(stream)
    assert "[key]" in reply.error
    assert "[key]" in reply.raw
    shown = f"{reply.error} {reply.raw} {caught.value!r} {caught.value} {caplog.text}"
    assert KEY not in shown
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("behaviour", ["ok", "500", "hang", "html", "400", "reset", "redirect:http://x"])
def test_neither_key_nor_prompt_is_logged(behaviour: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with stub_server(behaviour) as stub:
        reply = run(stub, [chat(text="Confidential clause")])
    assert reply
    assert KEY not in caplog.text
    assert "Confidential" not in caplog.text
