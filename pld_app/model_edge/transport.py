"""The wire under the SDK: only to addresses that are allowed, only our headers, and never more bytes than the cap.

The host name is resolved here, every address is checked, and the connection is made to the checked address itself
(TLS still verifies the name), so a second lookup cannot lead elsewhere.
"""

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx2

from pld_app.model_edge.addresses import check_address, check_url
from pld_app.model_edge.types import EndpointConfig

MAX_BODY_BYTES = 4 * 1024 * 1024
_RESOLVED_FOR_S = 60.0
_POST_DEADLINE_S = 20.0
_SENT_HEADERS = frozenset({b"host", b"accept", b"content-type", b"content-length", b"transfer-encoding", b"user-agent"})


class BodyTooLargeError(Exception):
    """The reply passed the cap and was dropped."""


class UnreachableError(Exception):
    """No whole answer came; its text names the kind of fault and the host, nothing that was sent or received."""


class BodyEncodedError(Exception):
    """The reply is compressed although we asked for plain text; its real size cannot be bounded."""


@functools.cache
def _tls(scheme: str) -> ssl.SSLContext:
    """Reading the root certificates takes over 0.1 s, so it is done once a process and not at all for plain http."""
    if scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and nothing uses it
    return httpx2.create_ssl_context(trust_env=False)


class _CappedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, max_bytes: int) -> None:
        self._inner = inner
        self._max_bytes = max_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for chunk in self._inner:
            received += len(chunk)
            if received > self._max_bytes:
                raise BodyTooLargeError
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def _check_head(response: httpx2.Response, max_bytes: int) -> None:
    if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise BodyEncodedError
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 12 or int(length) > max_bytes):
        raise BodyTooLargeError


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends over httpx2's own transport after resolving, checking and pinning the address.

    The key is added here and nowhere else, so the SDK, its exceptions and its logs never hold it. All other headers
    but the few a JSON request needs are dropped: the SDK also takes headers from its environment variables.
    """

    def __init__(self, endpoint: EndpointConfig, *, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._endpoint = endpoint
        self._max_bytes = max_bytes
        self._addresses: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._lock = asyncio.Lock()
        # Room for one connection that is still closing beside each call in flight.
        limits = httpx2.Limits(
            max_connections=2 * endpoint.concurrency,
            max_keepalive_connections=endpoint.concurrency,
            keepalive_expiry=15,
        )
        tls = _tls(urlsplit(endpoint.base_url).scheme)
        self._inner = httpx2.AsyncHTTPTransport(verify=tls, trust_env=False, http2=False, retries=0, limits=limits)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        addresses = await self._resolved(url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        for last, address in enumerate(addresses, start=1 - len(addresses)):
            try:
                response = await self._inner.handle_async_request(self._pinned(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if last == 0:
                    self._addresses.clear()
                    raise
            else:
                return await self._capped(response)
        raise httpx2.ConnectError(f"{url.host} has no address")

    async def _capped(self, response: httpx2.Response) -> httpx2.Response:
        try:
            _check_head(response, self._max_bytes)
        except Exception:
            await response.aclose()
            raise
        if not isinstance(response.stream, httpx2.AsyncByteStream):
            raise TypeError("the transport must answer with an async stream")
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_CappedStream(response.stream, self._max_bytes),
            extensions=response.extensions,
        )

    def _pinned(self, request: httpx2.Request, address: str) -> httpx2.Request:
        headers = [(name, value) for name, value in request.headers.raw if name.lower() in _SENT_HEADERS]
        headers.append((b"Accept-Encoding", b"identity"))
        if self._endpoint.api_key:
            headers.append((b"Authorization", b"Bearer " + self._endpoint.api_key.reveal().encode()))
        extensions = {**request.extensions}
        if request.url.scheme == "https":
            extensions["sni_hostname"] = request.url.host
        url = request.url.copy_with(host=address)
        return httpx2.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)

    async def _resolved(self, scheme: str, host: str, port: int) -> list[str]:
        """Checked addresses of the host; the lock spares a lookup per call when a stream starts."""
        async with self._lock:
            until, addresses = self._addresses.get((host, port), (0.0, []))
            if time.monotonic() >= until:
                addresses = await _lookup(host, port)
                for address in addresses:
                    check_address(address, scheme=scheme, allow_private=self._endpoint.allow_private)
                self._addresses[(host, port)] = (time.monotonic() + _RESOLVED_FOR_S, addresses)
            return addresses

    async def aclose(self) -> None:
        await self._inner.aclose()


def guarded_post(endpoint: EndpointConfig, url: str, content: bytes, content_type: str) -> tuple[int, bytes]:
    """One POST outside the SDK, under the rules of this endpoint: (status, body), within 20 s in all, never redirected.

    Raises AddressRefusedError before anything is sent, UnreachableError when there was no whole answer.
    """
    check_url(url)
    try:
        return asyncio.run(_posted(endpoint, url, content, content_type))
    except (httpx2.HTTPError, TimeoutError, BodyTooLargeError, BodyEncodedError) as error:
        raise UnreachableError(f"{type(error).__name__} at {urlsplit(url).hostname}") from error


async def _posted(endpoint: EndpointConfig, url: str, content: bytes, content_type: str) -> tuple[int, bytes]:
    transport = GuardedTransport(endpoint)
    async with (
        httpx2.AsyncClient(transport=transport, follow_redirects=False, timeout=10, trust_env=False) as client,
        asyncio.timeout(_POST_DEADLINE_S),
    ):
        answer = await client.post(url, content=content, headers={"Content-Type": content_type})
        return answer.status_code, answer.content


async def _lookup(host: str, port: int) -> list[str]:
    """At most four addresses in the system's order. Raises httpx2.ConnectError when there is none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx2.ConnectError(f"{host} cannot be found") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:4]
