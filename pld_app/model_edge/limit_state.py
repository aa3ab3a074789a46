"""The limits of one endpoint as plain data, and the rules by which calls are let through and learned from.

Every change is a function of the state and the time, so that one worker keeps it in memory and several share it as
JSON (see limit_store). Times are seconds on the clock of whoever keeps the state.

429 halves the calls at a time, once per wave (attempts sent before the last halving do not count again); 20 successes
add one. A short Retry-After holds back every call, not only the one that was told. Five server failures in a row open
the circuit: nothing is sent for `breaker_open_s`, then one probe. A probe that fails, or a Retry-After above 20 s, ends
every stream of the endpoint until then.
"""

import json
import math
from dataclasses import dataclass, field

from pld_app.model_edge.client import MAX_WAIT_IN_PLACE_S
from pld_app.model_edge.replies import Attempt
from pld_app.model_edge.types import EndpointConfig

SUCCESSES_PER_STEP = 20
FAILURES_TO_OPEN = 5
# How long a stream that waits for a place looks away; a place that becomes free in its own stream wakes it at once.
POLL_S = 0.03
_WAITING_S = 0.5


@dataclass(frozen=True)
class Rate:
    """Units a second, of which at most `burst` wait for use."""

    per_s: float
    burst: float


def request_rate(per_minute: int | None) -> Rate | None:
    """At most `per_minute` requests in any 60 seconds, a second's worth of them at once. None: no limit."""
    if per_minute is None:
        return None
    return Rate(per_minute / 61, per_minute / 61) if per_minute > 61 else Rate(per_minute / 60, 1.0)


def token_rate(per_minute: int | None) -> Rate | None:
    """Tokens flow in by the second, and ten seconds' worth may go at once: one question is thousands of them."""
    return None if per_minute is None else Rate(per_minute / 60, max(1.0, per_minute / 6))


@dataclass
class Bucket:
    """What flowed in and was not taken. An amount above the burst waits for a full bucket and leaves a debt."""

    level: float = math.inf
    at: float = 0.0

    def fill(self, rate: Rate, now: float) -> None:
        self.level = min(rate.burst, self.level + max(0.0, now - self.at) * rate.per_s)
        self.at = now

    def wait_s(self, amount: float, rate: Rate) -> float:
        # A hair of rounding must not cost another look.
        return max(0.0, (min(amount, rate.burst) - self.level - 1e-6) / rate.per_s)


@dataclass
class Stream:
    """One worker's calls under way, by the time each was let through; gone when nobody has renewed it by `until`."""

    until: float
    waited_at: float = -math.inf
    turns: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """One attempt's permit. `tokens` were set aside for it; a probe decides whether the circuit closes."""

    stream: str
    name: str
    tokens: int
    started_at: float
    probe: bool


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Down:
    """The endpoint is left alone for now, and why."""

    reason: str
    retry_after_s: float


