"""From the bytes of a reply to an answer or to a failure in clear words. Nothing partial counts as an answer."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pld_app.model_edge.strict_json import StrictJsonError, check_storable, loads_strict
from pld_app.model_edge.types import RAW_CHARS, ChatBody, EmbeddingBody, Outcome, Secret, Vectors

RETRY_STATUSES = frozenset({408, 409, 429})
_ABOUT_THE_REQUEST = frozenset({400, 413, 422, 429})
_ERROR_CHARS = 500
_MODEL_CHARS = 120
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One request and how it ended.

    `retryable` is about the failure only, not about attempts or time left. `fatal` means every other call would end
    the same way until a person acts (key, quota, address).
    """

    outcome: Outcome
    text: str = ""
    vectors: Vectors | None = None
    model_returned: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    status: int | None = None
    error: str = ""
    retryable: bool = False
    retry_after_s: float | None = None
    fatal: bool = False
    raw: str = ""

    @property
    def answered(self) -> bool:
        """The server did its part, even if the model's answer is of no use."""
        return self.status == 200 and not self.provider_failed

    @property
    def provider_failed(self) -> bool:
        """The server, not this one question, is in trouble: what the circuit breaker counts.

        A rate limit has its own brake, and a request the server finds wrong (400, 413, 422) says nothing about others.
        """
        if self.outcome is Outcome.HTTP_ERROR:
            return self.status not in _ABOUT_THE_REQUEST
        unreadable = self.outcome is Outcome.MALFORMED and not self.model_returned and self.prompt_tokens is None
        return unreadable or self.outcome in {Outcome.TIMEOUT, Outcome.CONNECTION}


def readable(body: bytes, secret: Secret) -> str:
    """The body as bounded text fit for storing: no key, no NUL."""
    text = body[: 4 * RAW_CHARS].decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return secret.hide_in(text)[:RAW_CHARS]


def malformed(reason: str, raw: str = "", status: int | None = 200) -> Attempt:
    return Attempt(outcome=Outcome.MALFORMED, error=f"The reply cannot be used: {reason}.", raw=raw, status=status)


def _count(usage: object, *names: str) -> int | None:
    found = [usage[name] for name in names if name in usage] if isinstance(usage, Mapping) else []
    value = found[0] if found else None
    sound = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if sound else None


