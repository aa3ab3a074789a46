"""A POST to an address somebody configured ends in time, whatever the server does."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from pytest_django import Settings

from pld_app.outbound import OutboundFailed, post
from tests.stub_server import stub_server

HEAD = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def _trickling(first: bytes, drop: bytes) -> Iterator[str]:
    """A server that answers `first` at once and then one `drop` each 0.05 s, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                connection, _address = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(first)
                    while True:
                        connection.sendall(drop)
                        time.sleep(0.05)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/hook"
    thread.join(timeout=5)


@pytest.mark.parametrize(
    ("first", "drop"),
    [(b"", b"H"), (HEAD, b"X: y\r\n"), (HEAD + b"\r\n", b"."), (HEAD + b"Content-Length: 60000\r\n\r\n", b".")],
    ids=["status line", "headers", "body", "body of stated length"],
)
def test_a_server_that_trickles_is_cut_off(first: bytes, drop: bytes, settings: Settings) -> None:
    settings.ENDPOINT_ALLOW_PRIVATE = ["127.0.0.1"]
    with _trickling(first, drop) as url:
        started = time.monotonic()
        with pytest.raises(OutboundFailed, match=r"within 0\.5 s"):
            post(url, b"{}", {}, within_s=0.5)
        assert time.monotonic() - started < 2


def test_a_quick_answer_is_not_cut_off(settings: Settings) -> None:
    settings.ENDPOINT_ALLOW_PRIVATE = ["127.0.0.1"]
    with stub_server("ok") as stub:
        assert post(f"{stub.url}/chat/completions", b'{"messages": []}', {}, within_s=5).is_taken
