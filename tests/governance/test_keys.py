"""Test 42 and item 7: keys are made, replaced and revoked by command, and only the sealer's process has them."""

import io
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import CommandError, call_command
from django.db import connection

from pld_app.devstack.paths import ROOT
from pld_app.models import AuditEvent, AuditKey, Checkpoint, User
from pld_app.transparency.key_file import KeyFault, key_read, key_write
from pld_app.transparency.keyring import KeyRefused
from pld_app.transparency.keys import key_create, key_revoke, key_rotate, keyring
from pld_app.transparency.note import NoteError, checkpoint_parse, checkpoint_text, note_sign
from pld_app.transparency.verify import log_verify
from pld_app.transparency.verify_block import Verdict
from tests.governance.sealing import ORIGIN, Log, events_make
from tests.workers import process_environment


def test_the_key_is_in_a_file_of_its_own_and_nowhere_else(log: Log) -> None:
    assert stat.S_IMODE(log.key_file.stat().st_mode) == 0o600
    row = AuditKey.objects.get()
    pem = log.key_file.read_text()
    assert pem.startswith("-----BEGIN PRIVATE KEY-----")
    assert len(bytes(row.public_key)) == 32
    assert AuditEvent.objects.get().action == "audit_key.created"
    stored = " ".join(str(value) for value in AuditKey.objects.values_list()[0])
    assert pem.splitlines()[1] not in stored
    assert "PRIVATE" not in repr(log)


def test_after_a_rotation_old_and_new_checkpoints_verify_and_the_old_key_is_gone(log: Log, ada: User) -> None:
    events_make(ada, 5)
    log.seal()
    before, old_pem = checkpoint_parse(log.newest_copy().read_text()), log.key_file.read_bytes()
    pinned = bytes(AuditKey.objects.get().public_key)
    key_rotate()
    events_make(ada, 5)
    log.seal()
    after = checkpoint_parse(log.newest_copy().read_text())
    assert log.key_file.read_bytes() != old_pem
    assert {one.key_id for one in before.signatures}.isdisjoint({one.key_id for one in after.signatures})
    for outside in (before, after):
        assert log_verify(outside=outside, pinned=pinned).verdict == Verdict.INTACT
        assert log_verify(outside=outside, pinned=bytes(AuditKey.objects.latest("pk").public_key)).verdict == 0
    log.key_file.write_bytes(old_pem)
    with pytest.raises(KeyFault, match="was replaced"):
        log.seal()


def test_the_present_tree_is_signed_by_the_new_key_at_once(log: Log, ada: User) -> None:
    log.seal()
    key_rotate()
    log.seal()
    log.seal()
    assert Checkpoint.objects.filter(key=AuditKey.objects.latest("pk")).count() == 1
    assert len(list(log.copies.glob("checkpoint-*.txt"))) == 2


def test_a_revoked_key_does_not_count_beyond_its_size(log: Log, ada: User) -> None:
    events_make(ada, 3)
    log.seal()
    old = AuditKey.objects.get()
    before = checkpoint_parse(Checkpoint.objects.latest("pk").note)
    key_rotate()
    events_make(ada, 3)
    log.seal()
    key_revoke(key_id=old.key_id, reason="a stolen laptop", size=3)
    assert keyring().verifiers[0].key_id == old.key_id
    with pytest.raises(KeyRefused, match="revoked at size 3"):
        keyring().signer(before)
    assert log_verify(outside=before).verdict == Verdict.KEY_REFUSED
    key_revoke(key_id=AuditKey.objects.latest("pk").key_id, reason="another laptop")
    with pytest.raises(KeyFault, match="was revoked"):
        log.seal()
    with pytest.raises(KeyFault, match="move it away"):
        key_create(origin=ORIGIN)
    log.key_file.rename(log.key_file.with_name("old.pem"))
    key_create(origin=ORIGIN)
    assert log.seal().sealed.added > 0, "a new beginning, to be pinned anew"


def test_a_retired_key_does_not_sign_what_came_later(log: Log, ada: User) -> None:
    """Somebody kept the old private key and signs the log as it is now."""
    old = log.key_file.read_bytes()
    log.seal()
    key_rotate()
    events_make(ada, 4)
    log.seal()
    newest = Checkpoint.objects.latest("pk")
    log.key_file.write_bytes(old)
    forged = note_sign(checkpoint_text(ORIGIN, newest.size, bytes(newest.root)), ORIGIN, key_read(log.key_file))
    with pytest.raises(KeyRefused, match="was not the log's key at size"):
        keyring().signer(checkpoint_parse(forged))


