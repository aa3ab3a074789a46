"""Many calls at once for a caller that is not asynchronous.

A stream runs an event loop in a thread of its own and hands replies over in order of completion. The caller's thread
alone reads the requests and takes the replies, so it may use its database connection for both.

A place is free again only when the caller comes back for the next reply. So at most `concurrency` calls are in flight
or not yet recorded by the caller, and a process killed at any moment repeats at most that many.
"""

import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from pld_app.model_edge.errors import ModelUnavailable
from pld_app.model_edge.types import CallReply, CallRequest, EndpointConfig

if TYPE_CHECKING:
    from pld_app.model_edge.runner import Runner

POLL_S = 0.25
DRAIN_S = 10.0


def _runner(endpoint: EndpointConfig, replies: "queue.SimpleQueue[CallReply | BaseException]") -> "Runner":
    # The SDK takes over a second to import; pages and commands that make no call are spared it.
    from pld_app.model_edge.runner import Runner  # noqa: PLC0415

    return Runner(endpoint, replies)


class CallStream:
    """Submit requests while there is room, take replies. Use as a context manager; leaving it cuts what is in flight.

    `should_stop` is asked before each new call and four times a second while waiting. Once it says yes nothing more
    is sent, calls in flight get `drain_s` to finish (they are paid for) and are then cut, and calls that had not been
    sent come back as cancelled with 0 attempts.
    """

    def __init__(self, endpoint: EndpointConfig, *, should_stop: Callable[[], bool], drain_s: float = DRAIN_S) -> None:
        self._endpoint = endpoint
        self._should_stop = should_stop
        self._drain_s = drain_s
        self._replies: queue.SimpleQueue[CallReply | BaseException] = queue.SimpleQueue()
        self._outstanding = 0
        self._stopped_at: float | None = None
        self._runner: Runner | None = None  # started by the first call: a run answered from the ledger needs none

    def __enter__(self) -> "CallStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            self._runner.close()

    @property
    def unavailable(self) -> ModelUnavailable | None:
        """Why the endpoint cannot be used now, once the stream found out."""
        return self._runner.unavailable if self._runner is not None else None

    def room(self) -> Iterator[CallReply]:
        """Yield replies until another request fits or the stream has ended (see `still_open`)."""
        while self._outstanding >= self._endpoint.concurrency and self.still_open():
            yield from self.next_reply()

    def still_open(self) -> bool:
        """Whether another request may be submitted; asks `should_stop`."""
        if self._stopped_at is None and self._should_stop():
            self._stopped_at = time.monotonic()
            if self._runner is not None:
                self._runner.end()
        return self._stopped_at is None and self.unavailable is None

    def submit(self, request: CallRequest) -> None:
        """Start one call; only after `room` and while `still_open`.

        Raises EndpointMisconfigured for a base URL that is not allowed.
        """
        if self._runner is None:
            runner = _runner(self._endpoint, self._replies)
            runner.start()
            self._runner = runner
        self._outstanding += 1
        self._runner.submit(request)

    def drain(self) -> Iterator[CallReply]:
        """Yield the replies still owed."""
        while self._outstanding:
            yield from self.next_reply()

    def next_reply(self) -> Iterator[CallReply]:
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
        waited = (
            not self.still_open()
            and self._stopped_at is not None
            and time.monotonic() - self._stopped_at > self._drain_s
        )
        if waited and self._runner is not None:
            self._runner.cut()


def calls_stream(
    endpoint: EndpointConfig,
    requests: Iterable[CallRequest],
    *,
    should_stop: Callable[[], bool],
    drain_s: float = DRAIN_S,
) -> Generator[CallReply]:
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
            request = next(remaining, None) if stream.still_open() else None
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
