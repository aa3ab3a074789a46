"""What goes into a model call and what comes out of it. No Django, no network."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Never
from urllib.parse import urlsplit

RAW_CHARS = 64 * 1024


class Secret:
    """A key that does not print, pickle or compare by accident; `reveal()` is the one way to its text."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def hide_in(self, text: str) -> str:
        """The text with every occurrence of the key replaced; some servers quote it in their error messages."""
        return text.replace(self._value, "[key]") if self._value else text

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(hidden)" if self._value else "Secret(empty)"

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce__(self) -> Never:
        raise TypeError("A key is never pickled: it must not travel in task arguments.")


EndpointKind = Literal["chat", "embedding"]
WireApi = Literal["chat", "responses"]
StructuredOutput = Literal["json_schema", "json_object", "none"]


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """One OpenAI-compatible server, one model on it, and the limits we keep. Times in seconds.

    `timeout_s` bounds one silence of the server; one attempt is bounded by twice that, a call with its retries and
    pauses by `call_deadline_s`. Waiting for our own rate limits counts towards neither.
    """

    name: str
    base_url: str
    model: str
    api_key: Secret
    kind: EndpointKind = "chat"
    api: WireApi = "chat"
    concurrency: int = 8
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout_s: float = 60.0
    call_deadline_s: float = 240.0
    max_attempts: int = 3
    max_output_tokens: int = 1024
    structured_output: StructuredOutput = "json_schema"
    allow_private: bool = False
    retry_base_s: float = 1.0
    breaker_open_s: float = 30.0
    # Streams that name the same key keep the limits together, in Valkey; empty: each for itself.
    shared_limits: str = ""

    @property
    def attempt_deadline_s(self) -> float:
        return min(2 * self.timeout_s, self.call_deadline_s)


@dataclass(frozen=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True)
class ChatBody:
    """One chat question. With a `schema` the reply must be one JSON object; its fields are the caller's to check."""

    messages: tuple[Message, ...]
    schema_name: str | None = None
    schema: Mapping[str, object] | None = None
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True)
class EmbeddingBody:
    """Texts to embed. Keep a batch near 64: the reply is JSON and must fit the 4 MiB cap."""

    inputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CallRequest:
    """`key` names the item for the caller (a trace id, say), `purpose` the kind of call for the ledger."""

    key: str
    purpose: str
    # Prompts and replies hold customers' text, so no log line or traceback prints them by way of a repr.
    body: ChatBody | EmbeddingBody = field(repr=False)


class Outcome(StrEnum):
    OK = "ok"
    MALFORMED = "malformed"
    REFUSED = "refused"
    LENGTH = "length"
    HTTP_ERROR = "http_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    CANCELLED = "cancelled"
    TOO_LARGE = "too_large"


Vectors = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class CallReply:
    """How one call ended. Only `ok` carries an answer: `text` for chat, `vectors` (input order) for embeddings.

    `attempts` counts requests sent, 0 if the stream ended before this call's turn. `error` is a sentence for a
    person. `retry_after_s` is the server's wish. `raw` is the body as received, at most 64 Ki characters.
    """

    request: CallRequest
    outcome: Outcome
    text: str = field(default="", repr=False)
    vectors: Vectors | None = field(default=None, repr=False)
    model_returned: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_ms: int = 0
    attempts: int = 0
    status: int | None = None
    error: str = ""
    retry_after_s: float | None = None
    raw: str = field(default="", repr=False)

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK


# Providers that hold a model to a schema refuse or ignore these; whoever asked checks the reply against all of it.
_NOT_ENFORCED = frozenset({"minLength", "maxLength", "minItems", "maxItems", "title", "default"})


