"""The Responses API as the wire format of an endpoint: what is sent, and how each kind of answer is judged."""

from typing import Any

import pytest

from pld_app.model_edge import CallRequest, ChatBody, Message, Outcome, request_hash
from pld_app.model_edge.estimate import calls_estimate
from pld_app.model_edge.ledger import recorded_calls
from pld_app.models import ModelCall
from tests.factories import make_endpoint
from tests.model_edge.harness import chat, endpoint, never, run
from tests.stub_server import Behaviour, Plan, completion, response, stub_server


def asked(behaviour: Behaviour = "ok", *, schema: bool = True, **fields: Any) -> tuple[Any, Any]:
    """The one request as the server saw it, and the reply."""
    with stub_server(behaviour) as stub:
        (reply,) = run(stub, [chat(schema=schema, temperature=0.0, seed=7)], api="responses", **fields)
        return stub.requests[-1], reply


def test_a_question_goes_out_in_the_responses_format_and_its_answer_is_read() -> None:
    request, reply = asked()
    assert request.path == "/v1/responses"
    assert set(request.body) == {"model", "input", "max_output_tokens", "temperature", "text", "store"}
    assert request.body["store"] is False
    form = request.body["text"]["format"]
    assert (form["type"], form["strict"]) == ("json_schema", True)
    assert form["schema"]["required"] == ["label"]
    assert [message["role"] for message in request.body["input"]] == ["system", "user"]
    assert (reply.outcome, reply.prompt_tokens, reply.completion_tokens) == (Outcome.OK, 100, 20)
    assert reply.text.startswith('{"label": ')


def test_json_mode_and_plain_words() -> None:
    request, _reply = asked(structured_output="json_object")
    assert request.body["text"] == {"format": {"type": "json_object"}}
    request, reply = asked(schema=False)
    assert "text" not in request.body
    assert reply.text.startswith("Stub answer")


@pytest.mark.parametrize(
    ("body", "outcome", "words"),
    [
        (response("{", status="incomplete", reason="max_output_tokens"), Outcome.LENGTH, "output limit"),
        (response("", status="incomplete", reason="content_filter"), Outcome.REFUSED, "refused"),
        (response("", type="refusal", refusal="I cannot help."), Outcome.REFUSED, "refused"),
        (response("{}", status="failed"), Outcome.MALFORMED, "not completed"),
        (response("{}", status="in_progress"), Outcome.MALFORMED, "not completed"),
        (response(""), Outcome.MALFORMED, "empty"),
        (response("Sure!"), Outcome.MALFORMED, "not"),
        (response("{}") | {"output": []}, Outcome.MALFORMED, "empty"),
        (response("{}") | {"output": [3, {"type": "message", "content": "x"}]}, Outcome.MALFORMED, "empty"),
        ({"object": "response", "error": {"message": "overloaded"}}, Outcome.MALFORMED, "overloaded"),
    ],
)
def test_nothing_partial_counts_as_an_answer(body: dict[str, Any], outcome: Outcome, words: str) -> None:
    _request, reply = asked(lambda _request: Plan(body))
    assert reply.outcome == outcome
    assert words in reply.error
    assert reply.attempts == 1


def test_a_server_that_answers_in_the_other_format_is_understood() -> None:
    # Some gateways take the new address and answer in the old shape.
    _request, reply = asked(lambda _request: Plan(completion('{"label": "Breach"}')))
    assert reply.ok


def test_lengths_stay_out_of_the_schema_that_is_sent_and_names_stay_in() -> None:
    schema = {
        "type": "object",
        "title": "Reply",
        "properties": {"title": {"type": "string", "minLength": 1, "title": "Title"}},
        "required": ["title"],
    }
    with stub_server() as stub:
        run(stub, [_with(schema)])
        sent = stub.requests[0].schema
    assert sent == {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}


def _with(schema: dict[str, Any]) -> CallRequest:
    return CallRequest(key="t", purpose="test", body=ChatBody(messages=(Message("user", "q"),), schema=schema))


def test_the_two_formats_are_two_questions_to_the_ledger() -> None:
    request = chat(schema=True)
    assert request_hash(endpoint("http://x/v1"), request) != request_hash(
        endpoint("http://x/v1", api="responses"), request
    )


@pytest.mark.django_db
def test_an_endpoint_row_chooses_the_format_and_a_call_names_its_run() -> None:
    with stub_server() as stub:
        row = make_endpoint(stub.url, api="responses", price_in=2, price_out=10)
        calls = list(recorded_calls(row, [chat(schema=True)], scope="", should_stop=never, run="nda mining 1"))
        again = list(recorded_calls(row, [chat(schema=True)], scope="", should_stop=never, run="nda mining 2"))
        assert [one.path for one in stub.requests] == ["/v1/responses"]
    assert (calls[0].ok, again[0].reused) == (True, True)
    assert ModelCall.objects.get().run == "nda mining 1"
    assert calls_estimate(row, [chat(schema=True)], scope="").calls == 0
