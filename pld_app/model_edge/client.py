"""One call to one endpoint, with our own retries, pauses and wall clocks; the SDK only builds and sends requests."""

import asyncio
import email.utils
import logging
import math
import random
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import httpx2
import openai

from pld_app.model_edge.addresses import AddressRefusedError, check_url
from pld_app.model_edge.replies import Attempt, read_error, read_success
from pld_app.model_edge.transport import (
    MAX_BODY_BYTES,
    BodyEncodedError,
    BodyTooLargeError,
    GuardedTransport,
)
from pld_app.model_edge.types import (
    CallReply,
    CallRequest,
    EndpointConfig,
    Outcome,
    estimated_output_tokens,
    estimated_prompt_tokens,
    wire_body,
)

MAX_WAIT_IN_PLACE_S = 20.0
_BACKOFF_CAP_S = 30.0

# At DEBUG these libraries describe requests; prompts are customers' contracts and stay out of our logs.
for _name in ("openai", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class NotSentError(Exception):
    """The stream ended while this attempt waited for its turn."""


class Turn(Protocol):
    """A permit for one attempt; `settle` tells the limits how it went."""

    def settle(self, attempt: Attempt) -> None: ...


class Admission(Protocol):
    """The limits as one call sees them. `attempts` counts the permits given to this call."""

    attempts: int

    def turn(self, tokens: int) -> AbstractAsyncContextManager[Turn]:
        """Wait for a permit worth this many tokens. Raises NotSentError when the stream has ended."""
        ...

    async def pause(self, seconds: float) -> None:
        """Sleep between two attempts. Raises NotSentError when the stream ends meanwhile."""
        ...


@dataclass
class _Clock:
    """Seconds this call may still take; waiting for our own limits is not counted."""

    deadline_s: float
    spent_s: float = 0.0

    @property
    def left_s(self) -> float:
        return self.deadline_s - self.spent_s


def parse_retry_after(headers: httpx2.Headers, *, now: float) -> float | None:
    """Seconds from `retry-after-ms` or `Retry-After` (seconds or a date; `now` in epoch seconds). None if absent."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def backoff_s(endpoint: EndpointConfig, attempt: int, asked_s: float | None) -> float:
    """Seconds before the next try: what the server asked (plus up to 10 %), else full jitter that doubles to 30 s."""
    if asked_s is not None:
        return asked_s * random.uniform(1.0, 1.1)  # noqa: S311
    return random.uniform(0.0, min(_BACKOFF_CAP_S, endpoint.retry_base_s * 2.0 ** (attempt - 1)))  # noqa: S311


class EndpointClient:
    """Calls one endpoint. Lives in one event loop; `call` never raises for what a server can do."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        check_url(endpoint.base_url)
        self._endpoint = endpoint
        timeout = httpx2.Timeout(connect=5, read=endpoint.timeout_s, write=min(30, endpoint.timeout_s), pool=5)
        http = httpx2.AsyncClient(
            transport=GuardedTransport(endpoint), timeout=timeout, follow_redirects=False, trust_env=False
        )
        self._sdk = openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key="held-by-the-transport",
            max_retries=0,
            timeout=timeout,
            http_client=http,
        )

    @property
    def _path(self) -> str:
        if self._endpoint.kind == "embedding":
            return "/embeddings"
        return "/responses" if self._endpoint.api == "responses" else "/chat/completions"

    async def aclose(self) -> None:
        await self._sdk.close()

    async def call(self, request: CallRequest, admission: Admission) -> CallReply:
        """Ask until answered, refused for good, or out of attempts or time.

        Raises NotSentError only if the stream ended before the first attempt.
        """
        body = wire_body(self._endpoint, request)
        tokens = estimated_prompt_tokens(request) + estimated_output_tokens(self._endpoint, request)
        clock = _Clock(self._endpoint.call_deadline_s)
        attempt: Attempt | None = None
        try:
            while True:
                async with admission.turn(tokens) as turn:
                    attempt = await self._attempt(request, body, clock)
                    turn.settle(attempt)
                wait = self._wait_before_next(attempt, admission.attempts, clock)
                if wait is None:
                    break
                await admission.pause(wait)
                clock.spent_s += wait
        except NotSentError:
            if attempt is None:
                raise
        return self._reply(request, attempt, admission.attempts, clock)

    def _wait_before_next(self, attempt: Attempt, attempts: int, clock: _Clock) -> float | None:
        """Seconds until another try, or None to stop here."""
        asked = attempt.retry_after_s
        too_long = asked is not None and asked > MAX_WAIT_IN_PLACE_S
        if not attempt.retryable or too_long or attempts >= self._endpoint.max_attempts:
            return None
        wait = backoff_s(self._endpoint, attempts, asked)
        return wait if wait < clock.left_s else None

    def _reply(self, request: CallRequest, attempt: Attempt, attempts: int, clock: _Clock) -> CallReply:
        return CallReply(
            request=request,
            outcome=attempt.outcome,
            text=attempt.text,
            vectors=attempt.vectors,
            model_returned=attempt.model_returned,
            prompt_tokens=attempt.prompt_tokens,
            completion_tokens=attempt.completion_tokens,
            latency_ms=round(clock.spent_s * 1000),
            attempts=attempts,
            status=attempt.status,
            error=attempt.error,
            retry_after_s=attempt.retry_after_s,
            raw=attempt.raw,
        )

    async def _attempt(self, request: CallRequest, body: dict[str, object], clock: _Clock) -> Attempt:
        """One request under its wall clock; every way a server can fail becomes an Attempt."""
        started = time.monotonic()
        wall = min(self._endpoint.attempt_deadline_s, clock.left_s)
        try:
            async with asyncio.timeout(wall):
                content = await self._content(body)
            # Large replies are parsed here, in the loop's thread; the cap bounds that to some tens of milliseconds.
            return read_success(content, request.body, self._endpoint.api_key)
        except TimeoutError:
            # Alive but too slow: the same question would take as long again, so it is not repeated.
            return Attempt(outcome=Outcome.TIMEOUT, error=f"The endpoint did not finish within {wall:g} s.")
        except (
            openai.APIError,
            httpx2.RequestError,
            AddressRefusedError,
            BodyTooLargeError,
            BodyEncodedError,
        ) as error:
            return self._failure(error)
        finally:
            clock.spent_s += time.monotonic() - started

    async def _content(self, body: dict[str, object]) -> bytes:
        """The body of a 2xx answer, capped by the transport; we read it ourselves, so the SDK parses nothing.

        `post` is the SDK's door for bodies built by the caller: `create` would spend a fifth of a call's CPU time on
        copying the messages through its types, which matters with 32 calls at a time.
        """
        response = await self._sdk.post(self._path, cast_to=httpx2.Response, body=body)
        return response.content

    def _failure(self, error: Exception) -> Attempt:
        if isinstance(error, openai.APIStatusError):
            asked = parse_retry_after(error.response.headers, now=time.time())
            return read_error(error.status_code, error.response.content, asked, self._endpoint.api_key)
        if isinstance(error, AddressRefusedError):
            return Attempt(outcome=Outcome.CONNECTION, error=str(error), fatal=True)
        if isinstance(error, (BodyTooLargeError, BodyEncodedError)):
            limit = f"more than {MAX_BODY_BYTES // 2**20} MiB" if isinstance(error, BodyTooLargeError) else "compressed"
            return Attempt(outcome=Outcome.TOO_LARGE, error=f"The reply is {limit} and was dropped.")
        cause = error.__cause__ or error
        if isinstance(cause, httpx2.TimeoutException):
            return Attempt(outcome=Outcome.TIMEOUT, error=self._timeout_words(cause), retryable=True)
        return Attempt(outcome=Outcome.CONNECTION, error=_connection_words(cause), retryable=True)

    def _timeout_words(self, cause: httpx2.TimeoutException) -> str:
        if isinstance(cause, httpx2.ConnectTimeout):
            return "The endpoint could not be reached in time."
        return f"The endpoint was silent for {self._endpoint.timeout_s:g} s."


def _connection_words(cause: BaseException) -> str:
    if isinstance(cause, httpx2.ConnectError):
        return "The endpoint could not be reached."
    return "The connection broke before the reply was complete."
