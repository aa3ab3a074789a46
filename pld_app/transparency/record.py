"""What an event's bytes must be, from its columns: a second account of what the database's trigger made.

Plain Python over plain values, so that a verifier does not trust the functions of the database it verifies.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring as _quoted  # what json.dumps uses with ensure_ascii=False

from pld_app.canonical import canonical_json
from pld_app.transparency.merkle import leaf_hash

ORIGIN = bytes(32)  # the `prev` of the first event of a chain
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
# A fraction, an exponent or sixteen digits, also inside text: those few take the careful way.
_ODD_NUMBER = re.compile(r"[0-9][.eE]|[0-9]{16}")
_EMPTY = hashlib.sha256(b"{}").hexdigest()


@dataclass(frozen=True, slots=True)
class EventFacts:
    """The columns an event's body speaks of; `data` is the JSON text of its data."""

    actor_id: int | None
    actor_name: str
    actor_role: str
    action: str
    object_type: str
    object_id: str
    object_label: str
    task_slug: str
    data: str
    request_id: str
    app_version: str


def data_sha256(data: str) -> str:
    """SHA-256 over the canonical JSON of an event's data. Raises ValueError for fractions and too large integers."""
    if data == "{}":
        return _EMPTY
    value = json.loads(data)
    if data.isascii() and _ODD_NUMBER.search(data) is None:
        # The same bytes, several times as fast: ASCII keys sort alike, and no number here can be refused.
        return hashlib.sha256(_ENCODER.encode(value).encode()).hexdigest()
    return hashlib.sha256(canonical_json(value)).hexdigest()


def body_bytes(facts: EventFacts) -> bytes:
    """The canonical JSON of who did what to which object, free text by hash alone."""
    actor = "null" if facts.actor_id is None else str(facts.actor_id)
    return (
        f'{{"action":{_quoted(facts.action)},"actor":{{"id":{actor},"name":{_quoted(facts.actor_name)},'
        f'"role":{_quoted(facts.actor_role)}}},"app_version":{_quoted(facts.app_version)},'
        f'"data_sha256":"{data_sha256(facts.data)}","object":{{"id":{_quoted(facts.object_id)},'
        f'"label":{_quoted(facts.object_label)},"type":{_quoted(facts.object_type)}}},'
        f'"request_id":{_quoted(facts.request_id)},"task":{_quoted(facts.task_slug)},"v":1}}'
    ).encode()


def leaf_bytes(*, at: datetime, body: bytes, chain: str, prev: bytes, seq: int) -> bytes:
    """The ASCII JSON that the tree holds: time in UTC to the microsecond, hashes in lower-case hexadecimal."""
    when = at.astimezone(UTC).isoformat(timespec="microseconds")[:-6]
    body_sha256 = hashlib.sha256(body).hexdigest()
    return (
        f'{{"at":"{when}Z","body_sha256":"{body_sha256}","chain":"{chain}","prev":"{prev.hex()}","seq":{seq},"v":1}}'
    ).encode("ascii")


__all__ = ["ORIGIN", "EventFacts", "body_bytes", "data_sha256", "leaf_bytes", "leaf_hash"]
