"""What shows that one event stands in the log: its bytes, its place, and the way up to a signed checkpoint."""

import base64
import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pld_app.models import AuditChain, AuditEvent, Checkpoint
from pld_app.transparency.health import SealState, seal_states
from pld_app.transparency.merkle import includes
from pld_app.transparency.note import Verifier, checkpoint_parse
from pld_app.transparency.tree import StoredTree

SCHEMA = "pld-event-proof/v1"


@dataclass(frozen=True)
class EventPlace:
    """Where an event stands: in its chain (neighbours' ids, None at the ends; newest number), and under which seal."""

    before: int | None
    after: int | None
    newest: int
    seal: SealState | None
    path: tuple[str, ...]
    note: str


def event_place(event: AuditEvent) -> EventPlace:
    """Chain and seal; `path` is the audit path (hex) in the tree of the checkpoint `note`, empty while unsealed."""
    around = AuditEvent.objects.filter(chain=event.chain, seq__in=[event.seq - 1, event.seq + 1])
    near = dict(around.values_list("seq", "pk"))
    newest = AuditChain.objects.filter(name=event.chain).values_list("seq", flat=True).first() or event.seq
    seal = seal_states([event.pk]).get(event.pk)
    path, note = tuple[str, ...](), ""
    if seal is not None and seal.covered_by:
        path = tuple(one.hex() for one in StoredTree().inclusion(seal.index, seal.covered_by))
        note = Checkpoint.objects.filter(size=seal.covered_by).order_by("-pk").values_list("note", flat=True)[0]
    return EventPlace(near.get(event.seq - 1), near.get(event.seq + 1), newest, seal, path, note)


def proof_of(event: AuditEvent, place: EventPlace) -> dict[str, Any]:
    """Everything `manage.py verify_event` needs, in JSON values; without a place in the tree while it is not sealed."""
    return {
        "schema": SCHEMA,
        "event": event.pk,
        "body": bytes(event.body).decode(),
        "leaf": bytes(event.leaf).decode(),
        "index": place.seal.index if place.note and place.seal else None,
        "size": place.seal.covered_by if place.note and place.seal else None,
        "path": [base64.b64encode(bytes.fromhex(one)).decode() for one in place.path],
        "checkpoint": place.note,
    }


class ProofRefused(ValueError):
    """The proof does not show what it says; the message says where it fails."""


def proof_verify(text: str, public_key: bytes) -> dict[str, Any]:
    """The event's body, once body, leaf, path and signature hold together; asks no database. Raises ProofRefused."""
    try:
        said = json.loads(text)
        if said["checkpoint"] == "":
            raise ProofRefused("This event was not sealed when its proof was taken. Take it again.")
        body, leaf = said["body"].encode(), said["leaf"].encode()
        path = [base64.b64decode(one, validate=True) for one in said["path"]]
        note = checkpoint_parse(said["checkpoint"])
        index, size = int(said["index"]), int(said["size"])
        named = json.loads(leaf)["body_sha256"]
        found: dict[str, Any] = json.loads(body)
    except ProofRefused:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProofRefused(f"This is no proof of an event: {error}") from error
    if sha256(body).hexdigest() != named:
        raise ProofRefused("The leaf is not that of this body.")
    if note.size != size or not includes(sha256(b"\0" + leaf).digest(), index, size, path, note.root):
        raise ProofRefused("The leaf is not in the tree of this checkpoint.")
    if not note.signed_by(Verifier(note.origin, public_key)):
        raise ProofRefused("The checkpoint is not signed by this key.")
    return found
