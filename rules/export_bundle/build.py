"""The files of a bundle from its facts: the same facts and key give the same bytes. Plain Python, no Django.

The attestation is an in-toto Statement v1 over the SHA-256 of every other file, in a DSSE envelope signed with Ed25519.
"""

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pld_app.canonical import canonical_json, sha256_hex
from pld_app.transparency.keyring import KeyRecord

ATTESTATION = "attestation.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "ruleset-approval/v1"
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class SealedEvent:
    """An event as the log holds it: its leaf, the body the leaf names, its index in the tree and the path there."""

    leaf: bytes
    body: bytes
    index: int
    path: Sequence[bytes]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a bundle speaks of. `consistency` is (older size, path) when a checkpoint from outside was given."""

    manifest: bytes
    prompt: str
    events: Sequence[SealedEvent]
    checkpoint: str
    signatures: Sequence[Mapping[str, Any]]
    keys: Sequence[KeyRecord]
    consistency: tuple[int, Sequence[bytes]] | None = None


def bundle_files(facts: Facts, private_key: Ed25519PrivateKey) -> dict[str, bytes]:
    """All files by name, signed. Raises ValueError for facts that canonical JSON cannot hold."""
    files = {
        "README.txt": (_HERE / "README.txt").read_bytes(),
        "bodies.jsonl": b"".join(event.body + b"\n" for event in facts.events),
        "checkpoint.txt": facts.checkpoint.encode(),
        "events.jsonl": b"".join(event.leaf + b"\n" for event in facts.events),
        "keys.json": canonical_json([_key(record) for record in facts.keys]),
        "prompt.txt": facts.prompt.encode(),
        "proofs.json": canonical_json(_proofs(facts)),
        "ruleset.json": facts.manifest,
        "signatures.json": canonical_json([dict(one) for one in facts.signatures]),
        "verify.py": (_HERE / "standalone.py").read_bytes(),
    }
    return {ATTESTATION: attest(files, private_key), **files}


def attest(files: Mapping[str, bytes], private_key: Ed25519PrivateKey) -> bytes:
    """The envelope over these files."""
    statement = canonical_json(statement_of(files))
    envelope = {
        "payload": base64.b64encode(statement).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": fingerprint(private_key.public_key().public_bytes_raw()),
                "sig": base64.b64encode(private_key.sign(pae(PAYLOAD_TYPE, statement))).decode(),
            }
        ],
    }
    return canonical_json(envelope)


def statement_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What is attested: each file's hash, and which manifest and which checkpoint stand behind it."""
    subject = [{"digest": {"sha256": sha256_hex(files[name])}, "name": name} for name in sorted(files)]
    predicate = {
        "checkpoint_sha256": sha256_hex(files["checkpoint.txt"]),
        "manifest_sha256": sha256_hex(files["ruleset.json"]),
        "prompt_sha256": sha256_hex(files["prompt.txt"]),
    }
    return {"_type": STATEMENT_TYPE, "predicate": predicate, "predicateType": PREDICATE_TYPE, "subject": subject}


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the type is inside what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def fingerprint(public_key: bytes) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo: `openssl pkey -pubin -outform DER | sha256sum` says the same."""
    key = Ed25519PublicKey.from_public_bytes(public_key)
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """A ZIP with stored files in the order of their names and one fixed time: equal files, equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _proofs(facts: Facts) -> dict[str, Any]:
    inclusion = [{"index": event.index, "path": [one.hex() for one in event.path]} for event in facts.events]
    if facts.consistency is None:
        return {"consistency": None, "inclusion": inclusion}
    size, path = facts.consistency
    return {"consistency": {"path": [one.hex() for one in path], "size": size}, "inclusion": inclusion}


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
