"""The strict verifier of a bundle: refuses rather than repairs. Plain Python, no Django, no database.

Whatever is written in another way than `build` writes it is refused, so that not one byte can change unnoticed.
"""

import base64
import binascii
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from pydantic import ValidationError

from pld_app.assertions import EvidenceInvalid, assertion_verify
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.transparency.keyring import KeyRecord, KeyRefused, Keyring, Revocation
from pld_app.transparency.merkle import extends, includes
from pld_app.transparency.note import NoteError, ParsedCheckpoint, Verifier, checkpoint_parse
from pld_app.transparency.record import ORIGIN, leaf_hash
from rules.export_bundle.build import ATTESTATION, PAYLOAD_TYPE, fingerprint, pae, statement_of, zip_bytes
from rules.manifest import Manifest, manifest_read, prompt_compile

NAMES = frozenset(
    {
        ATTESTATION,
        "README.txt",
        "bodies.jsonl",
        "checkpoint.txt",
        "events.jsonl",
        "keys.json",
        "prompt.txt",
        "proofs.json",
        "ruleset.json",
        "signatures.json",
        "verify.py",
    }
)
_MAX_BYTES = 1 << 30


class Verdict(IntEnum):
    """The exit code of `manage.py verify_export`."""

    INTACT = 0
    ALTERED = 1
    INCOMPLETE = 2
    UNKNOWN_KEY = 3


class Fault(Exception):
    """Why the bundle does not hold."""

    def __init__(self, verdict: Verdict, words: str) -> None:
        super().__init__(words)
        self.verdict = verdict


@dataclass
class Report:
    """One line per claim that held, the first that did not, and the verdict."""

    lines: list[str] = field(default_factory=list)
    fault: str = ""
    verdict: Verdict = Verdict.INTACT


def bundle_verify(data: bytes, *, pinned: bytes, outside: ParsedCheckpoint | None = None) -> Report:
    """Verify the bytes of a bundle against the public key (32 bytes) and the checkpoint that the auditor kept."""
    try:
        files = zip_read(data)
    except Fault as fault:
        return Report(fault=str(fault), verdict=fault.verdict)
    return files_verify(files, pinned=pinned, outside=outside)


def files_verify(files: Mapping[str, bytes], *, pinned: bytes, outside: ParsedCheckpoint | None = None) -> Report:
    """As `bundle_verify`, for files already taken from their ZIP."""
    report = Report()
    try:
        _verify(files, pinned, outside, report.lines)
    except Fault as fault:
        report.fault, report.verdict = str(fault), fault.verdict
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        report.fault, report.verdict = f"a file is not of its form ({type(error).__name__})", Verdict.ALTERED
    return report