def _enforceable(schema: object) -> object:
    """The schema without the keywords that strict modes do not know; property names are no keywords."""
    if isinstance(schema, list):
        return [_enforceable(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: {name: _enforceable(one) for name, one in value.items()}
        if key in {"properties", "$defs"}
        else _enforceable(value)
        for key, value in schema.items()
        if key not in _NOT_ENFORCED
    }


def _messages(endpoint: EndpointConfig, body: ChatBody) -> list[dict[str, str]]:
    messages = [{"role": m.role, "content": m.content} for m in body.messages]
    if body.schema is not None and endpoint.structured_output != "json_schema":
        # The server will not hold the model to the schema, so the model is told of it.
        rule = "Answer with one JSON object and nothing else. It must satisfy this JSON Schema: "
        text = rule + json.dumps(body.schema, sort_keys=True, ensure_ascii=False)
        messages.insert(0, {"role": "system", "content": text})
    return messages


def _response_format(endpoint: EndpointConfig, body: ChatBody) -> dict[str, object] | None:
    if body.schema is None or endpoint.structured_output == "none":
        return None
    if endpoint.structured_output == "json_object":
        return {"type": "json_object"}
    schema = {"name": body.schema_name or "reply", "schema": _enforceable(body.schema), "strict": True}
    # The same words, one level flatter in the newer API.
    return {"type": "json_schema", **(schema if endpoint.api == "responses" else {"json_schema": schema})}


def _output_limit(endpoint: EndpointConfig, body: ChatBody) -> dict[str, object]:
    limit = min(body.max_tokens or endpoint.max_output_tokens, endpoint.max_output_tokens)
    if endpoint.api == "responses":
        return {"max_output_tokens": limit}
    # OpenAI's newer models refuse the old name; other servers mostly know only that one.
    host = urlsplit(endpoint.base_url).hostname or ""
    name = "max_completion_tokens" if host.endswith("openai.com") else "max_tokens"
    return {name: limit}


def wire_body(endpoint: EndpointConfig, request: CallRequest) -> dict[str, object]:
    """The JSON body as it is sent."""
    body = request.body
    if isinstance(body, EmbeddingBody):
        return {"model": endpoint.model, "input": list(body.inputs), "encoding_format": "float"}
    return {"model": endpoint.model, **_output_limit(endpoint, body), **_question(endpoint, body)}


def _question(endpoint: EndpointConfig, body: ChatBody) -> dict[str, object]:
    messages, form = _messages(endpoint, body), _response_format(endpoint, body)
    optional: dict[str, object | None] = {"temperature": body.temperature}
    if endpoint.api == "responses":
        # Nothing of a customer's text is to be kept at the provider; this API knows no seed.
        return _given(optional | {"text": {"format": form} if form else None}) | {"input": messages, "store": False}
    return _given(optional | {"response_format": form, "seed": body.seed}) | {"messages": messages}


def _given(optional: Mapping[str, object | None]) -> dict[str, object]:
    return {name: value for name, value in optional.items() if value is not None}


def request_hash(endpoint: EndpointConfig, request: CallRequest) -> str:
    """SHA-256 (hex) over canonical JSON of base URL, model and body: equal hashes are the same question."""
    asked = {"base_url": endpoint.base_url.rstrip("/"), "model": endpoint.model, "body": wire_body(endpoint, request)}
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def estimated_prompt_tokens(request: CallRequest) -> int:
    """A cautious guess, three UTF-8 bytes a token plus eight a message; for rate limits and reservations only."""
    body = request.body
    texts = list(body.inputs) if isinstance(body, EmbeddingBody) else [m.content for m in body.messages]
    schema = 0 if isinstance(body, EmbeddingBody) or body.schema is None else len(json.dumps(body.schema))
    return (sum(len(t.encode()) for t in texts) + schema) // 3 + 8 * len(texts)


def estimated_output_tokens(endpoint: EndpointConfig, request: CallRequest) -> int:
    """The most a reply can be billed for: the output limit we send, 0 for embeddings."""
    if isinstance(request.body, EmbeddingBody):
        return 0
    return min(request.body.max_tokens or endpoint.max_output_tokens, endpoint.max_output_tokens)
