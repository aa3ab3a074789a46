"""Which keys may speak for the log, and for which sizes of it. Plain Python, no Django.

The first key introduces itself; each further one is introduced by a statement that the key before it signed. A key
counts for trees from the size it was introduced at to that of its successor, and not beyond the size of a revocation.
Tree sizes are the clock here: unlike times, they stand in what was signed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pld_app.canonical import canonical_json
from pld_app.transparency.note import ParsedCheckpoint, Verifier


class KeyRefused(Exception):
    """Nobody vouches for this key, or it was revoked; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Revocation:
    """`size`: trees larger than this are refused. Signed by the key `signed_by` (a key id)."""

    size: int
    statement: bytes
    signature: bytes
    signed_by: str


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """A key with how it was introduced; `signed_by` is the id of the key before it, None for the first."""

    verifier: Verifier
    size: int
    statement: bytes
    signature: bytes
    signed_by: str | None
    revocation: Revocation | None = None


def introduction(verifier: Verifier, *, previous: Verifier | None, size: int, at: datetime) -> bytes:
    """The bytes that introduce a key: signed by `previous`, or by itself when there is none."""
    said = {
        "at": at.isoformat(timespec="seconds"),
        "key": verifier.vkey,
        "kind": "audit-key",
        "previous": previous.vkey if previous else None,
        "size": size,
        "v": 1,
    }
    return canonical_json(said)


def revocation_statement(verifier: Verifier, *, size: int, reason: str, at: datetime) -> bytes:
    said = {
        "at": at.isoformat(timespec="seconds"),
        "key": verifier.vkey,
        "kind": "audit-key-revocation",
        "reason": reason,
        "size": size,
        "v": 1,
    }
    return canonical_json(said)


class Keyring:
    """The keys of a log, checked link by link, with the one that the verifier trusts to begin with.

    `pinned` is the public key (32 bytes) somebody kept from elsewhere; without it a key that introduces itself is taken
    on its word.
    Keys that are not linked to the trusted one by signed introductions are not in the ring.
    """

    def __init__(self, records: Sequence[KeyRecord], *, pinned: bytes | None = None) -> None:
        self._by_id = {record.verifier.key_id: record for record in records}
        self._check_statements()
        roots = [record for record in records if record.signed_by is None]
        start = roots if pinned is None else [one for one in records if one.verifier.public_key == pinned]
        if pinned is not None and not start:
            raise KeyRefused("The pinned key is none of this log's keys.")
        self._trusted = self._linked({one.verifier.key_id for one in start})

    @property
    def verifiers(self) -> list[Verifier]:
        return [record.verifier for key_id, record in self._by_id.items() if key_id in self._trusted]

    def signer(self, checkpoint: ParsedCheckpoint) -> Verifier:
        """The key that signed it. Raises KeyRefused when none of the ring did, or it may not speak for this size."""
        signer = next((one for one in self.verifiers if checkpoint.signed_by(one)), None)
        if signer is None:
            raise KeyRefused(f"The checkpoint of size {checkpoint.size} is not signed by a key of this log.")
        record, size = self._by_id[signer.key_id], checkpoint.size
        if record.revocation is not None and size > record.revocation.size:
            revoked = f"Key {signer.key_id} was revoked at size {record.revocation.size}"
            raise KeyRefused(f"{revoked}; it signed a checkpoint of size {size}.")
        if size < record.size or size > self._retired_at(signer.key_id, size):
            raise KeyRefused(f"Key {signer.key_id} was not the log's key at size {size}.")
        return signer

    def _retired_at(self, key_id: str, size: int) -> int:
        return min((one.size for one in self._by_id.values() if one.signed_by == key_id), default=size)

    def _check_statements(self) -> None:
        for key_id, record in self._by_id.items():
            by = self._by_id.get(record.signed_by or key_id)
            previous = f'"previous":"{by.verifier.vkey}"' if by and record.signed_by else '"previous":null'
            said = f'"key":"{record.verifier.vkey}","kind":"audit-key",{previous},"size":{record.size},"v":1}}'
            if by is None or not record.statement.decode("utf-8", "replace").endswith(said):
                raise KeyRefused(f"The introduction of key {key_id} says something else than its record.")
            if not by.verifier.accepts(record.signature, record.statement):
                raise KeyRefused(f"The introduction of key {key_id} is not signed by the key before it.")
            self._check_revocation(record)

    def _check_revocation(self, record: KeyRecord) -> None:
        revocation, key_id = record.revocation, record.verifier.key_id
        if revocation is None:
            return
        by = self._by_id.get(revocation.signed_by)
        text = revocation.statement.decode("utf-8", "replace")
        says_it = f'"key":"{record.verifier.vkey}","kind":"audit-key-revocation",' in text
        if by is None or not says_it or not text.endswith(f'"size":{revocation.size},"v":1}}'):
            raise KeyRefused(f"The revocation of key {key_id} says something else than its record.")
        if not by.verifier.accepts(revocation.signature, revocation.statement):
            raise KeyRefused(f"The revocation of key {key_id} is not signed by a key of this log.")

    def _linked(self, start: set[str]) -> frozenset[str]:
        found, wave = set(start), set(start)
        while wave:
            linked = {k for k, one in self._by_id.items() if one.signed_by in wave}
            linked |= {one.signed_by for k, one in self._by_id.items() if k in wave and one.signed_by}
            wave = linked - found
            found |= wave
        return frozenset(found)
