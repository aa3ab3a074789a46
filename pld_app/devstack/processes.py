"""A small supervisor: starts child processes, logs each to a file, tells of deaths, stops all in order."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_RESTARTS_ALLOWED = 3
_RESTART_WINDOW_SECONDS = 60.0
_LOG_LINES_SHOWN = 20


class StackError(Exception):
    """A part of the stack could not start or did not stay up; the message says which, with its last log lines."""


@dataclass(frozen=True)
class ProcessSpec:
    """One child process. `stop_signal` asks it to end and `urge_signal`, a little later, asks again; what remains
    after `stop_seconds` is killed. A higher stage stops first, the children of one stage together.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    account: tuple[int, int] | None = None  # (uid, gid) to run as; None keeps our own
    stop_signal: signal.Signals = signal.SIGTERM
    urge_signal: signal.Signals | None = None
    urge_after_seconds: float = 3.0
    stop_seconds: float = 6.0
    stage: int = 2
    ready: Callable[[], bool] | None = None
    ready_seconds: float = 30.0


@dataclass
class Child:
    spec: ProcessSpec
    popen: subprocess.Popen[bytes]
    restarts: deque[float] = field(default_factory=deque)


def say(text: str) -> None:
    print(text, flush=True)


def log_tail(path: Path, lines: int = _LOG_LINES_SHOWN) -> str:
    """The last lines of a log file, indented; reads at most its last 64 KiB."""
    try:
        with path.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 65536))
            text = handle.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return "    (no log)"
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (nothing logged)"


def exit_words(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


class Supervisor:
    """Owns its children from start to stop; use as a context manager, from the main thread only.

    The first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt here; later ones are ignored while stopping.
    Every child leads a process group of its own, so a Ctrl-C in the terminal reaches only the supervisor.
    """

    def __init__(self, *, logs: Path, keep_open: Iterable[int] = ()) -> None:
        self.logs = logs
        self._keep_open = tuple(keep_open)
        self._children: list[Child] = []
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Supervisor":
        self.logs.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._previous[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_error: object) -> None:
        for number in self._previous:
            signal.signal(number, signal.SIG_IGN)
        self.stop()
        for number, previous in self._previous.items():
            signal.signal(number, previous)  # type: ignore[arg-type]  # what signal.signal returned

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        for handled in self._previous:
            signal.signal(handled, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    def log_path(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def start(self, spec: ProcessSpec) -> Child:
        """Start a process without waiting for it; its previous log is kept as NAME.log.1."""
        path = self.log_path(spec.name)
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
        child = Child(spec=spec, popen=self._spawn(spec))
        self._children.append(child)
        return child

    def wait_ready(self, child: Child) -> None:
        """Block until the child's `ready` answers true. Raises StackError when it dies or takes too long."""
        spec, deadline = child.spec, time.monotonic() + child.spec.ready_seconds
        while spec.ready is not None and not spec.ready():
            code = child.popen.poll()
            if code is not None:
                raise StackError(self._death_notice(spec.name, code))
            if time.monotonic() > deadline:
                late = f"{spec.name} was not ready after {spec.ready_seconds:.0f} s"
                raise StackError(f"{late}; its log ends:\n{log_tail(self.log_path(spec.name))}")
            time.sleep(0.05)

    def start_ready(self, spec: ProcessSpec) -> Child:
        child = self.start(spec)
        self.wait_ready(child)
        return child

    def run_step(self, spec: ProcessSpec) -> str:
        """Run a command to its end and return what it printed. Raises StackError when it fails."""
        child = self.start(spec)
        code = child.popen.wait()
        self._children.remove(child)
        if code != 0:
            raise StackError(self._death_notice(spec.name, code))
        return self.log_path(spec.name).read_text(encoding="utf-8", errors="replace")

    def watch(self) -> None:
        """Block until interrupted. A child that dies is reported and restarted, aloud.

        Raises StackError when one dies more than three times within a minute.
        """
        while True:
            for child in self._children:
                code = child.popen.poll()
                if code is not None:
                    self._restart(child, code)
            time.sleep(0.3)

    def stop(self) -> None:
        """Stop stage by stage, the highest first: ask, wait, kill what remains of each whole group."""
        while self._children:
            stage = max(child.spec.stage for child in self._children)
            chosen = [child for child in self._children if child.spec.stage == stage]
            self._children = [child for child in self._children if child.spec.stage != stage]
            _stop_together(chosen)

    def _restart(self, child: Child, code: int) -> None:
        say(self._death_notice(child.spec.name, code))
        _kill_group(child.popen)
        now = time.monotonic()
        child.restarts.append(now)
        while child.restarts[0] < now - _RESTART_WINDOW_SECONDS:
            child.restarts.popleft()
        if len(child.restarts) > _RESTARTS_ALLOWED:
            raise StackError(f"{child.spec.name} keeps dying; stopping everything")
        say(f"restarting {child.spec.name} ({len(child.restarts)} of {_RESTARTS_ALLOWED} within a minute)")
        time.sleep(0.5)
        child.popen = self._spawn(child.spec)

    def _death_notice(self, name: str, code: int) -> str:
        path = self.log_path(name)
        return f"{name} {exit_words(code)}; {path} ends:\n{log_tail(path)}"

    def _spawn(self, spec: ProcessSpec) -> subprocess.Popen[bytes]:
        uid, gid = spec.account or (None, None)
        with self.log_path(spec.name).open("ab") as log:
            return subprocess.Popen(
                list(spec.argv),
                env=dict(spec.env),
                cwd=spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
                user=uid,
                group=gid,
                extra_groups=[] if spec.account else None,
                pass_fds=self._keep_open,
                preexec_fn=die_with_parent(spec.stop_signal),  # noqa: PLW1509  # the supervisor has one thread
            )


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """A hook for a new child on Linux: it gets this signal when we die, even by SIGKILL. None elsewhere."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def hook() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the request was in place
            os._exit(1)

    return hook


def _stop_together(children: Sequence[Child]) -> None:
    """Ask all, wait for each until its own time, counted from the start, is up; then kill the groups."""
    started = time.monotonic()
    for child in children:
        _signal_process(child.popen, child.spec.stop_signal)
    for child in children:
        spec = child.spec
        if spec.urge_signal and not _ended_by(child.popen, started + spec.urge_after_seconds):
            _signal_process(child.popen, spec.urge_signal)
        if not _ended_by(child.popen, started + spec.stop_seconds):
            say(f"{spec.name} did not stop within {spec.stop_seconds:.0f} s and is killed")
        _kill_group(child.popen)


def _ended_by(popen: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        popen.wait(timeout=max(0.05, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _signal_process(popen: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if popen.poll() is None:
        popen.send_signal(number)


def _kill_group(popen: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left of a child's process group, the child included, and reap the child."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(popen.pid, signal.SIGKILL)
    popen.wait()
