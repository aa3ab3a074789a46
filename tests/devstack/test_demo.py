"""`./dev demo` as a person meets it: one command, a page that answers, a clean end, and the same data next time."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pld_app.devstack.paths import ROOT
from pld_app.devstack.ports import port_is_free
from pld_app.devstack.postgres import remove_cluster
from pld_app.devstack.probe import http_status
from pld_app.devstack.state import state_load

_GIVEN_BY_THE_TEST_RUN = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE")


def demo_environment(folder: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PLD_") and name not in _GIVEN_BY_THE_TEST_RUN
    }
    return kept | {"PLD_DEV_DIR": str(folder)}


@contextmanager
def running_demo(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The demo with all its files in `folder`, and the lines it printed until it was ready."""
    program = subprocess.Popen(
        [str(ROOT / "dev"), "demo"],
        env=demo_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    try:
        lines: list[str] = []
        for line in program.stdout:
            lines.append(line.strip())
            if line.startswith("Logs:"):
                break
        assert any("is ready" in line for line in lines), "\n".join(lines)
        yield program, lines
    finally:
        if program.poll() is None:
            program.kill()
        program.wait()


def address(lines: list[str]) -> str:
    return next(match[0] for line in lines if (match := re.search(r"http://127\.0\.0\.1:\d+/", line)))


def accounts(lines: list[str]) -> list[str]:
    """What is printed between the timings and the address, without any of the times."""
    return [line for line in lines if line and not re.search(r"\d s(:|$)", line) and not line.startswith("Logs:")]


def stop(program: subprocess.Popen[str], number: signal.Signals) -> float:
    """Seconds from the signal to the end, which must be an orderly one."""
    started = time.monotonic()
    program.send_signal(number)
    output, _ = program.communicate(timeout=30)
    assert program.returncode == 0, output
    return time.monotonic() - started


def left_over(folder: Path) -> list[str]:
    """Command lines of processes that still run with this folder as theirs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in environment + command and b"pytest" not in command:
            found.append(command.replace(b"\0", b" ").decode())
    return found


@pytest.mark.slow
def test_the_demo_serves_ends_cleanly_and_continues(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    try:
        with running_demo(folder) as (program, lines):
            assert http_status(f"{address(lines)}healthz") == 200
            assert http_status(f"{address(lines)}sign-in/") == 200
            assert all(role in "\n".join(lines).lower() for role in ("reviewer", "signatory", "auditor", "admin"))
            second = subprocess.run(
                [str(ROOT / "dev"), "demo"], env=demo_environment(folder), capture_output=True, text=True, check=False
            )
            assert second.returncode == 1
            assert "already running here" in second.stderr
            assert stop(program, signal.SIGINT) < 20
        first_accounts, ports = accounts(lines), state_load(folder / "state.json").ports
        assert left_over(folder) == []
        assert all(port_is_free(port) for port in ports.values())
        with running_demo(folder) as (program, lines):
            assert accounts(lines) == first_accounts
            assert http_status(f"{address(lines)}healthz") == 200
            assert stop(program, signal.SIGTERM) < 20
        assert left_over(folder) == []
    finally:
        remove_cluster(folder / "demo" / "postgres")
