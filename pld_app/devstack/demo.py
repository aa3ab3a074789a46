"""`./dev demo` and `./dev up`: the whole product on one machine, and `./dev manage` against it."""

import os
import signal
import subprocess
import sys
import time

from pld_app.devstack import paths
from pld_app.devstack.ports import LOOPBACK
from pld_app.devstack.probe import http_status
from pld_app.devstack.processes import ProcessSpec, StackError, Supervisor, say
from pld_app.devstack.stack import (
    exclusive,
    is_locked,
    owner_environment,
    remove_servers,
    stack_environment,
    start_servers,
    timed,
)
from pld_app.devstack.state import StackState, state_load, state_save

LOCK_FILE = paths.DEV / "demo.lock"
STUDENT_STAGE = 1  # after the worker, which would record its calls as failed, and before the databases


def demo_run(*, seed: bool, reset: bool) -> int:
    """Start everything, print the address, stay until Ctrl-C. Returns the exit code."""
    started = time.monotonic()
    with exclusive(LOCK_FILE) as lock:
        if reset:
            _forget_everything()
        state = _settled_state()
        with Supervisor(logs=paths.LOGS, keep_open=[lock]) as supervisor:
            try:
                accounts = _start_all(supervisor, state, seed=seed)
                _announce(state, accounts, time.monotonic() - started)
                supervisor.watch()
            except KeyboardInterrupt:
                say("\nstopping")
        say("stopped; the data is kept (./dev demo continues, ./dev demo --reset starts anew)")
    return 0


def manage_run(arguments: list[str]) -> int:
    """Run manage.py on the demo's data; starts its servers for that time when the demo is not running."""
    if is_locked(LOCK_FILE):
        return _manage(state_load(paths.STATE_FILE), arguments)
    with exclusive(LOCK_FILE) as lock:
        state = _settled_state()
        with Supervisor(logs=paths.LOGS, keep_open=[lock]) as supervisor:
            start_servers(supervisor, home=paths.DEMO, state=state)
            return _manage(state, arguments)


def demo_environment(state: StackState) -> dict[str, str]:
    """The product's settings, and what only the seeding command reads."""
    return stack_environment(state, home=paths.DEMO) | {
        "PLD_DEMO_DIR": str(paths.DEMO),
        "PLD_DEMO_STUDENT_URL": f"http://{LOOPBACK}:{state.ports['student']}/v1",
    }


def _manage(state: StackState, arguments: list[str]) -> int:
    command = [sys.executable, "manage.py", *arguments]
    environment = demo_environment(state) | owner_environment(state)  # who may read the state file may migrate
    return subprocess.run(command, cwd=paths.ROOT, env=environment, check=False).returncode


def _forget_everything() -> None:
    """Delete the demo's data and secrets; remembered ports go too, so the usual ones are tried again."""
    remove_servers(paths.DEMO)
    paths.STATE_FILE.unlink(missing_ok=True)


def _settled_state() -> StackState:
    """The remembered state with ports that are free now, saved. The caller holds the lock."""
    if (paths.DEMO / "postgres").exists() and not paths.STATE_FILE.exists():
        gone = f"{paths.STATE_FILE} is gone, and with it the database password"
        raise StackError(f"{gone}: run ./dev demo --reset")
    state = state_load(paths.STATE_FILE)
    state.settle_ports()
    state_save(paths.STATE_FILE, state)
    return state


def _start_all(supervisor: Supervisor, state: StackState, *, seed: bool) -> str:
    """Start every part in order; returns what the seeding command printed ("" without seeding)."""
    environment = demo_environment(state)
    start_servers(supervisor, home=paths.DEMO, state=state)
    student = supervisor.start(_student(state, environment))  # loads its weights while we migrate
    with timed("migrate"):
        as_owner = environment | owner_environment(state)
        supervisor.run_step(_python("migrate", as_owner, "manage.py", "migrate", "--noinput"))
    accounts = ""
    if seed:
        with timed("sample task"):
            accounts = supervisor.run_step(_python("demo_seed", environment, "manage.py", "demo_seed"))
    with timed("sealer, worker, beat, web, student"):
        supervisor.start(_sealer(environment | owner_environment(state)))
        supervisor.start(_worker(environment))
        supervisor.start(_beat(environment))
        supervisor.start_ready(_web(state, environment))
        supervisor.wait_ready(student)
    return accounts


def _announce(state: StackState, accounts: str, seconds: float) -> None:
    say(f"\n{accounts.strip()}\n" if accounts.strip() else "")
    say(f"PLD Review is ready after {seconds:.1f} s: http://{LOOPBACK}:{state.ports['web']}/")
    say(f"Logs: {paths.LOGS}/   Stop: Ctrl-C")


def _python(name: str, environment: dict[str, str], *arguments: str) -> ProcessSpec:
    return ProcessSpec(name=name, argv=[sys.executable, *arguments], env=environment, cwd=paths.ROOT)


def _web(state: StackState, environment: dict[str, str]) -> ProcessSpec:
    address = f"{LOOPBACK}:{state.ports['web']}"
    options = (
        f"--bind {address} --worker-class gthread --workers 2 --threads 4 --graceful-timeout 4 --no-control-socket"
    )
    return ProcessSpec(
        name="web",
        argv=[sys.executable, "-m", "gunicorn", "pld_app.wsgi:application", *options.split()],
        env=environment,
        cwd=paths.ROOT,
        ready=lambda: http_status(f"http://{address}/healthz") == 200,
        ready_seconds=60,
    )


def _worker(environment: dict[str, str]) -> ProcessSpec:
    options = f"--loglevel INFO --concurrency {min(4, os.cpu_count() or 2)} --without-gossip --without-mingle"
    quick_end = ["--", "worker.soft_shutdown_timeout=1"]
    return ProcessSpec(
        name="worker",
        argv=[sys.executable, "-m", "celery", "-A", "pld_app.celery:app", "worker", *options.split(), *quick_end],
        env=environment,
        cwd=paths.ROOT,
        urge_signal=signal.SIGQUIT,  # an idle worker ends at the first signal; a busy one hands its work back
        stop_seconds=9,
    )


def _beat(environment: dict[str, str]) -> ProcessSpec:
    options = ["--loglevel", "WARNING", "--pidfile=", "--schedule", str(paths.DEMO / "celerybeat-schedule")]
    return ProcessSpec(
        name="beat",
        argv=[sys.executable, "-m", "celery", "-A", "pld_app.celery:app", "beat", *options],
        env=environment,
        cwd=paths.ROOT,
    )


def _sealer(environment: dict[str, str]) -> ProcessSpec:
    """The one process that knows the key. It runs under the same account here, so the key is only out of sight."""
    home = paths.DEMO / "audit"
    own = {"PLD_AUDIT_KEY_FILE": str(home / "key.pem"), "PLD_AUDIT_COPY_DIR": str(home / "copies")}
    own |= {"PLD_MIGRATOR_DATABASE_URL": ""}
    arguments = ("manage.py", "audit_sealer", "--origin", "pld-review.localhost/audit")
    return _python("sealer", environment | own, *arguments)


def _student(state: StackState, environment: dict[str, str]) -> ProcessSpec:
    port = str(state.ports["student"])
    return ProcessSpec(
        name="student",
        argv=[sys.executable, "-m", "evaluation.student_server", "--port", port],
        env=environment,
        cwd=paths.ROOT,
        stage=STUDENT_STAGE,
        ready=lambda: http_status(f"http://{LOOPBACK}:{port}/health") == 200,
        ready_seconds=90,
    )
