"""Tests 33, 35, 53 and C12: what the owner of the tables does to the log is found, and the first bad place named."""

import base64
import importlib
import io
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from pld_app.models import AuditAlarm, AuditEvent, AuditKey, Checkpoint, Role, SealedLeaf, User
from pld_app.transparency.keys import key_create
from pld_app.transparency.note import ParsedCheckpoint, checkpoint_parse
from pld_app.transparency.sealing import Blocked
from pld_app.transparency.verify import log_verify
from pld_app.transparency.verify_block import Verdict
from tests.factories import make_user
from tests.governance.racing import full
from tests.governance.sealing import ORIGIN, Log, events_make

CASES = 100
EVENTS = full(400, 10_000)
SIZE = EVENTS + 2  # the events of the key and of an account too
TABLES = ("auditevent", "auditchain", "sealedleaf", "sealednode", "checkpoint", "checkpointcopy", "auditkey")


def sql(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)


@contextmanager
def as_owner() -> Iterator[None]:
    """All guards of the log off, and everything as it was afterwards."""
    with transaction.atomic():
        sql("SET CONSTRAINTS ALL IMMEDIATE")
        for table in TABLES:
            sql(f"ALTER TABLE pld_app_{table} DISABLE TRIGGER USER")
        sql("ALTER TABLE pld_app_sealedleaf DROP CONSTRAINT IF EXISTS pld_app_sealedleaf_event_id_key")
        sql("ALTER TABLE pld_app_auditevent DROP CONSTRAINT audit_chain_without_gaps")
        sql("ALTER TABLE pld_app_auditevent DROP CONSTRAINT audit_chain_without_forks")
        for one in _foreign_keys():
            sql(one)
        yield
        transaction.set_rollback(True)


def _foreign_keys() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint"
            " WHERE contype = 'f' AND confrelid IN ('pld_app_auditevent'::regclass, 'pld_app_checkpoint'::regclass,"
            " 'pld_app_auditkey'::regclass)"
        )
        return [str(row[0]) for row in cursor.fetchall()]


