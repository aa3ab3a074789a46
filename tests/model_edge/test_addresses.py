"""Nothing is sent to an address that is not allowed, whatever the name, form or redirect that leads there."""

import asyncio
import socket
from typing import Any

import pytest

from pld_app.model_edge import AddressRefusedError, EndpointMisconfigured, ModelUnavailable, calls_stream, check_url
from pld_app.model_edge.addresses import check_address
from tests.model_edge.harness import chat, endpoint, never, run
from tests.stub_server import stub_server


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://models.example/v1",
        "gopher://127.0.0.1",
        "models.example/v1",
        "",
        "https://",
        "https://user:pw@models.example/v1",
        "https://models.example/v1?key=1",
        "https://models.example:99999/v1",
        "https://[::1/v1",
    ],
)
def test_odd_base_urls_are_refused_before_anything_starts(url: str) -> None:
    with pytest.raises(AddressRefusedError):
        check_url(url)
    with pytest.raises(EndpointMisconfigured):
        list(calls_stream(endpoint(url), [chat()], should_stop=never))


PRIVATE = ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "::ffff:10.0.0.1"]
FORMS = ["64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:127.0.0.1"]
NEVER = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "fe80::1%eth0",
    "224.0.0.1",
    "0.0.0.0",  # noqa: S104
    "::",
]


@pytest.mark.parametrize("address", PRIVATE + FORMS)
def test_private_addresses_need_permission(address: str) -> None:
    with pytest.raises(AddressRefusedError, match="private"):
        check_address(address, scheme="https", allow_private=False)
    check_address(address, scheme="http", allow_private=True)


@pytest.mark.parametrize("address", [*NEVER, "fd00:ec2::254", "100.100.100.200"])
def test_metadata_and_multicast_addresses_are_never_allowed(address: str) -> None:
    with pytest.raises(AddressRefusedError, match="never"):
        check_address(address, scheme="https", allow_private=True)


def test_public_addresses_need_tls() -> None:
    check_address("93.184.216.34", scheme="https", allow_private=False)
    with pytest.raises(AddressRefusedError, match="in the clear"):
        check_address("93.184.216.34", scheme="http", allow_private=True)


def _reason(url: str, **fields: Any) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        list(calls_stream(endpoint(url, **fields), [chat(str(n)) for n in range(50)], should_stop=never))
    assert caught.value.retry_after_s is None
    return str(caught.value.user_message)


def test_a_private_endpoint_without_permission_gets_no_request_at_all() -> None:
    with stub_server() as stub:
        assert "private" in _reason(stub.url, allow_private=False)
        assert "private" in _reason(stub.url.replace("127.0.0.1", "localhost"), allow_private=False)
        assert stub.connections == 0


def test_metadata_address_is_refused_even_with_permission() -> None:
    assert "never allowed" in _reason("http://169.254.169.254/v1")


def test_a_name_that_changes_its_address_after_the_check_is_not_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        if host != "rebind.example":
            return real(host, port, *rest, **named)
        lookups.append(host)
        return real("127.0.0.1" if len(lookups) == 1 else "169.254.169.254", port, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with stub_server() as stub:
        url = stub.url.replace("127.0.0.1", "rebind.example")
        replies = list(calls_stream(endpoint(url), [chat(str(n)) for n in range(20)], should_stop=never))
        assert all(reply.ok for reply in replies)
        assert {request.headers["host"] for request in stub.requests} == {f"rebind.example:{stub.port}"}
    assert len(lookups) == 1


def test_one_forbidden_address_among_several_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*_: Any, **__: Any) -> Any:
        found = [("127.0.0.1", 1), ("169.254.169.254", 1)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", both)
    assert "never allowed" in _reason("http://two.example/v1")


def test_a_redirect_is_not_followed_and_the_key_goes_nowhere_else() -> None:
    with stub_server() as other, stub_server(f"redirect:{other.url}/chat/completions") as stub:
        (reply,) = run(stub, [chat()])
        assert (reply.outcome, reply.status) == ("http_error", 307)
        assert "redirect" in reply.error
        assert len(stub.requests) == 1
        assert other.connections == 0


def test_proxies_and_headers_from_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with stub_server() as proxy, stub_server() as stub:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("OPENAI_ORG_ID", "org-elsewhere")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-elsewhere")
        monkeypatch.setenv("OPENAI_BASE_URL", proxy.url)
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Extra: leaked\nAuthorization: Bearer leaked")
        (reply,) = run(stub, [chat()])
        assert reply.ok
        assert proxy.connections == 0
        sent = " ".join(f"{name}={value}" for name, value in stub.requests[0].headers.items())
        assert "elsewhere" not in sent
        assert "leaked" not in sent
