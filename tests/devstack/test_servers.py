"""The embedded servers: real ones, that keep their data and accept only who knows the password."""

import os
import stat
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from pld_app.devstack.ports import free_port
from pld_app.devstack.postgres import (
    ensure_database,
    installation,
    postgres_answers,
    postgres_spec,
    postgres_url,
    remove_cluster,
)
from pld_app.devstack.processes import Supervisor
from pld_app.devstack.valkey import valkey_answers, valkey_spec, valkey_url
from tests.devstack.harness import end, start_program

PASSWORD = "a-password-for-one-test"

# Starts Postgres, adds one row, says so, and waits to be killed.
POSTGRES_PROGRAM = f"""
import sys, time
from pathlib import Path
import psycopg
from pld_app.devstack.postgres import ensure_database, postgres_spec
from pld_app.devstack.processes import Supervisor

home, port = Path(sys.argv[1]), int(sys.argv[2])
with Supervisor(logs=home / "logs") as supervisor:
    supervisor.start_ready(postgres_spec(home=home, port=port, password="{PASSWORD}"))
    with psycopg.connect(ensure_database(port=port, password="{PASSWORD}")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    print("up", flush=True)
    time.sleep(300)
"""


def test_postgres_is_the_declared_version_with_contrib_and_keeps_its_data(tmp_path: Path) -> None:
    try:
        for start in (1, 2):
            port = free_port()
            with Supervisor(logs=tmp_path / "logs") as supervisor:
                supervisor.start_ready(postgres_spec(home=tmp_path, port=port, password=PASSWORD))
                with psycopg.connect(ensure_database(port=port, password=PASSWORD)) as connection:
                    assert connection.info.server_version // 10000 == 18
                    connection.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
                    connection.execute("CREATE TABLE IF NOT EXISTS starts (n int)")
                    connection.execute("INSERT INTO starts VALUES (%s)", [start])
                    rows = connection.execute("SELECT n FROM starts ORDER BY n").fetchall()
                    assert [row[0] for row in rows] == list(range(1, start + 1))
            assert not postgres_answers(postgres_url(port, PASSWORD))
    finally:
        remove_cluster(tmp_path)


def test_postgres_asks_for_the_password_and_the_application_is_no_superuser(tmp_path: Path) -> None:
    port = free_port()
    try:
        with Supervisor(logs=tmp_path / "logs") as supervisor:
            supervisor.start_ready(postgres_spec(home=tmp_path, port=port, password=PASSWORD, durable=False))
            with psycopg.connect(ensure_database(port=port, password=PASSWORD)) as connection:
                for setting, value in {"is_superuser": "off", "synchronous_commit": "on", "TimeZone": "UTC"}.items():
                    assert connection.execute("SELECT current_setting(%s)", [setting]).fetchone() == (value,)
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(postgres_url(port, "wrong"))
    finally:
        remove_cluster(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed supervisor leaves its server running")
def test_postgres_starts_again_after_its_supervisor_was_killed(tmp_path: Path) -> None:
    program = start_program(POSTGRES_PROGRAM, str(tmp_path), str(free_port()))
    try:
        program.kill()
        program.wait()
        port = free_port()
        with Supervisor(logs=tmp_path / "logs") as supervisor:
            supervisor.start_ready(postgres_spec(home=tmp_path, port=port, password=PASSWORD))
            with psycopg.connect(postgres_url(port, PASSWORD)) as connection:
                assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
    finally:
        end(program)
        remove_cluster(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a stand-in directory")
def test_root_keeps_a_private_home_private_and_forgets_data_of_a_deleted_one(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    home = private / "pg"
    try:
        data = installation(home).data
        assert not data.is_relative_to(private)
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        data.mkdir()
        assert installation(home).data.exists()
        (home / "data-is-in").unlink()
        home.rmdir()
        assert not installation(home).data.exists()
    finally:
        remove_cluster(home)
    assert not data.parent.exists()


def test_valkey_keeps_its_data_evicts_nothing_and_asks_for_the_password(tmp_path: Path) -> None:
    for start in (1, 2):
        port = free_port()
        url = valkey_url(port, PASSWORD)
        with Supervisor(logs=tmp_path / "logs") as supervisor:
            supervisor.start_ready(valkey_spec(home=tmp_path, port=port, password=PASSWORD))
            with redis.Redis.from_url(url) as client:
                assert client.incr("starts") == start
                assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
                assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert not valkey_answers(f"redis://127.0.0.1:{port}/0")
        assert not valkey_answers(url)
    assert stat.S_IMODE((tmp_path / "valkey.conf").stat().st_mode) == 0o600
