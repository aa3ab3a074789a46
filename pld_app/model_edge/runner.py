"""The event loop of one stream of calls, in a thread of its own."""

import asyncio
import queue
import threading
import time

from pld_app.model_edge.addresses import AddressRefusedError
from pld_app.model_edge.client import EndpointClient, NotSentError
from pld_app.model_edge.errors import EndpointMisconfigured, ModelUnavailable
from pld_app.model_edge.limits import CallAdmission, Governor
from pld_app.model_edge.types import CallReply, CallRequest, EndpointConfig, Outcome

_CLOSE_S = 5.0


class Runner:
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
        """Start the thread. Raises EndpointMisconfigured for a base URL that is not allowed."""
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
        except Exception as error:  # noqa: BLE001  # handed to the caller's thread, which raises it
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
        try:
            self._client = EndpointClient(self._endpoint)
        except AddressRefusedError as error:
            raise EndpointMisconfigured(str(error)) from error
        self._governor = Governor(self._endpoint)

    async def _shut(self) -> None:
        tasks = tuple(self._tasks)
        self._cancel_all()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._governor.aclose()
        await self._client.aclose()

    def _cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _begin(self, request: CallRequest) -> None:
        task = self._loop.create_task(self._call(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, request: CallRequest) -> None:
        admission = CallAdmission(self._governor)
        try:
            self._replies.put(await self._reply(request, admission))
        except Exception as error:  # noqa: BLE001  # a bug must end the stream, not leave its caller waiting
            self._replies.put(error)

    async def _reply(self, request: CallRequest, admission: CallAdmission) -> CallReply:
        started = time.monotonic()
        try:
            return await self._client.call(request, admission)
        except NotSentError:
            reason = "The call was not made: the run stopped first."
        except asyncio.CancelledError:
            reason = "The call was cut off before its reply arrived."
        milliseconds = round((time.monotonic() - started) * 1000)
        attempts = admission.attempts
        return CallReply(
            request=request, outcome=Outcome.CANCELLED, error=reason, attempts=attempts, latency_ms=milliseconds
        )
