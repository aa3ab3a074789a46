"""The strict verifier of a bundle: refuses rather than repairs. Plain Python, no Django, no database.

Whatever is written in another way than `build` writes it is refused, so that not one byte can change unnoticed. Events
are read one at a time: memory does not grow with the log.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import IO, Any

from pydantic import ValidationError

from pld_app.assertions import EvidenceInvalid, assertion_verify
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.transparency.keyring import KeyRecord, KeyRefused, Keyring, Revocation
from pld_app.transparency.merkle import extends, includes
from pld_app.transparency.note import NoteError, ParsedCheckpoint, Verifier, checkpoint_parse
from pld_app.transparency.record import ORIGIN, leaf_hash
from rules.export_bundle.build import ATTESTATION, NAMES, PAYLOAD_TYPE, fingerprint, pae, statement_of
from rules.export_bundle.decisions import APPROVED, act_of, acts_of, decisions_content
from rules.export_bundle.files import Files, ZipRefused, zip_read
from rules.export_bundle.report import REPORTS
from rules.manifest import Manifest, manifest_read, prompt_compile


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


def bundle_verify(source: IO[bytes], *, pinned: bytes, outside: ParsedCheckpoint | None = None) -> Report:
    """Verify a bundle's ZIP against the public key (32 bytes) and the checkpoint that the auditor kept."""
    try:
        files = zip_read(source)
    except ZipRefused as refused:
        return Report(fault=str(refused), verdict=Verdict.ALTERED)
    return files_verify(files, pinned=pinned, outside=outside)


def files_verify(files: Files, *, pinned: bytes, outside: ParsedCheckpoint | None = None) -> Report:
    """As `bundle_verify`, for files already taken from their ZIP."""
    return _reported(_verify(files, pinned, outside))


def claims_verify(files: Files, *, public_key: bytes) -> Report:
    """What a signer checks before it attests: all claims of the files but the attestation, which is not made yet."""
    return _reported(_claims(files, public_key, None))


def _reported(claims: Iterator[str]) -> Report:
    report = Report()
    try:
        report.lines.extend(claims)
    except Fault as fault:
        report.fault, report.verdict = str(fault), fault.verdict
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        report.fault, report.verdict = f"a file is not of its form ({type(error).__name__})", Verdict.ALTERED
    return report


def _verify(files: Files, pinned: bytes, outside: ParsedCheckpoint | None) -> Iterator[str]:
    """One line for each claim that holds; raises Fault at the first that does not."""
    missing = NAMES - files.names
    _hold(not missing, f"missing: {', '.join(sorted(missing))}", Verdict.INCOMPLETE)
    _hold(files.names == NAMES, f"not of the bundle: {', '.join(sorted(files.names - NAMES))}")
    _files(files)
    yield _signed(files, _keyring(files, pinned), _log_checkpoint(files))
    yield f"files      {len(NAMES) - 1}/{len(NAMES) - 1} match the signed list, 0 extra"
    yield from _claims(files, pinned, outside)


def _claims(files: Files, pinned: bytes, outside: ParsedCheckpoint | None) -> Iterator[str]:
    checkpoint = _log_checkpoint(files)
    _signer(_keyring(files, pinned), checkpoint)
    manifest, words = _ruleset(files)
    yield words
    events = _Events(manifest, checkpoint)
    for rows in _event_rows(files):
        events.add(*rows)
    events.finish()
    yield f"events     {events.number}, sequence 1..{events.number} without gaps, chain head {events.before.hex()[:16]}"
    yield f"decisions  {_decisions(_json(files.read('decisions.json')), manifest, events)}"
    yield f"log        {_log(files, events, checkpoint, outside)}"
    signatures = _json(files.read("signatures.json"))
    yield _signatures(signatures, manifest, sha256_hex(files.read("ruleset.json")), events)
    yield f"reports    {', '.join(REPORTS)} are attested; they repeat the JSON files, which are what counts"


