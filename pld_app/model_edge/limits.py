"""How fast one stream may ask: its calls wait here for their turn, by the limits of the endpoint."""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count

from pld_app.model_edge.client import NotSentError
from pld_app.model_edge.errors import ModelUnavailable
from pld_app.model_edge.limit_state import Down, LimitState, Turn, Wait
from pld_app.model_edge.limit_store import LEASE_S, RETRY_S, LimitStore, LimitsUnreachable, LocalLimits, SharedLimits
from pld_app.model_edge.replies import Attempt
from pld_app.model_edge.types import EndpointConfig

_UNREACHABLE = "The broker that keeps the endpoint's limits for all workers cannot be reached."


class GrantedTurn:
    """One attempt's permit, and how the attempt went."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.attempt: Attempt | None = None

    def settle(self, attempt: Attempt) -> None:
        self.attempt = attempt


@dataclass(eq=False)
class _Waiting:
    tokens: int
    granted: "asyncio.Future[GrantedTurn]"


@dataclass(eq=False)
class _Left:
    turn: Turn
    attempt: Attempt | None
    learned: "asyncio.Future[None]"


class Governor:
    """Grants each attempt its turn, first come, first served, and reports how it went.

    A refused key or quota ends the stream, and so does what the state calls down; the reason is in `unavailable`.
    One task makes all changes of the state, as many at a time as have come up: a change may be a round trip.
    """

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._endpoint = endpoint
        self.unavailable: ModelUnavailable | None = None
        self.ended = asyncio.Event()
        self._name = uuid.uuid4().hex[:12]
        self._numbers = count()
        self._turns: dict[str, float] = {}
        self._waiting: deque[_Waiting] = deque()
        self._left: list[_Left] = []
        self._due = asyncio.Event()
        self._store: LimitStore = SharedLimits(endpoint.shared_limits) if endpoint.shared_limits else LocalLimits()
        self._task = asyncio.create_task(self._run())

    def end(self) -> None:
        """Grant no more turns; those who wait get NotSentError."""
        self.ended.set()
        self._due.set()

    async def aclose(self) -> None:
        """Give back what the stream still holds; after its calls have ended."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self._store.is_shared:
            with suppress(LimitsUnreachable):
                await self._store.change(self._forget)
        await self._store.aclose()

    def _forget(self, state: LimitState, _now: float) -> None:
        state.forget(self._name)

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
        one = _Waiting(tokens, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        self._due.set()
        return await one.granted

    async def leave(self, granted: GrantedTurn) -> None:
        """Give the place back, and wait until what the attempt taught has been learned."""
        if granted.attempt is not None and granted.attempt.fatal:
            self._give_up(granted.attempt.error, retry_after_s=None)
        learned = self._leave(granted.turn, granted.attempt)
        await learned

    def _leave(self, turn: Turn, attempt: Attempt | None) -> "asyncio.Future[None]":
        self._turns.pop(turn.name, None)
        one = _Left(turn, attempt, asyncio.get_running_loop().create_future())
        self._left.append(one)
        self._due.set()
        return one.learned

    async def _run(self) -> None:
        pause: float | None = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._due.wait()
            self._due.clear()
            pause = await self._step()

    async def _step(self) -> float | None:
        """Report who left, then let in who waits, in their order. The seconds until that is of use again."""
        left, self._left = self._left, []
        waiting = [] if self.ended.is_set() else [one for one in self._waiting if not one.granted.done()]
        names = [str(next(self._numbers)) for _one in waiting]
        wait: Wait | Down | None = None

        def act(state: LimitState, now: float) -> tuple[list[Turn], Wait | Down | None]:
            until = now + LEASE_S
            state.renew(self._name, self._turns, until)
            downs = [state.finish(self._endpoint, one.turn, one.attempt, now) for one in left]
            down = next((one for one in downs if one is not None), None)
            granted: list[Turn] = []
            for name, one in zip(names, waiting, strict=True):
                wanted = Turn(self._name, name, one.tokens, started_at=now, probe=False)
                said = state.ask(self._endpoint, wanted, now, until)
                if not isinstance(said, Turn):
                    return granted, down or said
                granted.append(said)
            return granted, down

        try:
            turns, wait = await self._store.change(act)
        except LimitsUnreachable:
            turns, wait = [], Down(_UNREACHABLE, RETRY_S)
        if isinstance(wait, Down):
            self._give_up(wait.reason, retry_after_s=wait.retry_after_s)
        for one, turn in zip(waiting, turns, strict=False):
            self._hand_over(one, turn)
        for gone in left:
            if not gone.learned.done():
                gone.learned.set_result(None)
        self._waiting = deque(one for one in self._waiting if not one.granted.done())
        if self.ended.is_set():
            self._refuse_all()
        return self._pause_s(wait)

    def _hand_over(self, one: _Waiting, turn: Turn) -> None:
        if one.granted.done():  # cut off while it waited
            self._leave(turn, None)
        else:
            self._turns[turn.name] = turn.started_at
            one.granted.set_result(GrantedTurn(turn))

    def _refuse_all(self) -> None:
        for one in self._waiting:
            if not one.granted.done():
                one.granted.set_exception(NotSentError())
        self._waiting.clear()

    def _pause_s(self, wait: Wait | Down | None) -> float | None:
        """None: nothing to do until somebody comes or goes. A shared state also wants a sign of life now and then."""
        beat = LEASE_S / 4 if self._store.is_shared and (self._turns or self._waiting) else None
        asked = wait.seconds if isinstance(wait, Wait) and self._waiting else None
        return min((one for one in (beat, asked) if one is not None), default=None)

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
        granted = await self._governor.enter(tokens)
        self.attempts += 1
        try:
            yield granted
        finally:
            await self._governor.leave(granted)

    async def pause(self, seconds: float) -> None:
        await self._governor.pause(seconds)
