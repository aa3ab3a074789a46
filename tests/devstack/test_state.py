"""What the demo remembers between starts."""

import os
import socket
import stat
from pathlib import Path

import pytest

from pld_app.devstack.ports import LOOPBACK
from pld_app.devstack.state import USUAL_PORTS, StackState, state_load, state_save, write_private


def test_state_survives_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    previous = os.umask(0)
    try:
        state = StackState(ports={"web": 8123})
        state_save(path, state)
    finally:
        os.umask(previous)
    assert state_load(path) == state
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["state.json"]


def test_a_file_readable_by_all_is_replaced_by_a_private_one(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o644)
    write_private(path, "new")
    assert (path.read_text(encoding="utf-8"), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)


def test_secrets_are_made_anew_and_differ() -> None:
    first, second = StackState(), StackState()
    secrets = {
        secret
        for state in (first, second)
        for secret in (state.secret_key, state.database_password, state.valkey_password, *state.role_passwords.values())
    }
    assert len(secrets) == 2 * (3 + 4)
    assert min(map(len, secrets)) >= 32


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{"ports": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"state\.json is damaged"):
        state_load(path)


def test_remembered_ports_are_kept_and_a_taken_one_moves() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        taken = int(server.getsockname()[1])
        state = StackState(ports={"web": taken})
        state.settle_ports()
        remembered = dict(state.ports)
        state.settle_ports()
    assert set(remembered) == set(USUAL_PORTS)
    assert remembered["web"] != taken
    assert len(set(remembered.values())) == len(remembered)
    assert state.ports == remembered