def _files(files: Files) -> None:
    envelope = _json(files.read(ATTESTATION))
    _hold(set(envelope) == {"payload", "payloadType", "signatures"}, "the envelope has other fields")
    _hold(envelope["payloadType"] == PAYLOAD_TYPE, "the attestation is of another type")
    stated = canonical_json(statement_of(files))
    _hold(_decoded(envelope["payload"]) == stated, "the files are not those of the signed list")


def _signed(files: Files, ring: Keyring, checkpoint: ParsedCheckpoint) -> str:
    envelope = _json(files.read(ATTESTATION))
    signer = _signer(ring, checkpoint)
    (given,) = envelope["signatures"]
    _hold(set(given) == {"keyid", "sig"}, "the signature has other fields")
    known = fingerprint(signer.public_key)
    _hold(given["keyid"] == known, "the attestation is not signed by the key of its checkpoint", Verdict.UNKNOWN_KEY)
    signed = pae(PAYLOAD_TYPE, _decoded(envelope["payload"]))
    _hold(signer.accepts(_decoded(given["sig"]), signed), "the signature does not verify")
    return f"key        ed25519 {known[:16]}, vouched for by the key you gave"


def _signer(ring: Keyring, checkpoint: ParsedCheckpoint) -> Verifier:
    try:
        return ring.signer(checkpoint)
    except KeyRefused as refused:
        raise Fault(Verdict.UNKNOWN_KEY, str(refused)) from refused


def _keyring(files: Files, pinned: bytes) -> Keyring:
    try:
        return Keyring([_record(one) for one in _json(files.read("keys.json"))], pinned=pinned)
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


def _log_checkpoint(files: Files) -> ParsedCheckpoint:
    try:
        return checkpoint_parse(files.read("checkpoint.txt").decode())
    except NoteError as error:
        raise Fault(Verdict.ALTERED, f"checkpoint.txt: {error}") from error


def _ruleset(files: Files) -> tuple[Manifest, str]:
    data = files.read("ruleset.json")
    _json(data)
    try:
        manifest = manifest_read(data)
    except ValidationError as error:
        raise Fault(Verdict.ALTERED, "ruleset.json is no manifest") from error
    texts = [one.text for one in manifest.instructions]
    prompt = prompt_compile(manifest.preamble, manifest.labels, texts, manifest.output_contract).encode()
    rebuilt = files.read("prompt.txt") == prompt and sha256_hex(prompt) == manifest.prompt_sha256
    _hold(rebuilt, "prompt.txt is not what ruleset.json compiles to")
    words = f"{manifest.task} {manifest.ruleset}, {len(texts)} rules, sha256 {sha256_hex(data)[:16]}"
    return manifest, f"ruleset    {words}; prompt.txt rebuilt from ruleset.json: identical"


def _event_rows(files: Files) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Leaf, body and proof of each event, the ruleset's chain first."""
    names = ("events.jsonl", "bodies.jsonl", "proofs.jsonl")
    try:
        yield from zip(*map(files.lines, names), strict=True)
    except ValueError as error:
        raise Fault(Verdict.INCOMPLETE, f"events, bodies and proofs differ in number ({error})") from error


