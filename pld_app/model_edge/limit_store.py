"""Where an endpoint's limits are kept: in this worker's memory, or in Valkey, where all workers meet them.

In Valkey they are one JSON text, changed by compare and set: whoever read an older text reads again. Times are by its
clock, so workers on several machines agree. What is kept there is worth seconds: if it is lost, calls under way are
forgotten and no more than one wave too many is sent.
"""

import time
from collections.abc import Callable
from typing import Protocol, cast

import redis.asyncio
from django.conf import settings
from redis.exceptions import RedisError

from pld_app.model_edge.limit_state import LimitState

_SET_IF_UNCHANGED = """
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return found end
redis.call('SET', KEYS[1], ARGV[2], 'EX', 86400)
return false
"""
_ANSWER_S = 5.0
# A worker that died gives its places back after this time; a living one says so four times as often.
LEASE_S = min(6.0, settings.JOB_LEASE_S)
RETRY_S = 5.0


class LimitsUnreachable(Exception):
    """The limits that all workers share cannot be read or written."""


class LimitStore(Protocol):
    """Keeps one LimitState. Lives in one event loop, and one caller at a time uses it."""

    is_shared: bool

    async def change[T](self, act: Callable[[LimitState, float], T]) -> T:
        """Apply `act` to the state at the time now, as one step. It may be called again. Raises LimitsUnreachable."""
        ...

    async def aclose(self) -> None: ...


class LocalLimits:
    """For one stream by itself."""

    is_shared = False

    def __init__(self) -> None:
        self._state = LimitState()

    async def change[T](self, act: Callable[[LimitState, float], T]) -> T:
        return act(self._state, time.monotonic())

    async def aclose(self) -> None:
        return None


class SharedLimits:
    """For every stream that names the same key."""

    is_shared = True

    def __init__(self, key: str) -> None:
        self._client = redis.asyncio.Redis.from_url(
            settings.REDIS_URL, decode_responses=True, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S
        )
        self._set = self._client.register_script(_SET_IF_UNCHANGED)
        self._key = f"pld:limits:{key}"
        # As far as this worker knows; another one's change shows when ours is refused.
        self._text = ""
        self._state = LimitState()
        self._clock_ahead: float | None = None

    async def change[T](self, act: Callable[[LimitState, float], T]) -> T:
        try:
            if self._clock_ahead is None:
                seconds, microseconds = await self._client.time()
                self._clock_ahead = seconds + microseconds / 1e6 - time.monotonic()
            while True:
                result = act(self._state, time.monotonic() + self._clock_ahead)
                text = self._state.as_text()
                found = cast("str | None", await self._set(keys=[self._key], args=[self._text, text]))
                self._text = text if found is None else found
                if found is None:
                    return result
                self._state = LimitState.from_text(found)
        except (RedisError, OSError) as error:
            self._text, self._state = "", LimitState()
            raise LimitsUnreachable from error

    async def aclose(self) -> None:
        await self._client.aclose()
