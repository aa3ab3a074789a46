"""What the evidence costs: added to a decision, at a full log of writers, to verify and to export a million events."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pld_app.devstack import paths
from tests.bench.machine import Figures, peak_mib, percentile, say

if TYPE_CHECKING:
    from rules.models import Ruleset

ROUNDS, DECISIONS = 10, 60
WRITERS, WRITE_S = 8, 5.0
EVENTS = 1_000_000


def measure(*, quick: bool) -> Figures:
    """Decisions with and without the log's trigger in turns; writers on one task and on eight; a verified log."""
    rounds, decisions, seconds, events = (2, 5, 0.3, 3000) if quick else (ROUNDS, DECISIONS, WRITE_S, EVENTS)
    return {
        "decision": _decisions(rounds, decisions),
        "writers_one_task": _writers(seconds, tasks=1),
        "writers_eight_tasks": _writers(seconds, tasks=8),
        **_long_log(events),
    }


# The row as it was before there were chains and leaves: numbered, nothing else. Only the columns' uniqueness is served.
_WITHOUT = """
CREATE FUNCTION bench_without_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.chain := NEW.id::text; NEW.at := clock_timestamp(); RETURN NEW; END $$;
CREATE TRIGGER bench_without_log BEFORE INSERT ON pld_app_auditevent FOR EACH ROW EXECUTE FUNCTION bench_without_log();
ALTER TABLE pld_app_auditevent DISABLE TRIGGER bench_without_log;
"""


def _switch(*, with_log: bool) -> None:
    from django.db import connection

    on, off = ("pld_audit_insert", "bench_without_log") if with_log else ("bench_without_log", "pld_audit_insert")
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE pld_app_auditevent DISABLE TRIGGER {off}")
        cursor.execute(f"ALTER TABLE pld_app_auditevent ENABLE ALWAYS TRIGGER {on}")


def _decisions(rounds: int, decisions: int) -> Figures:
    """Deferring, each on another instruction, through the service: rounds take the two ways in turn."""
    from django.db import connection

    from pld_app.models import Domain, Role
    from rules.services.review import instruction_defer
    from tests.factories import make_instruction, make_task, make_user

    task, reviewer = make_task("decisions"), make_user("rita", Role.REVIEWER, Domain.LEGAL)
    open_ = iter(
        [make_instruction(task, f"If clause {n}, then Compliant.") for n in range(2 * rounds * decisions + 40)]
    )
    with connection.cursor() as cursor:
        cursor.execute(_WITHOUT)
    times: dict[bool, list[float]] = {True: [], False: []}

    def decide(kept: list[float]) -> None:
        one = next(open_)
        started = time.perf_counter()
        instruction_defer(instruction_id=one.pk, reviewer=reviewer, version=one.version)
        kept.append((time.perf_counter() - started) * 1000)

    for with_log in (True, False):
        _switch(with_log=with_log)
        for _warm in range(20):
            decide([])
    for number in range(2 * rounds):
        with_log = number % 2 == 0
        _switch(with_log=with_log)
        for _decision in range(decisions):
            decide(times[with_log])
    _switch(with_log=True)
    with_ms, without_ms = times[True], times[False]
    found = {
        "with_log_p50_ms": percentile(with_ms, 50),
        "with_log_p95_ms": percentile(with_ms, 95),
        "without_p50_ms": percentile(without_ms, 50),
        "without_p95_ms": percentile(without_ms, 95),
        "added_p50_ms": percentile(with_ms, 50) - percentile(without_ms, 50),
        "added_p95_ms": percentile(with_ms, 95) - percentile(without_ms, 95),
    }
    rounded: Figures = {name: round(value, 2) for name, value in found.items()}
    return rounded | {"each": len(with_ms)}


