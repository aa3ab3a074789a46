"""Test 36 and the sealer as a process: killed anywhere it goes on, asked it seals at once, it runs as its role."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from pld_app.audit import audit_record
from pld_app.devstack.paths import ROOT
from pld_app.models import AuditEvent, Checkpoint, CheckpointCopy, Role, SealedLeaf, User
from pld_app.transparency.verify import log_verify
from pld_app.transparency.verify_block import Verdict
from tests.factories import make_user
from tests.governance.racing import full
from tests.governance.sealing import Log, all_sealed, at_once, events_make
from tests.workers import process_environment, wait_until

POINTS = 20
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def log(transactional_db: None, tmp_path: Path, settings: Any) -> Log:
    return Log(tmp_path, settings)


@pytest.fixture
def ada(transactional_db: None) -> User:
    return make_user("ada", Role.ADMIN)


def environment(log: Log, **more: str) -> dict[str, str]:
    own = {"PLD_AUDIT_KEY_FILE": str(log.key_file), "PLD_AUDIT_COPY_DIR": str(log.copies), "PLD_AUDIT_COPY_URL": ""}
    return process_environment() | own | more


@pytest.fixture
def killed_at(log: Log) -> Iterator[Callable[[int], int]]:
    """`killed_at(n)` seals in a process that is killed at step n: minus the signal, or how many steps there were."""
    command = [sys.executable, "-m", "tests.governance.sealer_process"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment(log), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, back = process.stdin, process.stdout

        def seal_until(step: int) -> int:
            print(step, file=to, flush=True)
            return int(back.readline())

        yield seal_until
        to.close()


def test_killed_at_twenty_points_it_goes_on_without_fork_or_double(
    log: Log, ada: User, killed_at: Callable[[int], int]
) -> None:
    """Each time there is something new to seal; the next start must find its way from whatever was left."""
    events_make(ada, 3)
    steps = killed_at(0)
    assert steps > POINTS
    for point in range(POINTS):
        events_make(ada, 2)
        assert killed_at(1 + point * (steps - 1) // (POINTS - 1)) == -signal.SIGKILL
        # Leaves and checkpoint were committed together or not at all.
        newest = Checkpoint.objects.order_by("-size").first()
        assert newest is not None
        assert SealedLeaf.objects.count() == newest.size
    assert log.seal().is_current
    assert all_sealed()
    assert log_verify().verdict == Verdict.INTACT
    assert Checkpoint.objects.count() == Checkpoint.objects.values("size").distinct().count()
    copied = CheckpointCopy.objects.values_list("checkpoint__note", flat=True)
    assert {path.read_text() for path in log.copies.glob("*.txt")} == set(copied)
    assert not list(log.copies.glob("*.part"))


@pytest.fixture
def sealer(log: Log, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[bytes]"]:
    """`manage.py audit_sealer` whose own rounds are a minute apart, or as many seconds as the test asks for."""
    output = (tmp_path / "sealer.log").open("wb")
    command = [sys.executable, "manage.py", "audit_sealer"]
    own = environment(log, PLD_AUDIT_SEAL_S=str(getattr(request, "param", 60)))
    with output, subprocess.Popen(command, cwd=ROOT, env=own, stdout=output, stderr=output) as process:
        try:
            wait_until(Checkpoint.objects.exists, what="the first seal")
            yield process
        finally:
            process.kill()


def test_what_is_published_or_exported_is_sealed_at_once(
    log: Log, ada: User, sealer: "subprocess.Popen[bytes]"
) -> None:
    time.sleep(0.5)  # it listens by now
    events_make(ada, 2)
    with transaction.atomic():
        audit_record("audit.exported", actor=ada, subject=ada)
    wait_until(all_sealed, timeout_s=15, what="the seal on demand")
    sealer.send_signal(signal.SIGTERM)
    assert sealer.wait(timeout=10) == 0


LAG = """
SELECT extract(epoch FROM (SELECT c.at FROM pld_app_checkpoint c WHERE c.size > l.index ORDER BY c.size LIMIT 1) - e.at)
  FROM pld_app_sealedleaf l JOIN pld_app_auditevent e ON e.id = l.event_id WHERE e.action = 'thing.done' ORDER BY 1
"""


@pytest.mark.parametrize("sealer", [full(1, 10)], indirect=True, ids=["its pace"])
def test_34_what_six_writers_commit_is_sealed_within_15_seconds(
    log: Log, ada: User, sealer: "subprocess.Popen[bytes]"
) -> None:
    """Its own pace of 10 s and 20 runs in a full run; commits come up to a second after their event was written."""
    chance = random.Random(34)

    def write(delays: list[float]) -> None:
        for delay in delays:
            with transaction.atomic():
                audit_record("thing.done", actor=ada, subject=ada, task_slug=f"t{int(delay * 10)}")
                time.sleep(delay)

    runs, each = full(1, 20), full(4, 20)
    for _run in range(runs):
        at_once([partial(write, [chance.random() for _event in range(each)]) for _writer in range(6)])
    wait_until(all_sealed, timeout_s=30, what="the last seal")
    with connection.cursor() as cursor:
        cursor.execute(LAG)
        lags = [float(row[0]) for row in cursor.fetchall()]
    assert len(lags) == AuditEvent.objects.filter(action="thing.done").count() == runs * each * 6
    p99 = lags[int(len(lags) * 0.99)]
    print(f"seal lag of {len(lags)} events: p50 {lags[len(lags) // 2]:.1f} s, p99 {p99:.1f} s")  # noqa: T201  # the figure
    assert p99 < 15


def test_it_seals_with_the_rights_of_its_role_alone(log: Log, ada: User, roles: None) -> None:
    """Everything a round does, by a session of pld_sealer; decisions and accounts stay out of its reach."""
    events_make(ada, 2)
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE pld_sealer")
    try:
        assert log.seal().is_current
        with connection.cursor() as cursor, pytest.raises(DatabaseError, match="permission denied"):
            cursor.execute("SELECT * FROM pld_app_user")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("RESET ROLE")
    assert all_sealed()
    assert log.newest_copy().exists()
