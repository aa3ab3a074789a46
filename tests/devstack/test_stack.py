"""The throwaway stack of a test run, and the lock that keeps two demos apart."""

import os
import subprocess
from pathlib import Path

import psycopg
import pytest
import redis

from pld_app.devstack import paths
from pld_app.devstack.postgres import postgres_answers
from pld_app.devstack.processes import StackError
from pld_app.devstack.stack import exclusive, is_locked, remove_servers, throwaway_stack
from pld_app.devstack.valkey import valkey_answers


def homes() -> set[Path]:
    return set(paths.TEST.glob("*"))


def test_a_throwaway_stack_serves_both_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    before = homes()
    with throwaway_stack() as environment:
        with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
            connection.execute("CREATE DATABASE made_by_tests")  # as the test runner will
        with redis.Redis.from_url(environment["REDIS_URL"]) as client:
            assert client.ping()
        assert len(homes() - before) == 1
    assert homes() == before
    assert not postgres_answers(environment["DATABASE_URL"])
    assert not valkey_answers(environment["REDIS_URL"])


def test_what_a_killed_run_left_behind_is_removed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone@db.example/pld")
    monkeypatch.setenv("REDIS_URL", "redis://broker.example:6379/0")
    with subprocess.Popen(["true"]) as ended:
        pass
    abandoned, ours = paths.TEST / f"{ended.pid}-killed", paths.TEST / f"{os.getpid()}-running"
    for home in (abandoned, ours):
        (home / "postgres").mkdir(parents=True)
    try:
        with throwaway_stack():
            assert not abandoned.exists()
            assert ours.exists()
    finally:
        remove_servers(ours)


def test_servers_named_by_the_environment_are_used_and_none_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:secret@db.example/pld")
    monkeypatch.setenv("REDIS_URL", "redis://broker.example:6379/0")
    monkeypatch.setenv("PLD_SECRET_KEY", "given")
    with throwaway_stack() as environment:
        assert environment["DATABASE_URL"] == "postgresql://someone:secret@db.example/pld"
        assert environment["REDIS_URL"] == "redis://broker.example:6379/0"
        assert environment["PLD_SECRET_KEY"] == "given"
    assert capsys.readouterr().out == ""


def test_a_second_holder_of_the_lock_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    lock = tmp_path / "demo.lock"
    assert not is_locked(lock)
    with exclusive(lock):
        assert is_locked(lock)
        with pytest.raises(StackError, match="already running"), exclusive(lock, seconds=0):
            pass
    with exclusive(lock, seconds=0):
        pass
