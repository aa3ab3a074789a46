"""How fast one stream may ask: calls at a time, requests and tokens per minute, and a circuit breaker.

Everything here runs in the stream's event loop and never awaits half-way through a change, so it needs no locks.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pld_app.model_edge.client import MAX_WAIT_IN_PLACE_S, NotSentError
from pld_app.model_edge.errors import ModelUnavailable
from pld_app.model_edge.replies import Attempt
from pld_app.model_edge.types import EndpointConfig

SUCCESSES_PER_STEP = 20
FAILURES_TO_OPEN = 5


class Bucket:
    """A token bucket: `per_minute` units flow in, at most `burst_s` seconds' worth wait. None means no limit."""

    def __init__(self, per_minute: int | None, *, burst_s: float) -> None:
        self._rate = None if per_minute is None else per_minute / 60.0
        self._burst = 0.0 if self._rate is None else max(1.0, self._rate * burst_s)
        self._level = self._burst
        self._filled_at = time.monotonic()

    def reserve(self, amount: float) -> float:
        """Take the amount now and return the seconds to wait before using it; first come, first served.

        An amount larger than the bucket waits for a full one and leaves a debt, so it is late but never stuck.
        """
        if self._rate is None:
            return 0.0
        now = time.monotonic()
        self._level = min(self._burst, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now
        missing = min(amount, self._burst) - self._level
        self._level -= amount
        return max(0.0, missing / self._rate)

    def correct(self, surplus: float) -> None:
        """Return what an estimate took too much; negative when more was used."""
        if self._rate is not None:
            self._level += surplus


@dataclass(eq=False)
class GrantedTurn:
    """One attempt's permit. `tokens` were reserved for it; a probe decides whether the circuit closes."""

    governor: "Governor"
    tokens: int
    probe: bool
    started_at: float

    def settle(self, attempt: Attempt) -> None:
        self.governor.learn(self, attempt)


class Governor:
    """Grants each attempt its turn and learns from how it went.

    429 halves the calls at a time, once per wave (attempts sent before the last halving do not count again); 20
    successes add one. A short Retry-After holds back every call, not only the one that was told. Five server failures
    in a row open the circuit: nothing is sent for `breaker_open_s`, then one probe. A probe that fails, a refused key
    or quota, or a Retry-After beyond 20 s ends the stream and leaves the reason in `unavailable`.
    """

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._endpoint = endpoint
        self.limit = endpoint.concurrency
        self.unavailable: ModelUnavailable | None = None
        self.ended = asyncio.Event()
        self._requests = Bucket(endpoint.requests_per_minute, burst_s=1.0)
        self._tokens = Bucket(endpoint.tokens_per_minute, burst_s=10.0)
        self._active = self._successes = self._failures = 0
        self._halved_at = self._held_until = 0.0
        self._circuit_open = self._probing = False
        self._waiters: list[asyncio.Future[None]] = []

    def end(self) -> None:
        """Grant no more turns; those who wait get NotSentError."""
        self.ended.set()
        self._wake()

    async def pause(self, seconds: float) -> None:
        """Sleep. Raises NotSentError as soon as the stream ends."""
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            return
        raise NotSentError

    async def enter(self, tokens: int) -> GrantedTurn:
        """Wait for a turn. Raises NotSentError when the stream has ended."""
        delay = max(self._requests.reserve(1), self._tokens.reserve(tokens))
        if delay > 0:
            await self.pause(delay)
        while not self._may_go():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        self._active += 1
        self._probing = self._circuit_open
        return GrantedTurn(self, tokens, self._circuit_open, time.monotonic())

    def _may_go(self) -> bool:
        if self.ended.is_set():
            raise NotSentError
        if time.monotonic() < self._held_until or (self._circuit_open and self._probing):
            return False
        return self._active < self.limit

    def leave(self, turn: GrantedTurn) -> None:
        self._active -= 1
        if turn.probe:
            self._probing = False
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _hold(self, seconds: float) -> None:
        self._held_until = max(self._held_until, time.monotonic() + seconds)
        # A little late rather than early: a waiter woken too soon would sleep again with nothing to wake it.
        asyncio.get_running_loop().call_later(seconds + 0.01, self._wake)

    def learn(self, turn: GrantedTurn, attempt: Attempt) -> None:
        """Adjust limits and circuit to one finished attempt."""
        if attempt.prompt_tokens is not None:
            self._tokens.correct(turn.tokens - attempt.prompt_tokens - (attempt.completion_tokens or 0))
        if attempt.fatal:
            self._give_up(attempt.error, retry_after_s=None)
        elif attempt.retryable and attempt.retry_after_s is not None:
            self._obey(attempt.retry_after_s)
        if attempt.status == 429:
            self._halve(turn)
        if attempt.answered:
            self._succeed()
        elif attempt.provider_failed:
            self._fail(turn, attempt)

    def _obey(self, seconds: float) -> None:
        if seconds > MAX_WAIT_IN_PLACE_S:
            self._give_up(f"The endpoint asks to wait {seconds:.0f} s.", retry_after_s=seconds)
        else:
            self._hold(seconds)

    def _halve(self, turn: GrantedTurn) -> None:
        self._successes = 0
        if turn.started_at >= self._halved_at:
            self.limit = max(1, self.limit // 2)
            self._halved_at = time.monotonic()

    def _succeed(self) -> None:
        self._failures = 0
        self._circuit_open = False
        self._successes += 1
        if self._successes >= SUCCESSES_PER_STEP and self.limit < self._endpoint.concurrency:
            self.limit += 1
            self._successes = 0

    def _fail(self, turn: GrantedTurn, attempt: Attempt) -> None:
        wait = self._endpoint.breaker_open_s
        if turn.probe:
            self._give_up(f"The endpoint keeps failing. {attempt.error}", retry_after_s=wait)
        if self._circuit_open:
            return  # sent before it opened
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN:
            self._circuit_open = True
            self._hold(wait)

    def _give_up(self, reason: str, *, retry_after_s: float | None) -> None:
        if self.unavailable is None:
            self.unavailable = ModelUnavailable(reason, retry_after_s=retry_after_s)
        self.end()


class CallAdmission:
    """The governor as one call sees it; counts the attempts that call was granted."""

    def __init__(self, governor: Governor) -> None:
        self._governor = governor
        self.attempts = 0

    @asynccontextmanager
    async def turn(self, tokens: int) -> AsyncIterator[GrantedTurn]:
        turn = await self._governor.enter(tokens)
        self.attempts += 1
        try:
            yield turn
        finally:
            self._governor.leave(turn)

    async def pause(self, seconds: float) -> None:
        await self._governor.pause(seconds)
