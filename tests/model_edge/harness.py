"""Endpoints and requests for the tests of the model edge."""

from collections.abc import Callable, Iterable
from typing import Any

import redis
from django.conf import settings
from django.db import connection

from pld_app.model_edge import (
    CallReply,
    CallRequest,
    ChatBody,
    EmbeddingBody,
    EndpointConfig,
    Message,
    Secret,
    calls_stream,
)
from tests.stub_server import StubServer

KEY = "sk-seeded-0123456789abcdef"
LABEL_SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["Compliant", "Breach"]}},
    "required": ["label"],
    "additionalProperties": False,
}


def endpoint(url: str, **fields: Any) -> EndpointConfig:
    """A private endpoint that gives up quickly: 0.5 s of silence, retries within hundredths of a second."""
    values: dict[str, Any] = {
        "name": "stub",
        "base_url": url,
        "model": "stub-1",
        "api_key": Secret(KEY),
        "timeout_s": 0.5,
        "call_deadline_s": 3.0,
        "retry_base_s": 0.02,
        "breaker_open_s": 0.3,
        "allow_private": True,
    }
    return EndpointConfig(**(values | fields))


def chat(key: str = "t-1", *, schema: bool = False, text: str = "May copies be kept?", **fields: Any) -> CallRequest:
    values: dict[str, Any] = {
        "messages": (Message("system", "You check clauses."), Message("user", f"{text} {key}")),
        "schema": LABEL_SCHEMA if schema else None,
    }
    return CallRequest(key=key, purpose="test", body=ChatBody(**(values | fields)))


def embed(*texts: str) -> CallRequest:
    return CallRequest(key="batch", purpose="embed", body=EmbeddingBody(texts))


def never() -> bool:
    return False


def limits_forgotten() -> None:
    """Forget what workers have learned about endpoints, as if the time to wait were over."""
    client = redis.Redis.from_url(settings.REDIS_URL)
    keys = list(client.scan_iter(f"pld:limits:{connection.settings_dict['NAME']}:*"))
    if keys:
        client.delete(*keys)
    client.close()


def run(
    stub: StubServer,
    requests: Iterable[CallRequest],
    *,
    should_stop: Callable[[], bool] = never,
    **fields: Any,
) -> list[CallReply]:
    return list(calls_stream(endpoint(stub.url, **fields), requests, should_stop=should_stop))