def _envelope(body: bytes) -> dict[str, object]:
    """The reply's outer object. Raises StrictJsonError with a reason that names the usual mistakes."""
    start = body[:200].lstrip().lower()
    if not start:
        raise StrictJsonError("it is empty")
    if start.startswith((b"<!doctype", b"<html")):
        raise StrictJsonError("it is a web page; the base URL may be wrong")
    try:
        value = loads_strict(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise StrictJsonError("it is not UTF-8 text") from error
    if not isinstance(value, dict):
        raise StrictJsonError("it is not a JSON object")
    if value.get("error") and not ({"choices", "data"} & value.keys()):
        raise StrictJsonError(f"the server reports an error: {_error_message(value)}")
    return value


def _error_message(value: Mapping[str, object]) -> str:
    error = value.get("error")
    message = error.get("message") if isinstance(error, Mapping) else error
    return str(message)[:_ERROR_CHARS] if message else "no reason given"


def _unfenced(text: str) -> str:
    match = _FENCED.fullmatch(text)
    return match.group(1) if match else text


def _content_failure(choice: Mapping[str, object], message: Mapping[str, object]) -> Attempt | None:
    finish = choice.get("finish_reason")
    if message.get("refusal") or finish == "content_filter":
        return Attempt(outcome=Outcome.REFUSED, error="The model refused to answer this question.")
    if finish == "length":
        return Attempt(outcome=Outcome.LENGTH, error="The reply was cut at the output limit and cannot be used.")
    if finish in {"tool_calls", "function_call"}:
        return malformed("the model asked for a tool instead of answering")
    return None


def _chat_answer(value: Mapping[str, object], body: ChatBody) -> Attempt:
    if value.get("object") == "response" or "output" in value:
        return _responses_answer(value, body)
    choices = value.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return malformed("it holds no answer (no choices)")
    failure = _content_failure(choice, message)
    if failure is not None:
        return failure
    return _checked_text(message.get("content"), body)


def _responses_answer(value: Mapping[str, object], body: ChatBody) -> Attempt:
    """The same judgement for the Responses API: an answer is a completed response with output text."""
    details = value.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    parts = _output_parts(value.get("output"))
    finish = {"max_output_tokens": "length", "content_filter": "content_filter"}.get(str(reason), "stop")
    refusal = next((part for part in parts if part.get("type") == "refusal"), {})
    failure = _content_failure({"finish_reason": finish}, {"refusal": refusal.get("refusal")})
    if failure is not None:
        return failure
    if value.get("status") != "completed":
        return malformed(f"the response is {str(value.get('status'))[:40]}, not completed")
    texts = [str(part.get("text", "")) for part in parts if part.get("type") == "output_text"]
    return _checked_text("".join(texts), body)


def _output_parts(output: object) -> list[Mapping[str, object]]:
    """The content parts of the messages among a response's output items; reasoning and the like are left out."""
    items = output if isinstance(output, list) else []
    messages = [item for item in items if isinstance(item, Mapping) and item.get("type") == "message"]
    contents = [content for item in messages if isinstance(content := item.get("content"), list)]
    return [part for content in contents for part in content if isinstance(part, Mapping)]


def _checked_text(text: object, body: ChatBody) -> Attempt:
    if not isinstance(text, str) or not text.strip():
        return malformed("the answer is empty")
    check_storable(text)
    if body.schema is not None:
        text = _unfenced(text)
        if not isinstance(loads_strict(text), dict):
            return malformed("the answer is not a JSON object")
    return Attempt(outcome=Outcome.OK, text=text)


def _vector(row: object) -> tuple[int, tuple[float, ...]]:
    index = row.get("index") if isinstance(row, dict) else None
    numbers = row.get("embedding") if isinstance(row, dict) else None
    if not isinstance(index, int) or not isinstance(numbers, list) or not numbers:
        raise StrictJsonError("an item is not a vector with its index")
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise StrictJsonError("a vector holds something other than numbers")
    return index, tuple(map(float, numbers))


def _embedding_answer(value: Mapping[str, object], body: EmbeddingBody) -> Attempt:
    data = value.get("data")
    if not isinstance(data, list):
        return malformed("it holds no vectors (no data)")
    rows = sorted(map(_vector, data), key=lambda row: row[0])
    if [index for index, _ in rows] != list(range(len(body.inputs))):
        return malformed(f"it holds {len(rows)} vectors for {len(body.inputs)} texts, or the wrong ones")
    vectors = tuple(vector for _, vector in rows)
    if len({len(vector) for vector in vectors}) > 1:
        return malformed("its vectors differ in length")
    return Attempt(outcome=Outcome.OK, vectors=vectors)


def _answer(value: Mapping[str, object], body: ChatBody | EmbeddingBody) -> Attempt:
    try:
        if isinstance(body, EmbeddingBody):
            return _embedding_answer(value, body)
        return _chat_answer(value, body)
    except (StrictJsonError, OverflowError) as error:
        return malformed(str(error))


def read_success(content: bytes, body: ChatBody | EmbeddingBody, secret: Secret) -> Attempt:
    """Judge the body of a 2xx answer. Vectors are not repeated in `raw`, text is."""
    raw = readable(content, secret)
    try:
        value = _envelope(content)
    except StrictJsonError as error:
        return malformed(readable(str(error).encode("utf-8", "replace"), secret), raw)
    answer = _answer(value, body)
    model = value.get("model")
    usage = value.get("usage")
    return replace(
        answer,
        status=200,
        model_returned=readable(str(model or "").encode("utf-8", "replace"), secret)[:_MODEL_CHARS],
        # The Responses API counts under other names.
        prompt_tokens=_count(usage, "prompt_tokens", "input_tokens"),
        completion_tokens=_count(usage, "completion_tokens", "output_tokens"),
        raw="" if answer.vectors is not None else raw,
    )


def _error_code(content: bytes) -> tuple[str, str]:
    """The server's error code and message from a non-2xx body, both empty when it is not the usual JSON."""
    try:
        value = loads_strict(content.decode("utf-8"))
    except (UnicodeDecodeError, StrictJsonError):
        return "", ""
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return "", _error_message(value) if isinstance(value, dict) and "error" in value else ""
    return f"{error.get('code') or ''} {error.get('type') or ''}", _error_message({"error": error})


_STATUS_WORDS = {
    400: "The endpoint did not accept the request",
    401: "The endpoint refused the key",
    403: "The endpoint does not allow this",
    404: "The endpoint does not know this address or model",
    429: "The endpoint asks for fewer calls",
}


def read_error(status: int, content: bytes, retry_after_s: float | None, secret: Secret) -> Attempt:
    """Judge an answer other than 2xx. A used-up quota looks like a rate limit but no waiting mends it."""
    code, message = _error_code(content)
    quota = "insufficient_quota" in code
    words = _STATUS_WORDS.get(status, "The endpoint failed" if status >= 500 else "The endpoint refused the request")
    if 300 <= status < 400:
        words, message = "The endpoint redirects elsewhere, which is not followed; correct its base URL", ""
    if quota:
        words = "The quota at the endpoint is used up"
    detail = readable(message.encode("utf-8", "replace"), secret)
    return Attempt(
        outcome=Outcome.HTTP_ERROR,
        status=status,
        error=f"{words} (status {status}{': ' + detail if detail else ''}).",
        retryable=not quota and (status in RETRY_STATUSES or status >= 500),
        retry_after_s=retry_after_s,
        fatal=quota or status == 401,
        raw=readable(content, secret),
    )
