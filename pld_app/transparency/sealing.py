"""Sealing: put the events of the log into the tree, in the order of their ids, and sign the tree's new root.

Runs in the sealer's process (`manage.py audit_sealer`) with the database role and the key file that nobody else has.
"""

from dataclasses import dataclass

import structlog
from django.db import connection, transaction

from pld_app.audit import audit_record
from pld_app.models import AuditAlarm, AuditEvent, Checkpoint, SealedLeaf, SealedNode
from pld_app.transparency.keys import Signer
from pld_app.transparency.locks import fenced_high, sealer_lock
from pld_app.transparency.merkle import Frontier
from pld_app.transparency.note import checkpoint_text, note_sign
from pld_app.transparency.tree import TILE_LEVELS

log = structlog.get_logger(__name__)
BATCH = 10_000

_INSERT_LEAVES = """
INSERT INTO pld_app_sealedleaf (index, event_id, leaf_hash)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[])
"""


class Blocked(Exception):
    """An alarm is open: nothing is sealed until somebody has looked into it."""


@dataclass(frozen=True)
class Sealed:
    """What one round did: `added` leaves, the tree's `size` now, and whether writers kept it from looking further."""

    added: int
    size: int
    is_held_up: bool = False


def seal(signer: Signer) -> Sealed:
    """Seal everything committed until now, 10,000 events a transaction.

    Raises SealerBusy when another process seals, Blocked while an alarm is open.
    """
    with sealer_lock():
        alarm = alarm_open()
        if alarm is not None:
            raise Blocked(alarm.detail)
        high = fenced_high()
        frontier, last_event = _stored_end()
        before = frontier.size
        if high is not None:
            while _seal_batch(signer, frontier, last_event, high):
                frontier, last_event = _stored_end()
        _sign_again(signer, frontier)
        return Sealed(added=frontier.size - before, size=frontier.size, is_held_up=high is None)


def alarm_open() -> AuditAlarm | None:
    newest = AuditAlarm.objects.order_by("-pk").first()
    return newest if newest is not None and newest.state == AuditAlarm.State.RAISED else None


def alarm_raise(detail: str) -> None:
    """Put it on record that log and outside copy disagree; says nothing new while the same alarm is open."""
    newest = alarm_open()
    if newest is None or newest.detail != detail[:500]:
        AuditAlarm.objects.create(state=AuditAlarm.State.RAISED, detail=detail[:500])
        log.error("audit.alarm", detail=detail)


@transaction.atomic
def alarm_clear(reason: str) -> AuditAlarm:
    """Say that the alarm was looked into; sealing and publishing go on. The caller has checked that one is open."""
    cleared = AuditAlarm.objects.create(state=AuditAlarm.State.CLEARED, detail=reason.strip()[:500])
    audit_record("audit_alarm.cleared", actor=None, subject=cleared, data={"reason": cleared.detail})
    return cleared


def _stored_end() -> tuple[Frontier, int]:
    """The frontier of the newest checkpoint and the last event in it. Leaves and checkpoint share a transaction."""
    newest = Checkpoint.objects.order_by("-size", "-pk").values_list("size", "frontier").first()
    if newest is None:
        return Frontier(), 0
    size, stored = newest
    last = SealedLeaf.objects.filter(index=size - 1).values_list("event_id", flat=True).first()
    return Frontier.from_bytes(size, bytes(stored)), last or 0


@transaction.atomic
def _seal_batch(signer: Signer, frontier: Frontier, last_event: int, high: int) -> bool:
    """Seal the next events up to id `high`; returns whether there were any."""
    events = AuditEvent.objects.filter(pk__gt=last_event, pk__lte=high).order_by("pk").values_list("pk", "leaf_hash")
    rows = [(pk, bytes(leaf_hash)) for pk, leaf_hash in events[:BATCH]]
    if not rows:
        return False
    start, nodes = frontier.size, list[SealedNode]()

    def made(level: int, index: int, node: bytes) -> None:
        if level % TILE_LEVELS == 0:
            nodes.append(SealedNode(level=level, index=index, hash=node))

    grown = frontier.copy()
    for _pk, leaf_hash in rows:
        grown.append(leaf_hash, made)
    with connection.cursor() as cursor:
        columns = [list(range(start, grown.size)), [pk for pk, _hash in rows], [one for _pk, one in rows]]
        cursor.execute(_INSERT_LEAVES, columns)  # type: ignore[arg-type]  # lists are arrays to the driver
    SealedNode.objects.bulk_create(nodes)
    _checkpoint(signer, grown)
    return True


def _sign_again(signer: Signer, frontier: Frontier) -> None:
    """After a change of keys the present tree gets a checkpoint by the new key too."""
    if frontier.size and not Checkpoint.objects.filter(size=frontier.size, key=signer.row).exists():
        _checkpoint(signer, frontier)


def _checkpoint(signer: Signer, tree: Frontier) -> None:
    root = tree.root()
    note = note_sign(checkpoint_text(signer.row.name, tree.size, root), signer.row.name, signer.private_key)
    Checkpoint.objects.create(size=tree.size, root=root, frontier=tree.to_bytes(), note=note, key=signer.row)