def _writers(seconds: float, *, tasks: int) -> Figures:
    """Events a second by eight connections, a transaction each, and how long one waited at most."""
    from django.db import connection, transaction

    from pld_app.audit import audit_record
    from pld_app.models import Role
    from tests.factories import make_task, make_user

    actor = make_user(f"wanda{tasks}", Role.ADMIN)
    about = [make_task(f"writers-{tasks}-{number}") for number in range(tasks)]
    waits, until = list[float](), time.monotonic() + seconds

    def write(number: int) -> None:
        task = about[number % tasks]
        try:
            while time.monotonic() < until:
                started = time.perf_counter()
                with transaction.atomic():
                    audit_record("thing.done", actor=actor, subject=task, task_slug=task.slug, data={"n": number})
                waits.append((time.perf_counter() - started) * 1000)
        finally:
            connection.close()

    _together([lambda number=number: write(number) for number in range(WRITERS)])  # type: ignore[misc]
    return {
        "events_a_second": round(len(waits) / seconds),
        "p95_ms": round(percentile(waits, 95), 2),
        "slowest_ms": round(max(waits), 1),
    }


def _together(acts: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=act) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _long_log(events: int) -> Figures:
    """A ruleset of so many events, made by COPY and sealed: the log verified, the bundle of the ruleset written."""
    with TemporaryDirectory() as folder:
        ruleset = _signed_ruleset()
        sealed_s = generate(events, Path(folder), ruleset)
        return {
            "verify": {"seal_s": round(sealed_s, 1), **_verify(events)},
            "export": _export(ruleset, Path(folder)),
        }


def _signed_ruleset() -> "Ruleset":
    from pld_app.models import Domain, Role
    from tests.factories import make_task, make_user
    from tests.publishing.steps import signed

    sofia, samir = (make_user(name, Role.SIGNATORY) for name in ("sofia", "samir"))
    return signed(make_task("long"), make_user("lena", Role.REVIEWER, Domain.LEGAL), sofia, samir, count=20)


def _verify(events: int) -> Figures:
    """By as many processes as there are processors."""
    from pld_app.transparency.verify import log_verify

    before, started, cpu = peak_mib(), time.monotonic(), os.times()
    report = log_verify(processes=os.cpu_count() or 1)
    took, after = time.monotonic() - started, os.times()
    assert (int(report.verdict), report.sealed >= events) == (0, True), report.first_bad
    return {
        "events": report.events,
        "chains": report.chains,
        "checkpoints": report.checkpoints,
        "verify_s": round(took, 2),
        # Of our processes alone, Postgres not counted: what stays comparable on a busy machine.
        "cpu_s": round(sum(after[:4]) - sum(cpu[:4]), 2),
        "peak_mib": round(peak_mib()),
        "peak_before_mib": round(before),
        "processes": os.cpu_count(),
    }