class _Events:
    """The events as they are read: all of the ruleset's chain, then some of the task's, each proved to be logged."""

    def __init__(self, manifest: Manifest, checkpoint: ParsedCheckpoint) -> None:
        self._task, self._checkpoint = manifest.task, checkpoint
        self.chain, self.number, self.before = "", 0, ORIGIN
        # Of the task's chain: (leaf, body) in their order; what the ruleset's says of signing: (name, role).
        self.basis: list[tuple[bytes, bytes]] = []
        self.signed: list[tuple[str, str]] = []
        self._task_seq = 0

    @property
    def count(self) -> int:
        return self.number + len(self.basis)

    def add(self, leaf: bytes, body: bytes, proof: bytes) -> None:
        said, act, place = _json(leaf), _json(body), _json(proof)
        name = f"event {said['seq']} of {said['chain']}"
        self.chain = self.chain or said["chain"]
        _hold(said["body_sha256"] == sha256_hex(body), f"the body of {name} is another")
        _hold(act["task"] == self._task, f"{name} is of another task")
        path = [bytes.fromhex(one) for one in place["path"]]
        held = includes(leaf_hash(leaf), place["index"], self._checkpoint.size, path, self._checkpoint.root)
        _hold(held, f"{name} is not proved to be in the log")
        if said["chain"] == self.chain:
            follows = (said["seq"], said["prev"]) == (self.number + 1, self.before.hex())
            _hold(follows and not self.basis, f"{name} does not follow the one before")
            self.number, self.before = self.number + 1, leaf_hash(leaf)
            if act["action"] == "ruleset.signed":
                self.signed.append((act["actor"]["name"], act["actor"]["role"]))
        else:
            follows = said["chain"] == f"task:{self._task}" and said["seq"] > self._task_seq
            _hold(follows, f"{name} is out of place")
            self._task_seq = said["seq"]
            self.basis.append((leaf, body))

    def finish(self) -> None:
        _hold(self.number > 0, "the events are missing", Verdict.INCOMPLETE)
        _hold(self.chain.startswith("ruleset:"), "the events are not those of a ruleset")


def _decisions(said: Mapping[str, Any], manifest: Manifest, events: _Events) -> str:
    acts = acts_of(said)
    _hold(len(acts) == len(events.basis), "decisions.json and the events of the task differ", Verdict.INCOMPLETE)
    for act, (leaf, body) in zip(acts, events.basis, strict=True):
        same = act == act_of(leaf, body, act["data"])
        named = json.loads(body)["data_sha256"]
        _hold(same, f"decisions.json says something else than event {act['seq']}")
        _hold(sha256_hex(canonical_json(act["data"])) == named, f"the data of event {act['seq']} is another")
    _hold(said == decisions_content(manifest, acts), "decisions.json is not in the order of the ruleset")
    for rule in said["rules"]:
        texts = {act["data"].get("text_sha256") for act in rule["acts"] if act["action"] == APPROVED}
        _hold(rule["text_sha256"] in texts, f"no decision approved the text of #{rule['number']}", Verdict.INCOMPLETE)
    return f"{len(acts)} as the task's events say them; the text of each rule was approved"


def _log(files: Files, events: _Events, checkpoint: ParsedCheckpoint, outside: ParsedCheckpoint | None) -> str:
    given = _json(files.read("consistency.json"))
    words = f"{events.count}/{events.count} included in tree of {checkpoint.size}"
    if outside is None:
        return words
    _consistent(outside, given, checkpoint)
    return f"{words}, consistent with your checkpoint of {outside.size}"


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


def _signatures(given: Sequence[dict[str, Any]], manifest: Manifest, sha256: str, events: _Events) -> str:
    signers = [one["username"] for one in given]
    counted = [one for one in given if one["meaning"] in {"reviewed", "approved", "approved_with_conditions"}]
    _hold(len(counted) >= max(2, manifest.policy.signers_required), "signatures are missing", Verdict.INCOMPLETE)
    _hold(any(one["meaning"].startswith("approved") for one in counted), "nobody approved it", Verdict.INCOMPLETE)
    _hold(not any(one["meaning"] == "rejected" for one in given), "somebody rejected it")
    _hold(len(set(signers)) == len(signers), "somebody signed twice")
    authors = {one.author for one in manifest.instructions if one.author}
    _hold(not authors & {one["username"] for one in counted}, "an author of a text signed")
    recorded = sorted(events.signed) == sorted((one["name"], one["role"]) for one in given)
    _hold(recorded, "the signatures are not those that the events record", Verdict.INCOMPLETE)
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
    return f"signatures {said_by}; distinct, none is an author"


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