def zip_read(data: bytes) -> dict[str, bytes]:
    """The files of a ZIP that is byte for byte the one we would write. Raises Fault."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            stored = all(one.compress_type == zipfile.ZIP_STORED and one.file_size <= len(data) for one in entries)
            if not stored or len(data) > _MAX_BYTES or len({one.filename for one in entries}) != len(entries):
                raise Fault(Verdict.ALTERED, "the ZIP holds compressed, doubled or too large files")
            files = {one.filename: archive.read(one) for one in entries}
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise Fault(Verdict.ALTERED, f"this is no ZIP of ours ({type(error).__name__})") from error
    if zip_bytes(files) != data:
        raise Fault(Verdict.ALTERED, "the ZIP is not written the way a bundle is")
    return files


def _verify(files: Mapping[str, bytes], pinned: bytes, outside: ParsedCheckpoint | None, lines: list[str]) -> None:
    missing = NAMES - files.keys()
    _hold(not missing, f"missing: {', '.join(sorted(missing))}", Verdict.INCOMPLETE)
    _hold(files.keys() == NAMES, f"not of the bundle: {', '.join(sorted(files.keys() - NAMES))}")
    _files(files)
    checkpoint = _log_checkpoint(files)
    _signed(files, _keyring(files, pinned), checkpoint, lines)
    lines.append(f"files      {len(NAMES) - 1}/{len(NAMES) - 1} match the signed list, 0 extra")
    manifest = _ruleset(files, lines)
    leaves = _events(files, manifest, lines)
    _log(leaves, _json(files["proofs.json"]), checkpoint, outside, lines)
    _signatures(_json(files["signatures.json"]), manifest, sha256_hex(files["ruleset.json"]), lines)


def _files(files: Mapping[str, bytes]) -> None:
    envelope = _json(files[ATTESTATION])
    _hold(set(envelope) == {"payload", "payloadType", "signatures"}, "the envelope has other fields")
    _hold(envelope["payloadType"] == PAYLOAD_TYPE, "the attestation is of another type")
    attested = {name: data for name, data in files.items() if name != ATTESTATION}
    _hold(
        _decoded(envelope["payload"]) == canonical_json(statement_of(attested)),
        "the files are not those of the signed list",
    )


def _signed(files: Mapping[str, bytes], ring: Keyring, checkpoint: ParsedCheckpoint, lines: list[str]) -> None:
    envelope = _json(files[ATTESTATION])
    try:
        signer = ring.signer(checkpoint)
    except KeyRefused as refused:
        raise Fault(Verdict.UNKNOWN_KEY, str(refused)) from refused
    (given,) = envelope["signatures"]
    _hold(set(given) == {"keyid", "sig"}, "the signature has other fields")
    known = fingerprint(signer.public_key)
    _hold(given["keyid"] == known, "the attestation is not signed by the key of its checkpoint", Verdict.UNKNOWN_KEY)
    signed = pae(PAYLOAD_TYPE, _decoded(envelope["payload"]))
    _hold(signer.accepts(_decoded(given["sig"]), signed), "the signature does not verify")
    lines.append(f"key        ed25519 {known[:16]}, vouched for by the key you gave")


def _keyring(files: Mapping[str, bytes], pinned: bytes) -> Keyring:
    try:
        return Keyring([_record(one) for one in _json(files["keys.json"])], pinned=pinned)
    except KeyRefused as refused:
        raise Fault(Verdict.UNKNOWN_KEY, str(refused)) from refused


def _record(said: dict[str, Any]) -> KeyRecord:
    revocation = said["revocation"]
    return KeyRecord(
        verifier=Verifier.from_vkey(said["key"]),
        size=said["size"],
        statement=said["statement"].encode(),
        signature=bytes.fromhex(said["signature"]),
        signed_by=said["signed_by"],
        revocation=revocation
        and Revocation(
            size=revocation["size"],
            statement=revocation["statement"].encode(),
            signature=bytes.fromhex(revocation["signature"]),
            signed_by=revocation["signed_by"],
        ),
    )


def _log_checkpoint(files: Mapping[str, bytes]) -> ParsedCheckpoint:
    try:
        return checkpoint_parse(files["checkpoint.txt"].decode())
    except NoteError as error:
        raise Fault(Verdict.ALTERED, f"checkpoint.txt: {error}") from error


def _ruleset(files: Mapping[str, bytes], lines: list[str]) -> Manifest:
    _json(files["ruleset.json"])
    try:
        manifest = manifest_read(files["ruleset.json"])
    except ValidationError as error:
        raise Fault(Verdict.ALTERED, "ruleset.json is no manifest") from error
    texts = [one.text for one in manifest.instructions]
    prompt = prompt_compile(manifest.preamble, manifest.labels, texts, manifest.output_contract).encode()
    rebuilt = files["prompt.txt"] == prompt and sha256_hex(prompt) == manifest.prompt_sha256
    _hold(rebuilt, "prompt.txt is not what ruleset.json compiles to")
    words = f"{manifest.task} {manifest.ruleset}, {len(texts)} rules, sha256 {sha256_hex(files['ruleset.json'])[:16]}"
    lines.append(f"ruleset    {words}; prompt.txt rebuilt from ruleset.json: identical")
    return manifest


def _events(files: Mapping[str, bytes], manifest: Manifest, lines: list[str]) -> list[bytes]:
    leaves, bodies = _rows(files["events.jsonl"]), _rows(files["bodies.jsonl"])
    _hold(0 < len(leaves) == len(bodies), "events and bodies differ in number", Verdict.INCOMPLETE)
    before, chain = ORIGIN, _json(leaves[0])["chain"]
    for number, (leaf, body) in enumerate(zip(leaves, bodies, strict=True), start=1):
        said, act = _json(leaf), _json(body)
        follows = (said["chain"], said["seq"], said["prev"]) == (chain, number, before.hex())
        _hold(follows, f"event {number} does not follow the one before")
        _hold(said["body_sha256"] == sha256_hex(body), f"the body of event {number} is another")
        _hold(act["task"] == manifest.task, f"event {number} is of another task")
        before = leaf_hash(leaf)
    _hold(chain.startswith("ruleset:"), "the events are not those of a ruleset")
    lines.append(f"events     {len(leaves)}, sequence 1..{len(leaves)} without gaps, chain head {before.hex()[:16]}")
    return leaves


def _log(
    leaves: Sequence[bytes],
    proofs: Mapping[str, Any],
    checkpoint: ParsedCheckpoint,
    outside: ParsedCheckpoint | None,
    lines: list[str],
) -> None:
    inclusion, size = proofs["inclusion"], checkpoint.size
    _hold(len(inclusion) == len(leaves), "there is not one proof for each event", Verdict.INCOMPLETE)
    for number, (leaf, proof) in enumerate(zip(leaves, inclusion, strict=True), start=1):
        path = [bytes.fromhex(one) for one in proof["path"]]
        held = includes(leaf_hash(leaf), proof["index"], size, path, checkpoint.root)
        _hold(held, f"event {number} is not proved to be in the log")
    words = f"{len(leaves)}/{len(leaves)} included in tree of {size}"
    if outside is not None:
        _consistent(outside, proofs["consistency"], checkpoint)
        words += f", consistent with your checkpoint of {outside.size}"
    lines.append(f"log        {words}")


def _consistent(outside: ParsedCheckpoint, given: Mapping[str, Any] | None, checkpoint: ParsedCheckpoint) -> None:
    _hold(outside.origin == checkpoint.origin, "your checkpoint is of another log")
    if outside.size == checkpoint.size:
        _hold(outside.root == checkpoint.root, "the log is not the one of your checkpoint")
        return
    if given is None or given["size"] != outside.size:
        words = f"the bundle has no proof from your checkpoint of {outside.size}: ask for an export made with it"
        raise Fault(Verdict.INCOMPLETE, words)
    path = [bytes.fromhex(one) for one in given["path"]]
    held = extends(outside.size, outside.root, checkpoint.size, checkpoint.root, path)
    _hold(held, "the log does not begin with the one of your checkpoint")


def _signatures(given: Sequence[dict[str, Any]], manifest: Manifest, sha256: str, lines: list[str]) -> None:
    signers = [one["username"] for one in given]
    counted = [one for one in given if one["meaning"] in {"reviewed", "approved", "approved_with_conditions"}]
    _hold(len(counted) >= max(2, manifest.policy.signers_required), "signatures are missing", Verdict.INCOMPLETE)
    _hold(any(one["meaning"].startswith("approved") for one in counted), "nobody approved it", Verdict.INCOMPLETE)
    _hold(not any(one["meaning"] == "rejected" for one in given), "somebody rejected it")
    _hold(len(set(signers)) == len(signers), "somebody signed twice")
    authors = {one.author for one in manifest.instructions if one.author}
    _hold(not authors & {one["username"] for one in counted}, "an author of a text signed")
    for one in given:
        _hold(one["manifest_sha256"] == sha256, f"{one['username']} signed another manifest")
        if one["evidence"] is not None:
            try:
                said = assertion_verify(one["evidence"])
            except EvidenceInvalid as error:
                raise Fault(Verdict.ALTERED, f"the passkey's proof of {one['username']} does not verify") from error
            confirmed = (said.get("purpose"), said.get("content_sha256"), said.get("meaning"))
            _hold(confirmed == ("sign", sha256, one["meaning"]), "a passkey confirmed something else")
    said_by = "; ".join(f"{one['meaning']} by {one['name']} {one['signed_at']}" for one in given)
    lines.append(f"signatures {said_by}; distinct, none is an author")


def _rows(data: bytes) -> list[bytes]:
    _hold(data.endswith(b"\n"), "a list of events is cut off", Verdict.INCOMPLETE)
    return data[:-1].split(b"\n")


def _json(data: bytes) -> Any:  # JSON values
    """The value of canonical JSON; anything written in another way (doubled keys too) is refused."""
    value = json.loads(data)
    _hold(canonical_json(value) == data, "a file is not canonical JSON")
    return value


def _decoded(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Fault(Verdict.ALTERED, "this is no base64") from error
    _hold(base64.b64encode(raw).decode() == text, "this base64 is not written in its one way")
    return raw


def _hold(right: bool, words: str, verdict: Verdict = Verdict.ALTERED) -> None:
    if not right:
        raise Fault(verdict, words)
