"""A proxy before Postgres that ends a process at the Nth message it sends: any point of a request can be the last."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 65536


@dataclass
class Cut:
    """Messages counted since `arm`; at `at` the process is ended, before it is passed on or after its answer came."""

    end: Callable[[], None]
    port: int = 0
    at: int = 0
    after: bool = False
    count: int = 0
    is_cut: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, at: int, *, after: bool) -> None:
        """`at` 0 only counts."""
        with self._lock:
            self.count, self.at, self.after = 0, at, after
            self.is_cut.clear()
            self.answered.clear()

    def passes(self, server: socket.socket, message: bytes) -> bool:
        """Pass a message of the process on; False once it is ended."""
        with self._lock:
            self.count += 1
            is_last = self.count == self.at
        if not is_last:
            server.sendall(message)
            return True
        if self.after:
            server.sendall(message)
            self.answered.wait(timeout=10)  # the server has done it; the process will never hear of it
        self.end()
        self.is_cut.set()
        return False


@contextmanager
def cutting(cut: Cut, upstream: tuple[str, int]) -> Iterator[Cut]:
    """Listen on a free port for the time of the block, each connection passed on to `upstream`."""
    listener = socket.create_server(("127.0.0.1", 0))
    cut.port = listener.getsockname()[1]
    threading.Thread(target=_accept, args=(listener, cut, upstream), daemon=True).start()
    try:
        yield cut
    finally:
        listener.close()


def _accept(listener: socket.socket, cut: Cut, upstream: tuple[str, int]) -> None:
    with suppress(OSError):  # closed: the test is over
        while True:
            client, _address = listener.accept()
            server = socket.create_connection(upstream)
            threading.Thread(target=_forward, args=(client, server, cut), daemon=True).start()
            threading.Thread(target=_back, args=(server, client, cut), daemon=True).start()


def _forward(client: socket.socket, server: socket.socket, cut: Cut) -> None:
    with suppress(OSError), client, server:
        while (message := client.recv(_CHUNK)) and cut.passes(server, message):
            pass
        server.shutdown(socket.SHUT_RDWR)  # or the other direction keeps the session open


def _back(server: socket.socket, client: socket.socket, cut: Cut) -> None:
    with suppress(OSError):
        while True:
            answer = server.recv(_CHUNK)
            if cut.at and cut.after and cut.count >= cut.at:
                cut.answered.set()
                return  # the answer to the last message stays here
            if not answer:
                return
            client.sendall(answer)
