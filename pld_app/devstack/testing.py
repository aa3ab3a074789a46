"""`./dev test`, `e2e` and `bench`: one command inside a throwaway stack that is always stopped."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout

from pld_app.devstack import paths
from pld_app.devstack.stack import throwaway_stack

_SECONDS_TO_FINISH = 20.0


def pytest_run(arguments: Sequence[str]) -> int:
    """Run pytest with these arguments; returns its exit code. Prints nothing after pytest's own last line.

    Without arguments it is the whole suite, in one process more than there are cores: some tests mostly wait.
    """
    whole_suite = ["-n", str(min(5, (os.cpu_count() or 1) + 1)), "--dist", "worksteal"]
    with throwaway_stack() as environment:
        return _run_inside([sys.executable, "-m", "pytest", *(arguments or whole_suite)], environment)


def bench_run(arguments: Sequence[str]) -> int:
    """Run the benchmarks on servers that write to disk as in production; they print their results as JSON."""
    with redirect_stdout(sys.stderr), throwaway_stack(durable=True) as environment:
        return _run_inside([sys.executable, "-m", "tests.bench", *arguments], environment)


def _run_inside(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run in our own process group, so that it owns the terminal; when interrupted it may finish first."""
    with subprocess.Popen(argv, cwd=paths.ROOT, env=dict(environment)) as child:
        try:
            return child.wait()
        except KeyboardInterrupt as interrupt:
            if str(interrupt) != signal.SIGINT.name:  # the terminal's Ctrl-C has reached it already
                child.send_signal(signal.SIGINT)
            try:
                child.wait(timeout=_SECONDS_TO_FINISH)
            except subprocess.TimeoutExpired:
                child.kill()
            return 130
