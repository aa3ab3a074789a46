"""Helpers of the devstack tests: programs run in a supervisor of their own, and a look at what is left of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pld_app.devstack.paths import ROOT

# Starts two children; the first has a child of its own, and both of its processes ignore polite signals.
SUPERVISED_PROGRAM = """
import os
import sys
from pathlib import Path
from pld_app.devstack.processes import ProcessSpec, Supervisor

folder = Path(sys.argv[1])
stubborn = (
    "import os, signal, subprocess, sys, time\\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)\\n"
    "nested = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\\n"
    "print(os.getpid(), nested.pid, flush=True); time.sleep(300)\\n"
)
polite = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
with Supervisor(logs=folder) as supervisor:
    for name, code in (("stubborn", stubborn), ("polite", polite)):
        log = folder / f"{name}.log"
        supervisor.start_ready(
            ProcessSpec(
                name=name, argv=[sys.executable, "-c", code], env=dict(os.environ), cwd=folder, stop_seconds=1,
                ready=lambda log=log: log.read_text().endswith("\\n"),
            )
        )
    try:
        print("up", flush=True)
        supervisor.watch()
    except KeyboardInterrupt:
        print("stopping", flush=True)
"""


def start_program(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Run Python code as a separate program and return once it has printed its first line."""
    program = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline().strip(), "the program ended before its first line"
    return program


def logged_pids(folder: Path) -> list[int]:
    return [int(word) for log in folder.glob("*.log") for word in log.read_text(encoding="utf-8").split()]


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than an unreaped entry."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z")


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def end(program: subprocess.Popen[str]) -> None:
    """Last resort of a failed test."""
    if program.poll() is None:
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()
