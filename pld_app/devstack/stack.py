"""Embedded Postgres and Valkey as one unit, and the environment that points the product at them."""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pld_app.database.roles import APPLICATION, MIGRATOR, SEALER
from pld_app.devstack import paths
from pld_app.devstack.ports import choose_port, free_port
from pld_app.devstack.postgres import (
    ensure_database,
    ensure_roles,
    open_to_tests,
    postgres_spec,
    postgres_url,
    remove_cluster,
)
from pld_app.devstack.processes import StackError, Supervisor, say
from pld_app.devstack.state import StackState
from pld_app.devstack.valkey import valkey_spec, valkey_url


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Print how long a step took, when it went well."""
    started = time.monotonic()
    yield
    say(f"  {name} {time.monotonic() - started:.1f} s")


@contextmanager
def exclusive(path: Path, *, seconds: float = 15.0) -> Iterator[int]:
    """Hold a lock file; yields its descriptor. Children that inherit it keep it held, so that a second start
    notices servers left over from a killed one. Raises StackError when it stays taken for `seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, path, seconds)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            owner = _owner(path)
            if owner is not None or time.monotonic() > deadline:
                running = f"The stack is already running here (process {owner or 'unknown'})."
                raise StackError(running) from None
            time.sleep(0.2)


def _owner(path: Path) -> int | None:
    """The process that wrote itself into the lock file, if it is still alive."""
    try:
        owner = int(path.read_text(encoding="ascii"))
    except ValueError:
        return None
    return owner if is_alive(owner) else None


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock file now."""
    try:
        with exclusive(path, seconds=0):
            return False
    except StackError:
        return True


def start_servers(supervisor: Supervisor, *, home: Path, state: StackState, durable: bool = True) -> None:
    """Start those of Postgres and Valkey that the environment does not already name. Needs settled ports."""
    if "DATABASE_URL" not in os.environ:
        with timed("postgres"):
            port, password = state.ports["postgres"], state.database_password
            supervisor.start_ready(postgres_spec(home=home / "postgres", port=port, password=password, durable=durable))
            ensure_database(port=port, password=password)
            ensure_roles(port=port, password=password, role_passwords=state.role_passwords)
    if "REDIS_URL" not in os.environ:
        with timed("valkey"):
            port, password = state.ports["valkey"], state.valkey_password
            supervisor.start_ready(valkey_spec(home=home / "valkey", port=port, password=password, durable=durable))


def stack_environment(state: StackState, *, home: Path) -> dict[str, str]:
    """Our own environment plus all settings of the product; what the environment already sets wins."""
    defaults = {
        "DATABASE_URL": role_url(state, APPLICATION),
        "REDIS_URL": valkey_url(state.ports["valkey"], state.valkey_password),
        "PLD_SECRET_KEY": state.secret_key,
        "PLD_FACTOR_KEYS": state.factor_key,
        "PLD_DEBUG": "0",
        "PLD_HTTPS": "0",
        "PLD_ALLOWED_HOSTS": "127.0.0.1,localhost",
        "PLD_MEDIA_ROOT": str(home / "media"),
        # Never made: without collected files the product serves static/ itself, always as it is now.
        "PLD_STATIC_ROOT": str(home / "staticfiles"),
        "PLD_ENDPOINT_ALLOW_PRIVATE": "127.0.0.1,localhost",
    }
    environment = defaults | dict(os.environ) | {"PYTHONUNBUFFERED": "1"}
    # Importing our own package has set it for the product; the tests have settings of their own.
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return environment


def owner_environment(state: StackState) -> dict[str, str]:
    """For the steps that need it: how to sign in as migrator and as sealer. Nothing where a database is given."""
    if "DATABASE_URL" in os.environ:
        return {}
    return {
        "PLD_MIGRATOR_DATABASE_URL": role_url(state, MIGRATOR),
        "PLD_SEALER_DATABASE_URL": role_url(state, SEALER),
    }


def role_url(state: StackState, role: str) -> str:
    """Where the embedded database is, signed in as this role."""
    return postgres_url(state.ports["postgres"], state.role_passwords[role], user=role)


def remove_servers(home: Path) -> None:
    """Delete the data of stopped servers and everything else in `home`."""
    remove_cluster(home / "postgres")
    shutil.rmtree(home, ignore_errors=True)


def _remove_abandoned() -> None:
    """Delete what runs that were killed have left behind; the name of a home begins with its process."""
    for home in paths.TEST.glob("*-*"):
        if not is_alive(int(home.name.partition("-")[0])):
            remove_servers(home)


@contextmanager
def throwaway_stack(*, durable: bool = False) -> Iterator[Mapping[str, str]]:
    """A stack of its own for one run of the tests: any free ports, new secrets, all data deleted at the end.

    Yields the environment for child processes. Several may run side by side.
    """
    _remove_abandoned()
    home = paths.TEST / f"{os.getpid()}-{secrets.token_hex(3)}"
    state = StackState(ports={})
    for name in ("postgres", "valkey"):
        state.ports[name] = choose_port(free_port(), avoid=state.ports.values())
    try:
        with Supervisor(logs=home / "logs") as supervisor:
            start_servers(supervisor, home=home, state=state, durable=durable)
            environment = stack_environment(state, home=home)
            if "DATABASE_URL" not in os.environ:
                port, password = state.ports["postgres"], state.database_password
                open_to_tests(port=port, password=password)
                environment["DATABASE_URL"] = postgres_url(port, password)
            yield environment
    finally:
        remove_servers(home)
