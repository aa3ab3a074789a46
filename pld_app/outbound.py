"""One small HTTP POST to an address somebody configured: only where model calls may go too, never redirected.

The host is looked up here, every address is checked, and the connection is made to a checked one; TLS still verifies
the name.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from pld_app.model_edge.addresses import AddressRefusedError, check_address, check_url

TIMEOUT_S = 10.0  # for each step, such as connecting or waiting for the next bytes
WITHIN_S = 30.0  # for all of it: a server that sends a byte now and then passes every single step
MAX_REPLY_BYTES = 64 * 1024


class OutboundFailed(Exception):
    """Nothing was delivered, as far as we know; its text says why, without the reply's content."""


@dataclass(frozen=True)
class Reply:
    status: int

    @property
    def is_taken(self) -> bool:
        return 200 <= self.status < 300


def post(url: str, body: bytes, headers: Mapping[str, str], *, within_s: float = WITHIN_S) -> Reply:
    """POST `body`; returns the status. Raises OutboundFailed when there was none, AddressRefusedError before sending.

    Private addresses only for hosts in PLD_ENDPOINT_ALLOW_PRIVATE. At most 10 s for each step, and `within_s` from the
    connection to the end of the reply; the look-up of the name has the resolver's own limit.
    """
    check_url(url)
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _checked_address(host, port, parts.scheme)
    connection = _Pinned(host, port, address, is_tls=parts.scheme == "https")
    path = parts.path or "/"
    late = f"{host} did not finish its answer within {within_s:g} s"
    try:
        with connection.cut_off(within_s):
            connection.request("POST", path, body=body, headers={"Content-Type": "application/json", **headers})
            reply = connection.getresponse()
            reply.read(MAX_REPLY_BYTES)
    except (OSError, http.client.HTTPException) as error:
        words = late if connection.is_late.is_set() else f"{type(error).__name__}: {error}"
        raise OutboundFailed(words[:200]) from error
    finally:
        connection.close()
    if connection.is_late.is_set():  # a body without stated length looks finished when it is cut off
        raise OutboundFailed(late)
    return Reply(reply.status)


def _checked_address(host: str, port: int, scheme: str) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OutboundFailed(f"{host} cannot be found") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        check_address(address, scheme=scheme, allow_private=host in settings.ENDPOINT_ALLOW_PRIVATE)
    return addresses[0]


class _Pinned(http.client.HTTPConnection):
    """A connection to one address under the name it was looked up by."""

    def __init__(self, host: str, port: int, address: str, *, is_tls: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S)
        self._address = address
        self._is_tls = is_tls
        # `sock` is gone once a reply without stated length begins, though its bytes are still read.
        self._opened: socket.socket | None = None
        self.is_late = threading.Event()

    def connect(self) -> None:
        self.sock = self._opened = socket.create_connection((self._address, self.port), TIMEOUT_S)
        if self._is_tls:
            context = ssl.create_default_context()
            # The handshake only after `sock` is the wrapped one: what it was before can no longer be shut down.
            wrapped = context.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock = self._opened = wrapped
            wrapped.do_handshake()
        if self.is_late.is_set():
            raise TimeoutError

    @contextmanager
    def cut_off(self, seconds: float) -> Iterator[None]:
        """Shut the connection down when the block takes longer: whoever waits for bytes then gets none."""
        alarm = threading.Timer(seconds, self._shut_down)
        alarm.daemon = True
        alarm.start()
        try:
            yield
        finally:
            alarm.cancel()

    def _shut_down(self) -> None:
        self.is_late.set()
        if self._opened is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._opened, socket.SHUT_RDWR)


__all__ = ["AddressRefusedError", "OutboundFailed", "Reply", "post"]
