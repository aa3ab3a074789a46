"""Choosing loopback ports."""

import socket
from collections.abc import Iterator

import pytest

from pld_app.devstack.ports import LOOPBACK, choose_port, free_port, port_is_free


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        yield int(server.getsockname()[1])


def test_a_free_preferred_port_is_kept() -> None:
    port = free_port()
    assert choose_port(port) == port


def test_a_taken_port_gives_another_free_one(taken_port: int) -> None:
    assert not port_is_free(taken_port)
    chosen = choose_port(taken_port)
    assert chosen != taken_port
    assert port_is_free(chosen)


def test_a_listener_on_all_addresses_also_takes_the_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("", 0))
        server.listen()
        assert not port_is_free(int(server.getsockname()[1]))


def test_ports_to_avoid_are_never_chosen() -> None:
    port = free_port()
    assert choose_port(port, avoid=range(port, port + 51)) not in range(port, port + 51)


def test_a_port_is_free_again_right_after_its_server_closed() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as every server does
        server.bind((LOOPBACK, 0))
        server.listen()
        port = int(server.getsockname()[1])
        with socket.create_connection((LOOPBACK, port)) as client:
            accepted, _address = server.accept()
            accepted.close()  # our side closes first and keeps the port in TIME_WAIT
            assert client.recv(1) == b""
    assert port_is_free(port)
