"""Choosing TCP ports on the loopback address."""

import socket
from collections.abc import Collection

LOOPBACK = "127.0.0.1"


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now (another process may still take it later)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this, a port is refused for a minute after its last connection closed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    # Some systems let a loopback listener hide behind one on all addresses; nobody may answer there.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) != 0


def free_port() -> int:
    """A port chosen by the system."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def choose_port(preferred: int, avoid: Collection[int] = ()) -> int:
    """The preferred port or one of the 50 above it, none of `avoid`; any free one when all are taken."""
    for port in range(preferred, preferred + 51):
        if port not in avoid and port_is_free(port):
            return port
    while (port := free_port()) in avoid:
        pass
    return port
