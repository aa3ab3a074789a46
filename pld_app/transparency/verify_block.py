"""Verifying one block of the sealed log: its events by their columns, its leaves, and the subtree over them."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Any, NamedTuple

from django.db import connection

from pld_app.transparency.erased import Erased, erased_texts
from pld_app.transparency.merkle import Frontier
from pld_app.transparency.record import ORIGIN, body_of, leaf_of

BLOCK = 1 << 16  # leaves of one block: a full subtree
START = (0, ORIGIN)  # where a chain stands before its first event
COLUMNS = """
e.id, e.at, e.actor_id, e.actor_name, e.actor_role, e.action, e.object_type, e.object_id, e.object_label, e.task_slug,
e.data::text, e.request_id, e.app_version, e.chain, e.seq, e.prev, e.body, e.leaf, e.leaf_hash
"""
_DATA = 8  # the place of the data among an event's facts
_LEAVES = "SELECT index, event_id, leaf_hash FROM pld_app_sealedleaf WHERE index >= %s AND index < %s ORDER BY index"
_BOUNDS = "SELECT min(event_id), max(event_id) FROM pld_app_sealedleaf WHERE index >= %s AND index < %s"
_EVENTS = f"SELECT {COLUMNS} FROM pld_app_auditevent e WHERE e.id >= %s AND e.id <= %s ORDER BY e.id"  # noqa: S608  # constants


class Verdict(IntEnum):
    """The exit codes of the command."""

    INTACT = 0
    ALTERED = 1
    INCOMPLETE = 2
    KEY_REFUSED = 3


class Bad(Exception):
    """The first place that does not hold."""

    def __init__(self, verdict: Verdict, where: str) -> None:
        self.verdict, self.where = verdict, where
        super().__init__(verdict, where)


@dataclass
class Block:
    """What one block says: the hashes of its subtrees, also at the sizes asked for, and where its chains begin and end.

    `chains` has, by name, the block's first event of a chain with its seq and prev, then seq and leaf hash of its last.
    `bad` is the first place in it that does not hold; all else is about what came before that.
    """

    count: int = 0
    hashes: list[bytes] = field(default_factory=list)
    frontiers: list[tuple[int, list[bytes]]] = field(default_factory=list)
    chains: dict[str, tuple[int, int, bytes, int, bytes]] = field(default_factory=dict)
    first_event: int = 0
    last_event: int = 0
    erased: int = 0
    bad: Bad | None = None


class Part(NamedTuple):
    """The leaves [start, end) to verify; `sizes`, ascending, are the tree sizes within whose subtrees are wanted."""

    start: int
    end: int
    sizes: tuple[int, ...]


def block_verify(part: Part) -> Block:
    """Verify the leaves of one block."""
    block, tree = Block(), Frontier()
    try:
        with closing(_sealed_rows(part)) as rows:
            _walk(rows, block, tree, part)
    except Bad as bad:
        block.bad = bad
    block.count, block.hashes = tree.size, tree.hashes
    return block


def _sealed_rows(part: Part) -> Generator[tuple[int, int, bytes, Sequence[Any] | None]]:
    """Index, event and hash of each leaf with the event's row, None where it is gone.

    Both tables are read in order and put together here: two scans cost the database less than a look-up an event.
    """
    with connection.cursor() as cursor:
        cursor.execute(_BOUNDS, [part.start, part.end])
        bounds = list(cursor.fetchone() or (None, None))
    with (
        closing(rows_stream("leaves", _LEAVES, [part.start, part.end])) as leaves,
        closing(rows_stream("events", _EVENTS, bounds)) as events,
    ):
        row = next(events, None)
        for index, event_id, sealed_hash in leaves:
            # One that was put in among them is found by its own question (verify._nothing_between).
            while row is not None and row[0] < event_id:
                row = next(events, None)
            yield index, event_id, sealed_hash, row if row is not None and row[0] == event_id else None


def _walk(
    rows: Iterable[tuple[int, int, bytes, Sequence[Any] | None]], block: Block, tree: Frontier, part: Part
) -> None:
    append, chains, wanted, erased = tree.append, block.chains, iter(part.sizes), erased_texts()
    expected, next_size = part.start, next(wanted, 0)
    for index, event_id, sealed_hash, row in rows:
        if index != expected or event_id <= block.last_event:
            raise Bad(Verdict.ALTERED, f"Leaf {expected} is missing or out of place (event {event_id}).")
        if row is None:
            raise Bad(Verdict.ALTERED, f"Event {event_id} (leaf {index}) was removed.")
        chain, seq, prev, leaf_hash = event_check(row, erased)
        block.erased += event_id in erased
        if leaf_hash != sealed_hash:
            raise Bad(Verdict.ALTERED, f"Event {event_id} (leaf {index}) is not the one that was sealed.")
        before = chains.get(chain)
        if before is None:
            chains[chain] = (event_id, seq, prev, seq, leaf_hash)
        elif seq != before[3] + 1 or prev != before[4]:
            raise Bad(Verdict.ALTERED, f"Event {event_id} is number {seq} of chain {chain}, after number {before[3]}.")
        else:
            chains[chain] = (*before[:3], seq, leaf_hash)
        append(leaf_hash)
        expected += 1
        block.first_event, block.last_event = block.first_event or event_id, event_id
        if expected == next_size:
            block.frontiers.append((expected, [*tree.hashes]))
            next_size = next(wanted, 0)
    if expected != part.end:
        raise Bad(Verdict.ALTERED, f"Leaf {expected} is missing.")


def event_check(row: Sequence[Any], erased: Mapping[int, Erased]) -> tuple[str, int, bytes, bytes]:
    """Make body and leaf of one event again from its columns; returns chain, seq, prev and leaf hash. Raises Bad.

    Data that a confirmed erasure names are their tombstone and nothing else, and the body has the hash they had.
    """
    event_id, at, *facts, chain, seq, prev, body, leaf, leaf_hash = row
    gone = erased.get(event_id)
    if gone is not None and facts[_DATA] != gone.tombstone:
        raise Bad(Verdict.ALTERED, f"Event {event_id} was erased by erasure {gone.erasure} and yet says something.")
    try:
        is_same = body == body_of(*[*facts, gone.data_sha256] if gone else facts)
    except ValueError:
        is_same = False
    if not is_same:
        raise Bad(Verdict.ALTERED, f"Event {event_id} says something else than its body.")
    # Django's connections speak UTC; a time in another zone would only make the comparison fail.
    made = leaf_of(at.isoformat(timespec="microseconds")[:-6], sha256(body).hexdigest(), chain, prev, seq)
    if leaf != made or leaf_hash != sha256(b"\0" + made).digest():
        raise Bad(Verdict.ALTERED, f"Event {event_id} does not match its leaf.")
    return chain, seq, prev, leaf_hash


def rows_stream(name: str, query: str, values: list[Any] | None = None) -> Generator[Sequence[Any]]:
    """Stream rows through a cursor of the server, 5,000 at a time, as plain Python values (bytes for bytea)."""
    connection.ensure_connection()
    with connection.connection.cursor(name=f"pld_verify_{name}", binary=True) as cursor:
        cursor.itersize = 5000
        cursor.execute(query, values or None)
        yield from cursor