@dataclass
class LimitState:
    streams: dict[str, Stream] = field(default_factory=dict)
    requests: Bucket = field(default_factory=Bucket)
    tokens: Bucket = field(default_factory=Bucket)
    reduced: int | None = None
    halved_at: float = -math.inf
    successes: int = 0
    failures: int = 0
    held_until: float = -math.inf
    is_open: bool = False
    probe: str = ""
    down_until: float = -math.inf
    down_reason: str = ""

    def as_text(self) -> str:
        # Not asdict: it copies, and this runs for every few calls.
        streams = {name: vars(one) for name, one in self.streams.items()}
        parts = {"streams": streams, "requests": vars(self.requests), "tokens": vars(self.tokens)}
        return json.dumps(vars(self) | parts, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> "LimitState":
        if not text:
            return cls()
        value = json.loads(text)
        value["streams"] = {name: Stream(**one) for name, one in value["streams"].items()}
        value["requests"], value["tokens"] = Bucket(**value["requests"]), Bucket(**value["tokens"])
        return cls(**value)

    def limit(self, endpoint: EndpointConfig) -> int:
        """Calls at a time, over all streams."""
        return endpoint.concurrency if self.reduced is None else max(1, min(self.reduced, endpoint.concurrency))

    def renew(self, name: str, turns: dict[str, float], until: float) -> None:
        """Keep a stream alive, with the calls it says are under way."""
        stream = self.streams.setdefault(name, Stream(until))
        stream.until, stream.turns = until, dict(turns)

    def forget(self, name: str) -> None:
        """A stream ended."""
        self.streams.pop(name, None)
        if self.probe.startswith(f"{name}/"):
            self.probe = ""

    def ask(self, endpoint: EndpointConfig, turn: Turn, now: float, until: float) -> Turn | Wait | Down:
        """Let this attempt through, or say how long to wait before asking again, or that waiting is of no use."""
        for name in [name for name, one in self.streams.items() if one.until < now]:
            self.forget(name)
        if now < self.down_until:
            return Down(self.down_reason, self.down_until - now)
        own = self.streams.setdefault(turn.stream, Stream(until))
        own.until = until
        if now < self.held_until:
            return Wait(self.held_until - now)
        if (self.is_open and self.probe) or not self._has_place(endpoint, turn.stream, now):
            own.waited_at = now
            return Wait(POLL_S)
        wait = self._rate_wait(endpoint, turn.tokens, now)
        if wait:
            return Wait(wait)
        own.waited_at = -math.inf
        own.turns[turn.name] = now
        if self.is_open:
            self.probe = f"{turn.stream}/{turn.name}"
        return Turn(turn.stream, turn.name, turn.tokens, now, probe=self.is_open)

    def _has_place(self, endpoint: EndpointConfig, name: str, now: float) -> bool:
        """Whether a call more is within the limit, and within this stream's share where another one waits."""
        limit = self.limit(endpoint)
        if sum(len(one.turns) for one in self.streams.values()) >= limit:
            return False
        waiting = {other for other, one in self.streams.items() if now - one.waited_at < _WAITING_S} - {name}
        if not waiting:
            return True
        sharing = waiting | {name} | {other for other, one in self.streams.items() if one.turns}
        return len(self.streams[name].turns) < math.ceil(limit / len(sharing))

    def _rate_wait(self, endpoint: EndpointConfig, tokens: int, now: float) -> float:
        """Take one request and the tokens, or change nothing and return the seconds until they are there."""
        asked = [
            (self.requests, request_rate(endpoint.requests_per_minute), 1),
            (self.tokens, token_rate(endpoint.tokens_per_minute), tokens),
        ]
        limited = [(bucket, rate, amount) for bucket, rate, amount in asked if rate is not None]
        for bucket, rate, _amount in limited:
            bucket.fill(rate, now)
        wait = max((bucket.wait_s(amount, rate) for bucket, rate, amount in limited), default=0.0)
        if not wait:
            for bucket, _rate, amount in limited:
                bucket.level -= amount
        return wait

    def leave(self, turn: Turn) -> None:
        """The attempt is over."""
        stream = self.streams.get(turn.stream)
        if stream is not None:
            stream.turns.pop(turn.name, None)
        if self.probe == f"{turn.stream}/{turn.name}":
            self.probe = ""

    def finish(self, endpoint: EndpointConfig, turn: Turn, attempt: Attempt | None, now: float) -> Down | None:
        """Take back the place, and adjust limits and circuit to how the attempt went; None: it was cut off."""
        self.leave(turn)
        if attempt is None:
            return None
        down = None
        if attempt.prompt_tokens is not None:
            self.tokens.level += turn.tokens - attempt.prompt_tokens - (attempt.completion_tokens or 0)
        if attempt.retryable and not attempt.fatal and attempt.retry_after_s is not None:
            down = self._obey(attempt.retry_after_s, now)
        if attempt.status == 429:
            self._halve(endpoint, turn, now)
        if attempt.answered:
            self._succeed(endpoint)
        elif attempt.provider_failed and not attempt.fatal:  # what a person must mend ends its stream, and no other's
            down = self._fail(endpoint, turn, attempt, now) or down
        return down

    def _obey(self, seconds: float, now: float) -> Down | None:
        if seconds <= MAX_WAIT_IN_PLACE_S:
            self.held_until = max(self.held_until, now + seconds)
            return None
        return self._go_down(f"The endpoint asks to wait {seconds:.0f} s.", seconds, now)

    def _halve(self, endpoint: EndpointConfig, turn: Turn, now: float) -> None:
        self.successes = 0
        if turn.started_at >= self.halved_at:
            self.reduced = max(1, self.limit(endpoint) // 2)
            self.halved_at = now

    def _succeed(self, endpoint: EndpointConfig) -> None:
        self.failures = 0
        self.is_open = False
        self.successes += 1
        if self.successes >= SUCCESSES_PER_STEP and self.reduced is not None:
            self.successes = 0
            self.reduced = None if self.reduced + 1 >= endpoint.concurrency else self.reduced + 1

    def _fail(self, endpoint: EndpointConfig, turn: Turn, attempt: Attempt, now: float) -> Down | None:
        wait = endpoint.breaker_open_s
        if turn.probe:
            return self._go_down(f"The endpoint keeps failing. {attempt.error}", wait, now)
        if not self.is_open:  # else it was sent before the circuit opened
            self.failures += 1
            if self.failures >= FAILURES_TO_OPEN:
                self.is_open = True
                self.held_until = max(self.held_until, now + wait)
        return None

    def _go_down(self, reason: str, seconds: float, now: float) -> Down:
        self.down_until, self.down_reason = now + seconds, reason
        return Down(reason, seconds)
