"""Real processes for tests: Celery workers on the test database and stub servers that keep a log of their calls."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.db import connection

LEASE_S = "2"


def database_url() -> str:
    """The URL of the database this test runs on, for a process of its own."""
    settings = connection.settings_dict
    user, password = (quote(str(settings[name]), safe="") for name in ("USER", "PASSWORD"))
    account = f"{user}:{password}" if password else user
    return f"postgresql://{account}@/{settings['NAME']}?host={settings['HOST']}&port={settings['PORT']}"


def process_environment() -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": database_url(),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PLD_JOB_LEASE_S": LEASE_S,
    }


class Worker:
    """A Celery worker in a process group of its own."""

    def __init__(self, log: Path, *, concurrency: int = 1) -> None:
        command = [sys.executable, "-m", "celery", "-A", "pld_app.celery:app", "worker", "--loglevel", "INFO"]
        options = ["--concurrency", str(concurrency), "--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, *options],
                env=process_environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def is_ready(self) -> bool:
        """It has said that it takes work."""
        return " ready." in self.log.read_text()

    def kill(self) -> None:
        """kill -9, parent and children at once: no goodbye, as when the machine's memory is gone."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()


@contextmanager
def celery_worker(log: Path, *, concurrency: int = 1) -> Iterator[Worker]:
    """A worker for the block; killed at its end."""
    worker = Worker(log, concurrency=concurrency)
    try:
        yield worker
    finally:
        worker.stop()


@contextmanager
def stub_process(log: Path, *, latency_s: float = 0.05) -> Iterator[str]:
    """The stub endpoint in a process of its own, which a killed worker cannot take with it; yields its base URL."""
    command = [sys.executable, "-m", "tests.stub_server", "--log", str(log), "--latency", str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def calls_logged(log: Path) -> list[dict[str, Any]]:
    """The requests the stub process received, as parsed JSON; a line half written is not counted."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 30.0, what: str = "the condition") -> None:
    """Wait for the condition, bounded; fails the test with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)