@pytest.mark.parametrize("column", ["statement", "signature", "public_key", "size"])
def test_a_forged_introduction_is_refused(column: str, log: Log) -> None:
    key_rotate()
    row = AuditKey.objects.latest("pk")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE pld_app_auditkey DISABLE TRIGGER pld_append_only")
        value = "size + 1" if column == "size" else f"set_byte({column}, 5, (get_byte({column}, 5) + 1) %% 256)"
        cursor.execute(f"UPDATE pld_app_auditkey SET {column} = {value} WHERE id = %s", [row.pk])
    assert log_verify().verdict == Verdict.KEY_REFUSED


def test_a_rotation_killed_in_the_middle_loses_no_key(log: Log, settings: Any) -> None:
    next_file = log.key_file.with_name(log.key_file.name + ".next")
    key_write(next_file, Ed25519PrivateKey.generate())  # killed before the database knew
    assert log.seal().sealed.size == 1
    old = log.key_file.read_bytes()
    key_rotate()
    new = log.key_file.read_bytes()
    log.key_file.write_bytes(old)  # killed after the commit, before the new file was in place
    next_file.write_bytes(new)
    next_file.chmod(0o600)
    assert log.seal().sealed.size == 2
    assert log.key_file.read_bytes() == new


def test_what_is_wrong_with_a_key_is_said(log: Log, tmp_path: Path, settings: Any) -> None:
    with pytest.raises(KeyFault, match="has a key"):
        key_create(origin=ORIGIN)
    with pytest.raises(NoteError):
        key_create(origin="with space")
    with pytest.raises(KeyFault, match="Say why"):
        key_revoke(key_id="x", reason=" ")
    with pytest.raises(KeyFault, match="no key"):
        key_revoke(key_id="00000000", reason="lost")
    log.key_file.chmod(0o644)
    with pytest.raises(KeyFault, match="chmod 600"):
        log.seal()
    log.key_file.write_bytes(b"nonsense")
    log.key_file.chmod(0o600)
    with pytest.raises(KeyFault, match="no readable key"):
        log.seal()
    settings.AUDIT_KEY_FILE = str(tmp_path / "none")
    with pytest.raises(KeyFault, match="There is no key"):
        log.seal()
    settings.AUDIT_KEY_FILE = ""
    with pytest.raises(KeyFault, match="PLD_AUDIT_KEY_FILE"):
        log.seal()


def test_the_commands(log: Log) -> None:
    def run(*arguments: str) -> str:
        out = io.StringIO()
        call_command("audit_key", *arguments, stdout=out)
        return out.getvalue()

    first = AuditKey.objects.get()
    assert run("list").startswith(f"{ORIGIN}+{first.key_id}+")
    assert len(run("rotate").splitlines()) == 2
    assert "revoked at size 0" in run("revoke", first.key_id, "--reason", "lost")
    with pytest.raises(CommandError, match="has a key"):
        run("create", "--origin", ORIGIN)
    actions = AuditEvent.objects.order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["audit_key.created", "audit_key.rotated", "audit_key.revoked"]


@pytest.mark.parametrize("program", ["import pld_app.wsgi", "from pld_app.celery import _no_private_key as f; f()"])
def test_a_web_server_or_worker_that_can_read_the_key_does_not_start(program: str, tmp_path: Path, db: None) -> None:
    key_file = tmp_path / "key.pem"
    key_write(key_file, Ed25519PrivateKey.generate())
    environment = process_environment() | {"PLD_AUDIT_KEY_FILE": str(key_file)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "can read PLD_AUDIT_KEY_FILE" in done.stderr
    environment["PLD_AUDIT_KEY_FILE"] = str(tmp_path / "not-ours.pem")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as another account")
def test_another_account_cannot_read_the_file(tmp_path: Path) -> None:
    key_file = tmp_path / "key.pem"
    key_write(key_file, Ed25519PrivateKey.generate())
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(0o755)
    done = subprocess.run(["/bin/cat", str(key_file)], user=65534, group=65534, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"PRIVATE" not in done.stdout
