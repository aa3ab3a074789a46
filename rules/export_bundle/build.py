"""The files of a bundle from its facts: the same facts and key give the same bytes. Plain Python, no Django.

The attestation is an in-toto Statement v1 over the SHA-256 of every other file, in a DSSE envelope signed with Ed25519.
Events are written as they come, one line each, so that memory does not grow with the log.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pld_app.canonical import canonical_json
from pld_app.transparency.keyring import KeyRecord
from rules.export_bundle.decisions import act_of, decisions_content
from rules.export_bundle.files import Files
from rules.export_bundle.report import REPORTS, reports_draw
from rules.manifest import manifest_read

ATTESTATION = "attestation.dsse.json"
NAMES = frozenset(
    {
        ATTESTATION,
        "README.txt",
        "bodies.jsonl",
        "checkpoint.txt",
        "consistency.json",
        "decisions.json",
        "events.jsonl",
        "keys.json",
        "prompt.txt",
        "proofs.jsonl",
        "ruleset.json",
        "signatures.json",
        "verify.py",
        *REPORTS,
    }
)
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "ruleset-approval/v1"
README = Path(__file__).with_name("README.txt").read_bytes()
SCRIPT = Path(__file__).with_name("standalone.py").read_bytes()
_TOLD_EVERY = 1000


@dataclass(frozen=True, kw_only=True)
class SealedEvent:
    """An event as the log holds it: its leaf, the body the leaf names, its index in the tree and the path there.

    `data`, which the body names by its hash, is there for events of the task's chain.
    """

    leaf: bytes
    body: bytes
    index: int
    path: Sequence[bytes]
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a bundle speaks of. `consistency` is (older size, path) when a checkpoint from outside was given.

    `events` are all of the ruleset's chain, `basis` those of the task's chain that it rests on, each in its order.
    """

    manifest: bytes
    prompt: str
    events: Iterable[SealedEvent]
    basis: Sequence[SealedEvent]
    checkpoint: str
    signatures: Sequence[Mapping[str, Any]]
    keys: Sequence[KeyRecord]
    consistency: tuple[int, Sequence[bytes]] | None = None


def files_build(facts: Facts, folder: Path, told: Callable[[int], None] = lambda _count: None) -> bytes:
    """Write every file but the attestation into an empty folder; returns the canonical statement over them.

    `told` hears how many events are written, now and then. Raises ValueError for facts that canonical JSON cannot hold,
    `pdf.ReportFault` when the PDF cannot be set.
    """
    small = {
        "README.txt": README,
        "checkpoint.txt": facts.checkpoint.encode(),
        "consistency.json": canonical_json(_consistency(facts)),
        "decisions.json": canonical_json(_decisions(facts)),
        "keys.json": canonical_json([_key(record) for record in facts.keys]),
        "prompt.txt": facts.prompt.encode(),
        "ruleset.json": facts.manifest,
        "signatures.json": canonical_json([dict(one) for one in facts.signatures]),
        "verify.py": SCRIPT,
    }
    names = ("ruleset.json", "signatures.json", "decisions.json", "checkpoint.txt")
    small |= reports_draw(*(small[name] for name in names))
    for name, data in small.items():
        (folder / name).write_bytes(data)
    _events(facts, folder, told)
    return canonical_json(statement_of(Files.folder(folder)))


def _events(facts: Facts, folder: Path, told: Callable[[int], None]) -> None:
    with ExitStack() as stack:
        leaves, bodies, proofs = (
            stack.enter_context((folder / name).open("wb")) for name in ("events.jsonl", "bodies.jsonl", "proofs.jsonl")
        )
        count = 0
        for listed in (facts.events, facts.basis):
            for event in listed:
                leaves.write(event.leaf + b"\n")
                bodies.write(event.body + b"\n")
                proofs.write(_proof(event.index, event.path))
                count += 1
                if count % _TOLD_EVERY == 0:
                    told(count)
        told(count)


def _proof(index: int, path: Sequence[bytes]) -> bytes:
    """One line of proofs.jsonl: canonical JSON, written by hand because there may be a million of them."""
    hashes = '","'.join([one.hex() for one in path])
    quoted = f'"{hashes}"' if path else ""
    return f'{{"index":{index},"path":[{quoted}]}}\n'.encode()


def envelope_of(statement: bytes, key: Ed25519PrivateKey) -> bytes:
    """The signed attestation: the statement in its DSSE envelope."""
    envelope = {
        "payload": base64.b64encode(statement).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": fingerprint(key.public_key().public_bytes_raw()),
                "sig": base64.b64encode(key.sign(pae(PAYLOAD_TYPE, statement))).decode(),
            }
        ],
    }
    return canonical_json(envelope)


def statement_of(files: Files) -> dict[str, Any]:
    """What is attested: each file's hash, and which manifest and which checkpoint stand behind it."""
    sums = {name: files.sha256(name) for name in sorted(files.names - {ATTESTATION})}
    predicate = {
        "checkpoint_sha256": sums["checkpoint.txt"],
        "manifest_sha256": sums["ruleset.json"],
        "prompt_sha256": sums["prompt.txt"],
    }
    subject = [{"digest": {"sha256": value}, "name": name} for name, value in sums.items()]
    return {"_type": STATEMENT_TYPE, "predicate": predicate, "predicateType": PREDICATE_TYPE, "subject": subject}


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the type is inside what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo: `openssl pkey -pubin -outform DER | sha256sum` says the same."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _decisions(facts: Facts) -> dict[str, Any]:
    acts = [act_of(event.leaf, event.body, event.data) for event in facts.basis]
    return decisions_content(manifest_read(facts.manifest), acts)


def _consistency(facts: Facts) -> dict[str, Any] | None:
    if facts.consistency is None:
        return None
    size, path = facts.consistency
    return {"path": [one.hex() for one in path], "size": size}


def _key(record: KeyRecord) -> dict[str, Any]:
    revocation = record.revocation
    return {
        "key": record.verifier.vkey,
        "revocation": revocation
        and {
            "signature": revocation.signature.hex(),
            "signed_by": revocation.signed_by,
            "size": revocation.size,
            "statement": revocation.statement.decode(),
        },
        "signature": record.signature.hex(),
        "signed_by": record.signed_by,
        "size": record.size,
        "statement": record.statement.decode(),
    }
