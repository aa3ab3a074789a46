"""Each measurement in a process of its own, so that its memory is its own, and the servers it talks to."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pld_app.devstack import paths
from pld_app.devstack.demo import _web
from pld_app.devstack.ports import free_port
from pld_app.devstack.state import StackState
from tests.bench.machine import Figures

WAIT, READY = "-", "ready"
_SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.bench.settings"}


def in_own_process(function: str, *, environment: Mapping[str, str] | None = None, **arguments: object) -> Figures:
    """Call `module:function` with these JSON arguments in a new process; returns what it returned.

    What it prints goes to stderr. Raises CalledProcessError when it failed.
    """
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [sys.executable, "-m", "tests.bench.processes", function, json.dumps(arguments), result.name]
        environment = {**os.environ, **_SETTINGS, **(environment or {})}
        subprocess.run(command, cwd=paths.ROOT, env=environment, check=True, stdout=sys.stderr)
        found: Figures = json.loads(Path(result.name).read_text(encoding="utf-8"))
    return found


class Beside:
    """A process that is ready and waits for the arguments of its one call."""

    def __init__(self, process: "subprocess.Popen[str]", result: Path) -> None:
        self._process = process
        self._result = result

    def go(self, **arguments: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.close()

    def result(self) -> Figures:
        """What it returned, once it has. RuntimeError when it failed."""
        if self._process.wait() != 0:
            raise RuntimeError("the process beside this one failed")
        found: Figures = json.loads(self._result.read_text(encoding="utf-8"))
        return found


@contextmanager
def beside(function: str) -> Iterator[Beside]:
    """A process that has started and calls `module:function` when told to go."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [sys.executable, "-m", "tests.bench.processes", function, WAIT, result.name]
        environment = {**os.environ, **_SETTINGS}
        with subprocess.Popen(
            command, cwd=paths.ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().strip() == READY
                yield Beside(process, Path(result.name))
            finally:
                process.kill()


class Itself:
    """As `Beside`, in this process: the call is made when its result is asked for."""

    def __init__(self, call: Callable[..., Figures]) -> None:
        self._call = call
        self._arguments: dict[str, object] = {}

    def go(self, **arguments: object) -> None:
        self._arguments = arguments

    def result(self) -> Figures:
        return self._call(**self._arguments)


@contextmanager
def itself(function: str) -> Iterator[Itself]:
    yield Itself(_function(function))


def _function(name: str) -> Callable[..., Figures]:
    """`module:function`."""
    module, _, function = name.partition(":")
    found: Callable[..., Figures] = getattr(importlib.import_module(module), function)
    return found


def main() -> None:
    function, arguments, result = sys.argv[1:]
    import django

    django.setup()
    call = _function(function)
    if arguments == WAIT:
        print(READY, flush=True)  # noqa: T201  # the other process waits for it
        arguments = sys.stdin.readline()
    found = call(**json.loads(arguments))
    Path(result).write_text(json.dumps(found), encoding="utf-8")


@contextmanager
def web_server() -> Iterator[int]:
    """The demo's web server on the present database, with the bare view; yields its port once it answers."""
    port = free_port()
    spec = _web(StackState(ports={"web": port}), dict(os.environ | _SETTINGS))
    assert spec.ready is not None
    with subprocess.Popen(spec.argv, cwd=spec.cwd, env=spec.env, stdout=sys.stderr) as process:
        try:
            deadline = time.monotonic() + spec.ready_seconds
            while not spec.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the web server did not start")
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


@contextmanager
def stub_endpoint(latency_s: float) -> Iterator[str]:
    """A model server that answers everything after `latency_s`, in a process of its own; yields its base URL."""
    command = [sys.executable, "-m", "tests.stub_server", "--latency", str(latency_s)]
    with subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