@pytest.fixture
def sealed(log: Log, ada: User) -> Log:
    """A log of 400 events under four checkpoints; of 10,000 in a full run."""
    for _part in range(4):
        events_make(ada, EVENTS // 4, data={"note": "It is fine."})
        log.seal()
    return log


def outside(log: Log) -> ParsedCheckpoint:
    return checkpoint_parse(log.newest_copy().read_text())


EDITS = {
    "action": "'thing.undone'",
    "actor_name": "actor_name || 'x'",
    "actor_role": "'reviewer'",
    "actor_id": "NULL",
    "object_id": "object_id || '1'",
    "object_label": "'Eve'",
    "object_type": "'task'",
    "task_slug": "'other'",
    "request_id": "'r'",
    "app_version": "'9'",
    "data": 'data || \'{"note": "It is not."}\'',
    "at": "at + interval '1 microsecond'",
    "chain": "'task:other'",
    "seq": "seq + 1000",
    "prev": "leaf_hash",
    "body": "body || ' '::bytea",
    "leaf": "leaf || ' '::bytea",
    "leaf_hash": "sha256(leaf_hash)",
}
REMAKE = """
UPDATE pld_app_auditevent SET body = pld_audit_body(pld_app_auditevent) WHERE id = %s;
UPDATE pld_app_auditevent SET leaf = pld_audit_leaf(pld_app_auditevent) WHERE id = %s;
UPDATE pld_app_auditevent SET leaf_hash = sha256('\\x00'::bytea || leaf) WHERE id = %s;
"""


def edit(victim: int, chance: random.Random) -> list[str]:
    column = chance.choice(list(EDITS))
    sql(f"UPDATE pld_app_auditevent SET {column} = {EDITS[column]} WHERE id = %s", victim)
    if column not in {"chain", "seq", "prev", "body", "leaf", "leaf_hash"} and chance.random() < 0.5:
        # The careful forger makes body, leaf and hash anew.
        sql(REMAKE.replace("%s", str(int(victim))))
    return [f"Event {victim} "]


def remove(victim: int, chance: random.Random) -> list[str]:
    leaf = SealedLeaf.objects.get(event_id=victim)
    sql("DELETE FROM pld_app_auditevent WHERE id = %s", victim)
    if chance.random() < 0.5:
        sql("DELETE FROM pld_app_sealedleaf WHERE event_id = %s", victim)
    return [f"Event {victim} ", f"Leaf {leaf.index} "]


def reorder(victim: int, chance: random.Random) -> list[str]:
    """Two neighbours change places: their rows, or their places in the tree."""
    leaf = SealedLeaf.objects.get(event_id=victim)
    other = SealedLeaf.objects.get(index=leaf.index + 1 if leaf.index < 300 else leaf.index - 1)
    first, second = sorted([victim, other.event_id])
    if chance.random() < 0.5:
        columns = "at, actor_id, actor_name, actor_role, action, object_type, object_id, object_label, task_slug, data,"
        columns += "request_id, app_version, chain, seq, prev, body, leaf, leaf_hash"
        sql(
            f"UPDATE pld_app_auditevent e SET ({columns}) = (SELECT {columns} FROM pld_app_auditevent o"
            f" WHERE o.id = CASE e.id WHEN {first} THEN {second} ELSE {first} END) WHERE e.id IN ({first}, {second})"
        )
        return [f"Event {first} "]
    sql(
        "UPDATE pld_app_sealedleaf SET event_id = CASE event_id WHEN %s THEN %s ELSE %s END WHERE event_id IN (%s, %s)",
        first,
        second,
        first,
        first,
        second,
    )
    return [f"Event {second} (leaf {min(leaf.index, other.index)}) "]


def insert(victim: int, chance: random.Random) -> list[str]:
    """An event with an id of its own behind a sealed one, with a body and leaf that fit it."""
    forged = AuditEvent.objects.get(pk=victim)
    values = {field.attname: getattr(forged, field.attname) for field in AuditEvent._meta.fields}
    number = 10**6 + chance.randrange(10**6)
    # Ids are drawn twice, so that each second one is free.
    values |= {"id": victim - 1, "action": "thing.forged", "chain": f"task:forged{number}", "seq": 1, "prev": bytes(32)}
    columns = ", ".join(values)
    with connection.cursor() as cursor:
        placed = [json.dumps(value) if name == "data" else value for name, value in values.items()]
        places = ", ".join(["%s"] * len(values))
        cursor.execute(
            f"INSERT INTO pld_app_auditevent ({columns}) OVERRIDING SYSTEM VALUE VALUES ({places})",
            placed,
        )
    sql(REMAKE.replace("%s", str(victim - 1)))
    return [f"Event {victim - 1} "]


@pytest.mark.parametrize("attack", [edit, remove, reorder, insert])
def test_each_change_of_a_sealed_event_is_found_and_named(
    attack: Callable[[int, random.Random], list[str]], sealed: Log
) -> None:
    """Test 33 and C12: 100 random cases each, found without any copy from outside."""
    chance, events = random.Random(attack.__name__), list(SealedLeaf.objects.values_list("event_id", flat=True))
    assert log_verify().verdict == Verdict.INTACT
    with as_owner():
        for _case in range(CASES):
            with transaction.atomic():
                places = attack(chance.choice(events), chance)
                report = log_verify(block=chance.choice([16, 256, 1 << 16]))
                assert report.verdict == Verdict.ALTERED, places
                assert any(report.first_bad.startswith(place) for place in places), (report.first_bad, places)
                transaction.set_rollback(True)
    for block in (16, 64, 256, 1 << 16):
        report = log_verify(outside=outside(sealed), block=block)
        assert (report.verdict, report.events, report.sealed) == (Verdict.INTACT, SIZE, SIZE)
        assert report.root == bytes(Checkpoint.objects.latest("pk").root).hex()


def cut_tail(count: int) -> None:
    """What a restore of an older backup is like: the newest events, their leaves and checkpoints never were."""
    size = SealedLeaf.objects.count() - count
    last = SealedLeaf.objects.get(index=size - 1).event_id
    sql(
        "DELETE FROM pld_app_checkpointcopy WHERE checkpoint_id IN (SELECT id FROM pld_app_checkpoint WHERE size > %s)",
        size,
    )
    sql("DELETE FROM pld_app_checkpoint WHERE size > %s", size)
    sql("DELETE FROM pld_app_sealedleaf WHERE index >= %s", size)
    sql("DELETE FROM pld_app_auditevent WHERE id > %s", last)
    sql(
        "UPDATE pld_app_auditchain c SET (seq, head) = (SELECT seq, leaf_hash FROM pld_app_auditevent e"
        " WHERE e.chain = c.name ORDER BY seq DESC LIMIT 1)"
    )


def test_a_cut_tail_and_an_older_backup_are_caught_by_the_copy_outside(sealed: Log) -> None:
    """Tests 35 and 53: how many are missing is said, nothing more is sealed, and the alarm closes the channels."""
    with as_owner():
        cut_tail(100)
        assert log_verify().verdict == Verdict.INTACT, "alone, an older state is a good state"
        report = log_verify(outside=outside(sealed))
        assert report.verdict == Verdict.INCOMPLETE
        assert report.first_bad.startswith("100 events of the checkpoint")
        with pytest.raises(Blocked, match="100 are missing here"):
            sealed.seal()
        assert AuditAlarm.objects.get().state == "raised"


def rewrite_everything() -> None:
    """Another history in place of ours, whole in itself: chains, leaves and heads made anew; the seal is gone."""
    sql("UPDATE pld_app_auditevent SET object_label = 'Eve' WHERE seq = 7 AND chain = 'platform'")
    for table in ("checkpointcopy", "checkpoint", "sealednode", "sealedleaf", "auditchain"):
        sql(f"DELETE FROM pld_app_{table}")
    sql(importlib.import_module("pld_app.migrations.0004_audit_leaves").BACKFILL)


def test_a_full_rewrite_with_the_stolen_key_is_caught_by_the_copy_outside(sealed: Log, settings: Any) -> None:
    before = outside(sealed)
    with as_owner():
        rewrite_everything()
        settings.AUDIT_COPY_DIR = str(sealed.copies / "elsewhere")
        Log.seal_into(sealed.copies / "elsewhere")
        assert log_verify().verdict == Verdict.INTACT, "who owns all of it can make a log that fits itself"
        report = log_verify(outside=before)
        assert report.verdict == Verdict.ALTERED
        assert "not those of the checkpoint from outside" in report.first_bad


def test_a_full_rewrite_with_another_key_is_caught_by_the_pinned_key(sealed: Log, settings: Any) -> None:
    before, pinned = outside(sealed), bytes(AuditKey.objects.get().public_key)
    with as_owner():
        sql("DELETE FROM pld_app_auditkey")
        rewrite_everything()
        settings.AUDIT_KEY_FILE = str(sealed.copies / "other.pem")
        sql("ALTER TABLE pld_app_auditevent ENABLE ALWAYS TRIGGER pld_audit_insert")
        key_create(origin=ORIGIN)
        Log.seal_into(sealed.copies / "elsewhere")
        assert log_verify().verdict == Verdict.INTACT
        assert log_verify(pinned=pinned).verdict == Verdict.KEY_REFUSED
        assert log_verify(outside=before).verdict == Verdict.KEY_REFUSED


def test_two_checkpoints_of_one_size_raise_an_alarm(sealed: Log) -> None:
    copy = sealed.newest_copy()
    origin, size, _root, rest = copy.read_text().split("\n", 3)
    copy.write_text("\n".join([origin, size, base64.b64encode(bytes(32)).decode(), rest]))
    with pytest.raises(Blocked, match="does not count"):
        sealed.seal()
    with as_owner():
        AuditAlarm.objects.create(state="cleared", detail="looked into")
        sql("DELETE FROM pld_app_checkpointcopy")
        (sealed.copies / copy.name).write_text("x\n1\ny\n\n\u2014 x y\n")
        with pytest.raises(Blocked, match="another checkpoint of size"):
            sealed.seal()
        assert AuditAlarm.objects.latest("pk").state == "raised"


def test_a_checkpoint_with_another_root_is_found(sealed: Log) -> None:
    with as_owner():
        sql("UPDATE pld_app_checkpoint SET root = sha256(root) WHERE size = (SELECT min(size) FROM pld_app_checkpoint)")
        report = log_verify()
    assert report.verdict == Verdict.ALTERED
    assert report.first_bad == f"Leaves 0 to {EVENTS // 4 + 1}: their root is not the signed one."
    with as_owner():
        sql("DELETE FROM pld_app_checkpoint WHERE size = (SELECT max(size) FROM pld_app_checkpoint)")
        assert log_verify().first_bad.endswith("no checkpoint covers them.")


def test_what_is_not_sealed_yet_is_not_called_intact(sealed: Log, ada: User) -> None:
    events_make(ada, 3)
    report = log_verify()
    assert (report.verdict, report.unsealed) == (Verdict.INCOMPLETE, 3)
    assert "not sealed yet" in report.first_bad
    with as_owner():
        sql("UPDATE pld_app_auditevent SET action = 'x' WHERE id = (SELECT max(id) FROM pld_app_auditevent)")
        assert log_verify().verdict == Verdict.ALTERED


def test_an_empty_log_is_intact(db: None) -> None:
    assert log_verify().verdict == Verdict.INTACT


def command(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("verify_audit", *arguments, stdout=out, stderr=out)
    except SystemExit as stop:
        return int(str(stop.code)), out.getvalue()
    return 0, out.getvalue()


def test_the_command_says_it_in_words_in_json_and_by_its_exit_code(sealed: Log, tmp_path: Path, ada: User) -> None:
    pem, line, copy = tmp_path / "key.pem", tmp_path / "key.txt", str(sealed.newest_copy())
    public = Ed25519PublicKey.from_public_bytes(bytes(AuditKey.objects.get().public_key))
    pem.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    listed = io.StringIO()
    call_command("audit_key", "list", stdout=listed)
    line.write_text(listed.getvalue())
    for key in (pem, line):
        code, said = command("--checkpoint", copy, "--key", str(key))
        assert code == 0, said
        assert "VERDICT     INTACT" in said
        assert f"begins with your checkpoint of {SIZE}" in said.replace(",", "")
    code, said = command("--json")
    assert (code, json.loads(said)["verdict"], json.loads(said)["events"]) == (0, "intact", SIZE)
    pem.write_bytes(b"-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n")
    assert command("--key", str(pem))[0] == 64
    assert command("--checkpoint", str(tmp_path / "none"))[0] == 64
    with pytest.raises(CommandError):
        command("--unknown")
    events_make(ada, 1)
    assert command()[0] == 2
    with as_owner():
        sql("UPDATE pld_app_auditevent SET action = 'x' WHERE id = (SELECT min(id) FROM pld_app_auditevent)")
        code, said = command()
        assert code == 1
        assert "VERDICT     ALTERED" in said
        assert f"Event {AuditEvent.objects.earliest('pk').pk} " in said
    assert Checkpoint.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_several_processes_find_the_same(tmp_path: Path, settings: Any) -> None:
    log, ada = Log(tmp_path, settings), make_user("ada", Role.ADMIN)
    events_make(ada, 150)
    log.seal()
    report = log_verify(outside=outside(log), processes=2, block=64)
    assert (report.verdict, report.sealed, report.checkpoints) == (Verdict.INTACT, 152, 1)
    victim = SealedLeaf.objects.get(index=100).event_id
    sql("ALTER TABLE pld_app_auditevent DISABLE TRIGGER pld_append_only")
    try:
        sql("UPDATE pld_app_auditevent SET action = 'x' WHERE id = %s", victim)
        report = log_verify(processes=2, block=64)
        assert (report.verdict, report.sealed) == (Verdict.ALTERED, 64)
        assert report.first_bad == f"Event {victim} says something else than its body."
    finally:
        sql("ALTER TABLE pld_app_auditevent ENABLE ALWAYS TRIGGER pld_append_only")
