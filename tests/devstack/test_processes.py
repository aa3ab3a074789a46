"""The supervisor: nothing dies unseen, and nothing outlives it."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pld_app.devstack.processes import ProcessSpec, StackError, Supervisor, log_tail
from tests.devstack.harness import SUPERVISED_PROGRAM, end, eventually, is_running, logged_pids, start_program


def spec(name: str, code: str, folder: Path, *, stage: int = 1, seconds: float = 5.0) -> ProcessSpec:
    """A child that runs this Python code and is ready once it has logged something."""
    log = folder / f"{name}.log"
    return ProcessSpec(
        name=name,
        argv=[sys.executable, "-c", code],
        env=dict(os.environ),
        cwd=folder,
        stage=stage,
        stop_seconds=seconds,
        ready=lambda: log.stat().st_size > 0,
        ready_seconds=seconds,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_stops_children_and_grandchildren(number: signal.Signals, tmp_path: Path) -> None:
    program = start_program(SUPERVISED_PROGRAM, str(tmp_path))
    try:
        pids = logged_pids(tmp_path)
        assert [is_running(pid) for pid in pids] == [True, True, True]
        program.send_signal(number)
        output, _ = program.communicate(timeout=10)
        assert program.returncode == 0
        assert "stubborn did not stop within 1 s and is killed" in output
        assert "polite did not stop" not in output
        assert eventually(lambda: not any(map(is_running, pids)), seconds=2)
    finally:
        end(program)


def test_repeated_interrupts_do_not_break_the_stopping(tmp_path: Path) -> None:
    program = start_program(SUPERVISED_PROGRAM, str(tmp_path))
    try:
        pids = logged_pids(tmp_path)
        for _ in range(5):
            program.send_signal(signal.SIGINT)
            time.sleep(0.1)
        program.communicate(timeout=10)
        assert program.returncode == 0
        assert eventually(lambda: not any(map(is_running, pids)), seconds=2)
    finally:
        end(program)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_children_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    program = start_program(SUPERVISED_PROGRAM, str(tmp_path))
    try:
        polite = int((tmp_path / "polite.log").read_text(encoding="utf-8"))
        program.kill()
        assert eventually(lambda: not is_running(polite), seconds=5)
    finally:
        end(program)
        for pid in logged_pids(tmp_path):
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_child_that_dies_before_it_is_ready_is_named_with_its_last_lines(tmp_path: Path) -> None:
    code = "import sys; sys.exit(3)"
    with Supervisor(logs=tmp_path) as supervisor, pytest.raises(StackError, match="exit code 3") as caught:
        supervisor.start_ready(spec("early", code, tmp_path))
    assert str(tmp_path / "early.log") in str(caught.value)


def test_a_child_that_is_never_ready_is_given_up_with_its_log(tmp_path: Path) -> None:
    slow = ProcessSpec(
        name="slow",
        argv=[sys.executable, "-c", "import time; print('still loading', flush=True); time.sleep(60)"],
        env=dict(os.environ),
        cwd=tmp_path,
        ready=lambda: False,
        ready_seconds=1,
    )
    with Supervisor(logs=tmp_path) as supervisor, pytest.raises(StackError, match="not ready after 1 s") as caught:
        supervisor.start_ready(slow)
    assert "still loading" in str(caught.value)


def test_a_step_returns_its_output_and_a_failed_one_shows_twenty_lines(tmp_path: Path) -> None:
    with Supervisor(logs=tmp_path) as supervisor:
        assert supervisor.run_step(spec("good", "print('done')", tmp_path)) == "done\n"
        code = "import sys\nfor i in range(30): print(f'line {i}')\nsys.exit(1)"
        with pytest.raises(StackError) as caught:
            supervisor.run_step(spec("bad", code, tmp_path))
    assert "bad ended with exit code 1" in str(caught.value)
    assert "line 29" in str(caught.value)
    assert "line 10" in str(caught.value)
    assert "line 9\n" not in str(caught.value)


def test_a_dying_child_is_reported_restarted_and_given_up_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Supervisor(logs=tmp_path) as supervisor:
        supervisor.start(spec("fragile", "import os; print('born', flush=True); os.kill(os.getpid(), 9)", tmp_path))
        with pytest.raises(StackError, match="fragile keeps dying"):
            supervisor.watch()
    output = capsys.readouterr().out
    assert output.count("fragile was ended by signal 9") == 4
    assert output.count("restarting fragile") == 3
    assert (tmp_path / "fragile.log").read_text(encoding="utf-8") == "born\n" * 4


def test_higher_stages_stop_before_lower_ones(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "def leave(*_):\n"
        "    print(time.monotonic(), flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave); print('up', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    with Supervisor(logs=tmp_path) as supervisor:
        supervisor.start_ready(spec("database", code, tmp_path, stage=0))
        supervisor.start_ready(spec("web", code.replace("print(time", "time.sleep(0.3); print(time"), tmp_path))
    ended = {name: float(log_tail(tmp_path / f"{name}.log", 1)) for name in ("database", "web")}
    assert ended["web"] < ended["database"]


def test_a_busy_child_is_urged_before_it_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('finishing', flush=True))\n"
        "signal.signal(signal.SIGQUIT, lambda *_: (print('urged', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    busy = spec("busy", code, tmp_path, seconds=4)
    urged = ProcessSpec(**{**busy.__dict__, "urge_signal": signal.SIGQUIT})
    with Supervisor(logs=tmp_path) as supervisor:
        supervisor.start_ready(urged)
    assert (tmp_path / "busy.log").read_text(encoding="utf-8").split() == ["up", "finishing", "urged"]
    assert "killed" not in capsys.readouterr().out


def test_the_previous_log_is_kept(tmp_path: Path) -> None:
    with Supervisor(logs=tmp_path) as supervisor:
        supervisor.run_step(spec("step", "print('first')", tmp_path))
        supervisor.run_step(spec("step", "print('second')", tmp_path))
    assert (tmp_path / "step.log").read_text(encoding="utf-8") == "second\n"
    assert (tmp_path / "step.log.1").read_text(encoding="utf-8") == "first\n"
