"""Requests, their hashes and the key that does not leak."""

import copy
import dataclasses
import json
import pickle

import pytest

from pld_app.model_edge import Secret, request_hash
from pld_app.model_edge.types import wire_body
from tests.model_edge.harness import KEY, LABEL_SCHEMA, chat, embed, endpoint

URL = "http://127.0.0.1:9/v1"


def test_equal_questions_have_one_hash_and_the_key_or_item_do_not_matter() -> None:
    one = request_hash(endpoint(URL), chat(text="x"))
    other_key = request_hash(endpoint(URL + "/", api_key=Secret("another"), concurrency=3), chat(text="x"))
    relabelled = dataclasses.replace(chat(text="x"), key="other item", purpose="other")
    assert one == other_key == request_hash(endpoint(URL), relabelled)
    assert len(one) == 64


@pytest.mark.parametrize(
    "changed",
    [
        request_hash(endpoint(URL, model="stub-2"), chat()),
        request_hash(endpoint("http://127.0.0.1:10/v1"), chat()),
        request_hash(endpoint(URL), chat(text="other")),
        request_hash(endpoint(URL), chat(temperature=0.5)),
        request_hash(endpoint(URL), chat(seed=7)),
        request_hash(endpoint(URL), chat(max_tokens=5)),
        request_hash(endpoint(URL), chat(schema=True)),
    ],
)
def test_what_changes_the_question_changes_the_hash(changed: str) -> None:
    assert changed != request_hash(endpoint(URL), chat())


def test_structured_output_is_asked_for_as_the_endpoint_can() -> None:
    strict = wire_body(endpoint(URL), chat(schema=True))
    assert strict["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": LABEL_SCHEMA, "strict": True},
    }
    loose = wire_body(endpoint(URL, structured_output="json_object"), chat(schema=True))
    assert loose["response_format"] == {"type": "json_object"}
    words = wire_body(endpoint(URL, structured_output="none"), chat(schema=True))
    assert "response_format" not in words
    for body in (loose, words):
        assert json.dumps(LABEL_SCHEMA, sort_keys=True) in json.loads(json.dumps(body))["messages"][0]["content"]


def test_the_output_limit_never_exceeds_the_endpoints_and_openai_gets_its_own_name_for_it() -> None:
    assert wire_body(endpoint(URL, max_output_tokens=100), chat(max_tokens=500))["max_tokens"] == 100
    assert wire_body(endpoint(URL, max_output_tokens=100), chat(max_tokens=50))["max_tokens"] == 50
    assert wire_body(endpoint("https://api.openai.com/v1"), chat())["max_completion_tokens"] == 1024


def test_embedding_body_holds_the_inputs_in_order() -> None:
    assert wire_body(endpoint(URL, kind="embedding"), embed("b", "a"))["input"] == ["b", "a"]


def test_the_key_is_in_no_repr_and_cannot_be_pickled() -> None:
    config = endpoint(URL)
    shown = f"{config!r} {config} {config.api_key!r} {config.api_key} {[config.api_key]}"
    assert KEY not in shown
    assert KEY not in str(dataclasses.asdict(config))
    assert copy.deepcopy(config).api_key.reveal() == KEY
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(config)


def test_prompts_are_in_no_repr() -> None:
    assert "copies" not in repr(chat())
