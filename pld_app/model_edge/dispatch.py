"""Many calls at once for a caller that is not asynchronous.

A stream runs an event loop in a thread of its own and hands replies over in order of completion. The caller's thread
alone reads the requests and takes the replies, so it may use its database connection for both.

A place is free again only when the caller comes back for the next reply. So at most `concurrency` calls are in flight
or not yet recorded by the caller, and a process killed at any moment repeats at most that many.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from pld_app.model_edge.errors import ModelUnavailable
from pld_app.model_edge.types import CallReply, CallRequest, EndpointConfig, Outcome

if TYPE_CHECKING:
    from pld_app.model_edge.client import EndpointClient
    from pld_app.model_edge.limits import CallAdmission, Governor

POLL_S = 0.25
DRAIN_S = 10.0
_CLOSE_S = 5.0


class CallStream:
    """Submit requests while there is room, take replies. Use as a context manager; leaving it cuts what is in flight.

    `should_stop` is asked before each new call and four times a second while waiting. Once it says yes nothing more
    is sent, calls in flight get `drain_s` to finish (they are paid for) and are then cut, and calls that had not been
    sent come back as cancelled with 0 attempts.
    """

    def __init__(
        self, endpoint: EndpointConfig, *, should_stop: Callable[[], bool], drain_s: float = DRAIN_S
    ) -> None:
        self._endpoint = endpoint
        self._should_stop = should_stop
        self._drain_s = drain_s
        self._replies: queue.SimpleQueue[CallReply | BaseException] = queue.SimpleQueue()
        self._outstanding = 0
        self._stopped_at: float | None = None
        self._runner = _Runner(endpoint, self._replies)

    def __enter__(self) -> "CallStream":
        self._runner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    @property
    def unavailable(self) -> ModelUnavailable | None:
        """Why the endpoint cannot be used now, once the stream found out."""
        return self._runner.unavailable

    def room(self) -> Iterator[CallReply]:
        """Yield replies until another request fits or the stream has ended (see `open`)."""
        while self._outstanding >= self._endpoint.concurrency and self.open:
            yield from self._next_reply()

    @property
    def open(self) -> bool:
        """Whether another request may be submitted; asks `should_stop`."""
        if self._stopped_at is None and self._should_stop():
            self._stopped_at = time.monotonic()
            self._runner.end()
        return self._stopped_at is None and self.unavailable is None

    def submit(self, request: CallRequest) -> None:
        """Start one call; only after `room` and while `open`."""
        self._outstanding += 1
        self._runner.submit(request)

    def drain(self) -> Iterator[CallReply]:
        """Yield the replies still owed."""
        while self._outstanding:
            yield from self._next_reply()

    def _next_reply(self) -> Iterator[CallReply]:
        """One reply, or nothing after a quarter of a second."""
        try:
            item = self._replies.get(timeout=POLL_S)
        except queue.Empty:
            self._poll()
            return
        if isinstance(item, BaseException):
            raise item
        yield item
        self._outstanding -= 1  # the caller is back, so this one is recorded

    def _poll(self) -> None:
        if not self.open and self._stopped_at is not None and time.monotonic() - self._stopped_at > self._drain_s:
            self._runner.cut()


class _Runner:
    """The loop's thread. Its public methods are called from the caller's thread."""

    def __init__(self, endpoint: EndpointConfig, replies: "queue.SimpleQueue[CallReply | BaseException]") -> None:
        self._endpoint = endpoint
        self._replies = replies
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"calls {endpoint.name}", daemon=True)
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._governor: Governor
        self._client: EndpointClient
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def unavailable(self) -> ModelUnavailable | None:
        return self._governor.unavailable

    def start(self) -> None:
        """Start the thread. Raises what building the client raised (an address that is not allowed)."""
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed

    def submit(self, request: CallRequest) -> None:
        self._loop.call_soon_threadsafe(self._begin, request)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._governor.end)

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._cancel_all)

    def close(self) -> None:
        if self._thread.is_alive() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._build())
        except Exception as error:  # handed to the caller's thread, which raises it
            self._failed = error
            self._loop.close()
            return
        finally:
            self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._shut())
        # Not asyncio.run: it would wait here for a name lookup that hangs in the loop's executor.
        self._loop.close()

    async def _build(self) -> None:
        # The SDK takes over a second to import; pages and commands that make no call are spared it.
        from pld_app.model_edge.client import EndpointClient
        from pld_app.model_edge.limits import Governor

        self._client = EndpointClient(self._endpoint)
        self._governor = Governor(self._endpoint)

    async def _shut(self) -> None:
        tasks = tuple(self._tasks)
        self._cancel_all()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _begin(self, request: CallRequest) -> None:
        task = self._loop.create_task(self._call(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, request: CallRequest) -> None:
        from pld_app.model_edge.limits import CallAdmission

        admission = CallAdmission(self._governor)
        try:
            self._replies.put(await self._reply(request, admission))
        except Exception as error:  # a bug in the edge must end the stream, not leave its caller waiting
            self._replies.put(error)

    async def _reply(self, request: CallRequest, admission: "CallAdmission") -> CallReply:
        from pld_app.model_edge.client import NotSent

        started = time.monotonic()
        try:
            return await self._client.call(request, admission)
        except NotSent:
            reason = "The call was not made: the run stopped first."
        except asyncio.CancelledError:
            reason = "The call was cut off before its reply arrived."
        milliseconds = round((time.monotonic() - started) * 1000)
        attempts = admission.attempts
        return CallReply(
            request=request, outcome=Outcome.CANCELLED, error=reason, attempts=attempts, latency_ms=milliseconds
        )


def calls_stream(
    endpoint: EndpointConfig,
    requests: Iterable[CallRequest],
    *,
    should_stop: Callable[[], bool],
    drain_s: float = DRAIN_S,
) -> Iterator[CallReply]:
    """Make the calls, `concurrency` at a time, and yield each reply as it completes.

    Every request read from `requests` gets exactly one reply. Ends early when `should_stop` says so. When the
    endpoint cannot be used now (circuit open and the probe failed, key or quota refused, a Retry-After over 20 s) the
    replies still owed are yielded and then ModelUnavailable is raised; requests not yet read were not touched.
    Closing the iterator cuts what is in flight and ends the thread.
    """
    remaining = iter(requests)
    with CallStream(endpoint, should_stop=should_stop, drain_s=drain_s) as stream:
        while True:
            yield from stream.room()
            request = next(remaining, None) if stream.open else None
            if request is None:
                break
            stream.submit(request)
        yield from stream.drain()
        if stream.unavailable is not None:
            raise stream.unavailable


def call_once(endpoint: EndpointConfig, request: CallRequest) -> CallReply:
    """One call, for a settings check. Raises nothing for what the server does."""
    replies: list[CallReply] = []
    try:
        replies.extend(calls_stream(endpoint, [request], should_stop=lambda: False))
    except ModelUnavailable as error:
        if not replies:
            raise AssertionError("a submitted call has a reply") from error
    return replies[0]
