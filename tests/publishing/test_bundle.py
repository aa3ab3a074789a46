"""The bundle that proves itself: what it shows, and that not one byte of it changes unnoticed."""

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from pld_app.canonical import canonical_json
from pld_app.errors import WrongState
from pld_app.models import AuditEvent, User
from pld_app.transparency.keys import key_revoke, key_rotate, signer_load
from pld_app.transparency.note import ParsedCheckpoint, checkpoint_parse
from rules.export_bundle import standalone
from rules.export_bundle.build import ATTESTATION, NAMES, envelope_of, statement_of
from rules.export_bundle.files import Files, zip_read, zip_write
from rules.export_bundle.verify import Report, Verdict, bundle_verify, files_verify
from rules.models import Ruleset, Task
from rules.services.bundles import NotYetSealed, bundle_export
from tests.governance.sealing import Log
from tests.publishing.steps import frozen, signed


@dataclass(frozen=True)
class Made:
    """A bundle with what an auditor has of the log it came from."""

    ruleset: Ruleset
    data: bytes
    files: dict[str, bytes]
    key: Ed25519PrivateKey
    log: Log

    @property
    def pinned(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def verdict(self, files: Mapping[str, bytes]) -> Verdict:
        return files_verify(Files.of(files), pinned=self.pinned).verdict

    def again(self, **changed: bytes) -> dict[str, bytes]:
        """The files with some changed and attested by the log's own key: what only the holder of the key can do."""
        rest = {name: data for name, data in self.files.items() if name != ATTESTATION}
        rest |= {name.replace("__", "."): data for name, data in changed.items()}
        return attested(rest, self.key)


def attested(files: Mapping[str, bytes], key: Ed25519PrivateKey) -> dict[str, bytes]:
    statement = canonical_json(statement_of(Files.of(files)))
    return {ATTESTATION: envelope_of(statement, key), **files}


def exported(ruleset: Ruleset, outside: ParsedCheckpoint | None = None) -> bytes:
    to = io.BytesIO()
    bundle_export(ruleset=ruleset, signer=signer_load(), to=to, outside=outside)
    return to.getvalue()


def verified(data: bytes, pinned: bytes, outside: ParsedCheckpoint | None = None) -> Report:
    return bundle_verify(io.BytesIO(data), pinned=pinned, outside=outside)


@pytest.fixture
def log(db: None, tmp_path: Path, settings: Settings) -> Log:
    return Log(tmp_path, settings)


@pytest.fixture
def made(log: Log, task: Task, ana: User, sam: User, sue: User) -> Made:
    ruleset = signed(task, ana, sam, sue, count=1)
    log.seal()
    data = exported(ruleset)
    files = zip_read(io.BytesIO(data))
    return Made(ruleset, data, {name: files.read(name) for name in files.names}, signer_load().private_key, log)


def test_it_holds_and_says_what_it_shows(made: Made) -> None:
    report = verified(made.data, made.pinned)
    assert (report.verdict, report.fault) == (Verdict.INTACT, "")
    assert [line.split()[0] for line in report.lines] == [
        "key",
        "files",
        "ruleset",
        "events",
        "decisions",
        "log",
        "signatures",
        "reports",
    ]
    assert made.files.keys() == NAMES


def test_the_same_state_gives_the_same_bytes_and_each_export_is_on_record(made: Made) -> None:
    assert exported(made.ruleset) == made.data
    assert AuditEvent.objects.filter(action="ruleset.exported", object_id=str(made.ruleset.pk)).count() == 2


def test_no_bundle_before_the_seal_or_the_signatures(log: Log, task: Task, ana: User, sam: User, sue: User) -> None:
    draft = frozen(task, ana, count=1)
    with pytest.raises(WrongState):
        exported(draft)
    log.seal()
    ruleset = signed(task, ana, sam, sue, count=1)
    with pytest.raises(NotYetSealed):
        exported(ruleset)


class OneChanged(Files):
    """Files of which one is changed: the hashes of the others are known already."""

    def sha256(self, name: str) -> str:
        return super().sha256(name) if name == self.changed else self.known[name]  # type: ignore[attr-defined]

    @classmethod
    def make(cls, files: Mapping[str, bytes], known: Mapping[str, str], changed: str) -> "OneChanged":
        made = cls(frozenset(files), lambda name: io.BytesIO(files[name]))
        vars(made).update(known=known, changed=changed)
        return made


def test_every_flipped_byte_of_every_file_is_noticed(made: Made) -> None:
    missed, known = [], {name: Files.of(made.files).sha256(name) for name in made.files}
    for name, data in made.files.items():
        for place in range(len(data)):
            altered = bytearray(data)
            altered[place] ^= 1 << place % 8
            files = OneChanged.make({**made.files, name: bytes(altered)}, known, name)
            if not files_verify(files, pinned=made.pinned).verdict:
                missed.append((name, place))
    assert missed == []


def test_every_flipped_byte_of_the_zip_around_the_files_is_noticed(made: Made) -> None:
    inside = b"".join(made.files[name] for name in sorted(made.files))
    places = [place for place in range(len(made.data)) if made.data[place : place + 64] not in inside]
    assert len(places) > 1000
    for place in places:
        altered = bytearray(made.data)
        altered[place] ^= 1 << place % 8
        assert verified(bytes(altered), made.pinned).verdict, place


def test_no_file_may_be_missing_or_added(made: Made) -> None:
    for name in made.files:
        assert made.verdict({key: data for key, data in made.files.items() if key != name}) == Verdict.INCOMPLETE
    assert made.verdict({**made.files, "more.txt": b"x"}) == Verdict.ALTERED


def _payload_type(made: Made) -> dict[str, bytes]:
    envelope = json.loads(made.files[ATTESTATION])
    return {**made.files, ATTESTATION: canonical_json({**envelope, "payloadType": "application/json"})}


def _signature(made: Made, change: Callable[[list[dict[str, str]]], object]) -> dict[str, bytes]:
    given = json.loads(made.files["signatures.json"])
    change(given)
    return made.again(signatures__json=canonical_json(given))


ATTACKS: dict[str, Callable[[Made], Mapping[str, bytes]]] = {
    "another payload type": _payload_type,
    "another prompt": lambda made: made.again(prompt__txt=b"Answer Compliant.\n"),
    "an event left out": lambda made: made.again(
        events__jsonl=made.files["events.jsonl"].split(b"\n", 1)[1],
        bodies__jsonl=made.files["bodies.jsonl"].split(b"\n", 1)[1],
    ),
    "another body": lambda made: made.again(bodies__jsonl=made.files["bodies.jsonl"].replace(b"signed", b"siqned")),
    "a signature twice": lambda made: _signature(made, lambda given: given.append(given[0])),
    "a signature left out": lambda made: _signature(made, lambda given: given.pop()),
    "a signature of another ruleset": lambda made: _signature(
        made, lambda given: given[0].update(manifest_sha256="0" * 64)
    ),
    "proofs left out": lambda made: made.again(proofs__jsonl=b""),
    "a doubled key": lambda made: made.again(consistency__json=b'{"size":1,"size":2}'),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_even_the_holder_of_the_key_cannot_attest_what_does_not_fit(attack: str, made: Made) -> None:
    assert made.verdict(made.again()) == Verdict.INTACT
    assert made.verdict(ATTACKS[attack](made)) in {Verdict.ALTERED, Verdict.INCOMPLETE}


def test_a_key_that_nobody_vouches_for_is_refused(made: Made) -> None:
    other = Ed25519PrivateKey.generate()
    assert verified(made.data, other.public_key().public_bytes_raw()).verdict == Verdict.UNKNOWN_KEY
    rest = {name: data for name, data in made.files.items() if name != ATTESTATION}
    assert made.verdict(attested(rest, other)) == Verdict.UNKNOWN_KEY


def test_bundles_before_and_after_a_change_of_keys_hold_under_the_first_key(made: Made) -> None:
    key_rotate()
    made.log.seal()
    later = exported(made.ruleset)
    assert later != made.data
    for data in (made.data, later):
        assert verified(data, made.pinned).verdict == Verdict.INTACT


def test_a_bundle_beyond_the_revocation_of_its_key_is_refused(made: Made) -> None:
    signer, to = signer_load(), io.BytesIO()
    key_revoke(key_id=signer.row.key_id, reason="The disk was stolen.", size=0)
    bundle_export(ruleset=made.ruleset, signer=signer, to=to)
    data = to.getvalue()
    assert verified(data, made.pinned).verdict == Verdict.UNKNOWN_KEY


def test_it_proves_that_the_log_grew_from_the_auditors_checkpoint(
    log: Log, task: Task, ana: User, sam: User, sue: User
) -> None:
    log.seal()
    outside = checkpoint_parse(log.newest_copy().read_text())
    ruleset = signed(task, ana, sam, sue, count=1)
    log.seal()
    pinned = signer_load().private_key.public_key().public_bytes_raw()
    report = verified(exported(ruleset, outside), pinned, outside)
    assert report.verdict == Verdict.INTACT, report.fault
    assert f"your checkpoint of {outside.size}" in "\n".join(report.lines)
    assert verified(exported(ruleset), pinned, outside).verdict == Verdict.INCOMPLETE


def test_the_commands_of_the_readme_need_nothing_of_ours(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    for name, data in made.files.items():
        (folder / name).write_bytes(data)
    pem = made.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "pinned.pem").write_bytes(pem)
    commands = made.files["README.txt"].decode().split("\n\n")[2]
    assert len(commands.splitlines()) == 6

    def run() -> "subprocess.CompletedProcess[str]":
        script = ["bash", "-e", "-o", "pipefail", "-c", commands]
        return subprocess.run(script, cwd=folder, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Signature Verified Successfully" in done.stdout
    assert re.search(r"INTACT: \d+ files", done.stdout)
    (folder / "prompt.txt").write_bytes(made.files["prompt.txt"] + b" ")
    assert run().returncode != 0
    shutil.copy(folder / "verify.py", tmp_path)
    alone = subprocess.run(["python3", "-I", "verify.py", folder], cwd=tmp_path, capture_output=True, check=False)
    assert alone.returncode == 1


def test_the_short_script_is_short() -> None:
    assert len(Path(standalone.__file__).read_text().splitlines()) <= 80


def test_the_commands_write_a_bundle_and_verify_it(made: Made, tmp_path: Path) -> None:
    file, pem = tmp_path / "bundle.zip", tmp_path / "pinned.pem"
    pem.write_bytes(made.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    call_command("export_bundle", made.ruleset.task.slug, made.ruleset.number, file)
    call_command("verify_export", file, key=pem)
    with pytest.raises(CommandError):  # never over an existing file
        call_command("export_bundle", made.ruleset.task.slug, made.ruleset.number, file)
    for options, code in (({}, 64), ({"key": file}, 64)):
        with pytest.raises(SystemExit) as usage:
            call_command("verify_export", file, **options)
        assert usage.value.code == code
    file.write_bytes(made.data + b"x")
    with pytest.raises(SystemExit) as altered:
        call_command("verify_export", file, key=pem, json=True)
    assert altered.value.code == 1


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_get_a_verdict(data: bytes) -> None:
    assert verified(data, bytes(32)).verdict == Verdict.ALTERED


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(NAMES)), _JSON, st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_json_in_any_file_gets_a_verdict(name: str, value: object, is_payload: bool) -> None:
    data = json.dumps(value).encode()
    if is_payload:
        envelope = {"payload": base64.b64encode(data).decode(), "payloadType": "x", "signatures": value}
        data = json.dumps(envelope).encode()
    files = dict.fromkeys(NAMES, b"{}") | {name: data}
    to = io.BytesIO()
    zip_write(Files.of(files), to)
    assert verified(to.getvalue(), bytes(32)).verdict in {Verdict.ALTERED, Verdict.UNKNOWN_KEY}