def _export(ruleset: "Ruleset", folder: Path) -> Figures:
    """`manage.py export_bundle` in a process of its own, which is all that is counted."""
    from django.db import connection

    file = folder / "bundle.zip"
    command = [sys.executable, "manage.py", "export_bundle", ruleset.task.slug, str(ruleset.number), str(file)]
    environment = os.environ | {"PLD_AUDIT_KEY_FILE": str(folder / "key.pem")}
    assert connection.settings_dict["NAME"] in os.environ["DATABASE_URL"]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=paths.ROOT, env=environment, stdout=sys.stderr)
    _pid, status, usage = os.wait4(process.pid, 0)
    took = time.monotonic() - started
    assert status == 0, f"export_bundle ended with {os.waitstatus_to_exitcode(status)}"
    return {
        "export_s": round(took, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
        "zip_mib": round(file.stat().st_size / 2**20),
    }


def generate(events: int, folder: Path, ruleset: "Ruleset") -> float:
    """Copy in events of a ruleset with the leaves they would have got, and seal them; returns its seconds.

    The trigger is off meanwhile: what it makes is made here by `record`, and verifying proves that it is the same.
    """
    from django.conf import settings
    from django.db import connection

    from pld_app.models import AuditChain, AuditKey
    from pld_app.transparency.keys import key_create, signer_load
    from pld_app.transparency.sealing import seal

    settings.AUDIT_KEY_FILE = str(folder / "key.pem")
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('pld_app_auditevent_id_seq')")
        first = int(cursor.fetchone()[0])
        cursor.execute("ALTER TABLE pld_app_auditevent DISABLE TRIGGER pld_audit_insert")
        head = AuditChain.objects.get(name=f"ruleset:{ruleset.pk}")
        head.seq, head.head = _copy(events, first, ruleset, (head.seq, bytes(head.head)))
        head.save()
        cursor.execute("ALTER TABLE pld_app_auditevent ENABLE ALWAYS TRIGGER pld_audit_insert")
        cursor.execute("SELECT setval('pld_app_auditevent_id_seq', %s)", [first + events])
        cursor.execute("ANALYZE pld_app_auditevent")
    _drop_unfit()
    if not AuditKey.objects.exists():
        key_create(origin="bench/audit")
    started = time.monotonic()
    seal(signer_load())
    return time.monotonic() - started


def _drop_unfit() -> None:
    """Events of the decisions timed without the log have no leaf: they were never part of it."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("ALTER TABLE pld_app_auditevent DISABLE TRIGGER pld_append_only")
        cursor.execute("DELETE FROM pld_app_auditevent WHERE seq = 0")
        cursor.execute("ALTER TABLE pld_app_auditevent ENABLE ALWAYS TRIGGER pld_append_only")
        cursor.execute("SET session_replication_role = origin")


# Each column with its type, in the order in which rows are made.
_COLUMNS = {
    "id": "int8",
    "at": "timestamptz",
    "actor_id": "int8",
    **dict.fromkeys(("actor_name", "actor_role", "action", "object_type", "object_id"), "varchar"),
    **dict.fromkeys(("object_label", "task_slug"), "varchar"),
    "data": "jsonb",
    **dict.fromkeys(("request_id", "app_version", "chain"), "varchar"),
    "seq": "int8",
    **dict.fromkeys(("prev", "body", "leaf", "leaf_hash"), "bytea"),
}


def _copy(events: int, first: int, ruleset: "Ruleset", head: tuple[int, bytes]) -> tuple[int, bytes]:
    """Add events to the ruleset's chain, which ends at `head` (seq, leaf hash); returns where it ends then."""
    from django.db import connection
    from psycopg.types.json import Jsonb

    from pld_app.canonical import canonical_json
    from pld_app.transparency import record

    (seq, prev), chain, slug = head, f"ruleset:{ruleset.pk}", ruleset.task.slug
    began = datetime(2026, 1, 1, tzinfo=UTC)
    say(f"  making {events:,} events")
    statement = f"COPY pld_app_auditevent ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT BINARY)"
    with connection.connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types([*_COLUMNS.values()])
        for number in range(events):
            digest = sha256(str(number).encode()).hexdigest()
            data = canonical_json(
                {
                    "number": number % 997,
                    "revision": 1,
                    "text_sha256": digest,
                    "from_status": "proposed",
                    "from_waiting": "",
                    "version": 2,
                    "note": "The clause allows copies for a year.",
                }
            ).decode()
            facts = (
                ruleset.composed_by_id,
                "Rita Reviewer",
                "reviewer",
                "ruleset.rule_read",
                "ruleset",
                str(ruleset.pk),
                str(ruleset),
                slug,
                data,
                digest[:36],
                "0.1.0",
            )
            at = began + timedelta(seconds=number, microseconds=number % 999_983)
            body = record.body_of(*facts)
            leaf = record.leaf_bytes(at=at, body=body, chain=chain, prev=prev, seq=seq + 1)
            made = (chain, seq + 1, prev, body, leaf, record.leaf_hash(leaf))
            copy.write_row((first + number, at, *facts[:8], Jsonb(data, dumps=str), *facts[9:], *made))
            seq, prev = seq + 1, made[-1]
    return seq, prev
