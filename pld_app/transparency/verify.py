"""Verifying the whole log from what is stored: bodies, leaves, chains, tree, checkpoints, and a copy from outside.

Trusts no function of the database: all is hashed again here, in one pass over the events in the order of the tree.
Memory does not grow with the log (a few values a chain; checkpoints are read as the pass reaches them).
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Any

from django.db import connection, transaction

from pld_app.transparency.keyring import KeyRefused, Keyring
from pld_app.transparency.keys import key_records
from pld_app.transparency.merkle import Frontier
from pld_app.transparency.note import NoteError, ParsedCheckpoint, checkpoint_parse
from pld_app.transparency.record import ORIGIN, body_of, leaf_of

_COLUMNS = """
e.id, e.at, e.actor_id, e.actor_name, e.actor_role, e.action, e.object_type, e.object_id, e.object_label, e.task_slug,
e.data::text, e.request_id, e.app_version, e.chain, e.seq, e.prev, e.body, e.leaf, e.leaf_hash
"""
_SEALED = (
    f"SELECT s.index, s.event_id, s.leaf_hash, {_COLUMNS} FROM pld_app_sealedleaf s"  # noqa: S608  # constants
    " LEFT JOIN pld_app_auditevent e ON e.id = s.event_id ORDER BY s.event_id"
)
_UNSEALED = f"SELECT {_COLUMNS} FROM pld_app_auditevent e WHERE e.id > %s ORDER BY e.id"  # noqa: S608  # constants
_BETWEEN = """
SELECT e.id FROM pld_app_auditevent e WHERE e.id <= %s
   AND NOT EXISTS (SELECT 1 FROM pld_app_sealedleaf s WHERE s.event_id = e.id) ORDER BY e.id LIMIT 1
"""
_CHECKPOINTS = "SELECT size, root, note FROM pld_app_checkpoint ORDER BY size, id"


class Verdict(IntEnum):
    """The exit codes of the command."""

    INTACT = 0
    ALTERED = 1
    INCOMPLETE = 2
    KEY_REFUSED = 3


@dataclass
class Report:
    """What was found. `first_bad` names the first place that does not hold, "" when all does."""

    verdict: Verdict = Verdict.INTACT
    first_bad: str = ""
    events: int = 0
    sealed: int = 0
    chains: int = 0
    checkpoints: int = 0
    root: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def unsealed(self) -> int:
        return self.events - self.sealed


class _Bad(Exception):
    """The first place that does not hold."""

    def __init__(self, verdict: Verdict, where: str) -> None:
        self.verdict, self.where = verdict, where
        super().__init__(where)


def log_verify(*, outside: ParsedCheckpoint | None = None, pinned: bytes | None = None) -> Report:
    """Verify everything, from one snapshot, stopping at the first place that does not hold.

    `outside` is a checkpoint somebody kept; `pinned` a public key (32 bytes) somebody kept. Without, the log is only
    compared with itself, which its owner can rewrite: the report says so.
    """
    report = Report()
    try:
        with _snapshot():
            _Pass(report, outside, pinned).run()
    except _Bad as bad:
        report.verdict, report.first_bad = bad.verdict, bad.where
    except KeyRefused as error:
        report.verdict, report.first_bad = Verdict.KEY_REFUSED, str(error)
    return report


@contextmanager
def _snapshot() -> Iterator[None]:
    """One consistent look at all tables; the plan walks both tables by their keys, so nothing is sorted or kept."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            if not connection.savepoint_ids:  # a test's own transaction has begun already
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute("SET LOCAL enable_hashjoin = off")
            cursor.execute("SET LOCAL enable_nestloop = off")
            cursor.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        yield
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_hashjoin = on")
            cursor.execute("SET LOCAL enable_nestloop = on")


class _Pass:
    def __init__(self, report: Report, outside: ParsedCheckpoint | None, pinned: bytes | None) -> None:
        self.report, self.outside = report, outside
        self.ring = Keyring(key_records(), pinned=pinned)
        self.is_pinned = pinned is not None
        self.tree = Frontier()
        # chain -> (seq, leaf hash) of its newest event so far
        self.heads: dict[str, tuple[int, bytes]] = {}
        self.last_event = 0

    def run(self) -> None:
        if self.outside is not None:
            self.ring.signer(self.outside)
        self._sealed()
        self._nothing_between()
        self._unsealed()
        self._heads()
        self._outside()
        self._say()
        if self.report.unsealed:
            raise _Bad(Verdict.INCOMPLETE, f"{self.report.unsealed} events are not sealed yet.")

    def _sealed(self) -> None:
        """Walk the tree's leaves; at each size that has a checkpoint, compare the root and the signature."""
        with closing(_rows("checkpoints", _CHECKPOINTS)) as stored, closing(_rows("sealed", _SEALED)) as leaves:
            self._walk(leaves, _Marks(self.ring, self.outside, stored))

    def _walk(self, leaves: Iterator[Sequence[Any]], marks: "_Marks") -> None:
        append, heads, event = self.tree.append, self.heads, _event_check
        expected = 0
        try:
            for index, event_id, sealed_hash, *row in leaves:
                if index != expected:
                    raise _Bad(Verdict.ALTERED, f"Leaf {expected} is missing or out of place (event {event_id}).")
                if row[0] is None:
                    raise _Bad(Verdict.ALTERED, f"Event {event_id} (leaf {index}) was removed.")
                leaf_hash = event(row, heads)
                if leaf_hash != sealed_hash:
                    raise _Bad(Verdict.ALTERED, f"Event {event_id} (leaf {index}) is not the one that was sealed.")
                append(leaf_hash)
                expected += 1
                self.last_event = event_id
                if expected == marks.next_size:
                    marks.check(self.tree)
        finally:
            self.report.events = self.report.sealed = self.tree.size
            self.report.checkpoints, self.report.root = marks.count, self.tree.root().hex()
        marks.finish(self.tree)

    def _nothing_between(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_BETWEEN, [self.last_event])
            found = cursor.fetchone()
        if found is not None:
            raise _Bad(Verdict.ALTERED, f"Event {found[0]} was put in among sealed events.")

    def _unsealed(self) -> None:
        with closing(_rows("unsealed", _UNSEALED, [self.last_event])) as rows:
            for row in rows:
                _event_check(row, self.heads)
                self.report.events += 1

    def _heads(self) -> None:
        """The newest event of each chain is the one its head names: a cut tail shows here while it is not sealed."""
        self.report.chains = len(self.heads)
        for name, seq, head in _rows("heads", "SELECT name, seq, head FROM pld_app_auditchain ORDER BY name"):
            if (seq, head) != self.heads.get(name, (0, ORIGIN)):
                raise _Bad(
                    Verdict.ALTERED, f"Chain {name} ends at {self.heads.get(name, (0,))[0]}, its head says {seq}."
                )

    def _outside(self) -> None:
        if self.outside is not None and self.outside.size > self.tree.size:
            missing = self.outside.size - self.tree.size
            raise _Bad(Verdict.INCOMPLETE, f"{missing} events of the checkpoint from outside are missing here.")

    def _say(self) -> None:
        found = self.report
        by_whom = "pinned" if self.is_pinned else "taken from the database itself, not pinned"
        keys = ", ".join(one.key_id for one in self.ring.verifiers) or "none"
        found.lines = [
            f"keys        {keys}, {by_whom}",
            f"events      {found.events:,}: bodies agree with their columns",
            f"chains      {found.chains:,} without gap, fork or cut",
            f"tree        {found.sealed:,} leaves, root {found.root}",
            f"checkpoints {found.checkpoints:,} signed and equal to the tree at their sizes",
            f"outside     the tree begins with your checkpoint of {self.outside.size:,}"
            if self.outside is not None
            else "outside     no checkpoint given: whoever owns the database could have rewritten all of it",
        ]


class _Marks:
    """The checkpoints the pass comes by, from the database and the one from outside, in the order of their sizes."""

    def __init__(self, ring: Keyring, outside: ParsedCheckpoint | None, stored: Iterator[Sequence[Any]]) -> None:
        self._ring, self._outside, self._rows, self.count = ring, outside, stored, 0
        self._stored: Sequence[Any] | None = None
        self._before = 0
        self._advance()

    @property
    def next_size(self) -> int:
        """The next size to stop at; 0 when there is none left."""
        stored = self._stored[0] if self._stored else 0
        outside = self._outside.size if self._outside else 0
        return min((size for size in (stored, outside) if size), default=0)

    def check(self, tree: Frontier) -> None:
        root = tree.root()
        if self._outside is not None and self._outside.size == tree.size:
            if self._outside.root != root:
                raise _Bad(Verdict.ALTERED, f"{self._span(tree)}: they are not those of the checkpoint from outside.")
            self._outside = None
        while self._stored is not None and self._stored[0] == tree.size:
            self._check_stored(root, tree)
            self._advance()
        self._before = tree.size

    def finish(self, tree: Frontier) -> None:
        """All leaves were seen: no checkpoint may be left that is not from outside."""
        if self._stored is not None:
            raise _Bad(
                Verdict.ALTERED,
                f"There is a checkpoint of {self._stored[0]} leaves, the tree has {tree.size}: cut off.",
            )
        if tree.size != self._before and self._outside is None:
            raise _Bad(Verdict.ALTERED, f"{self._span(tree)}: no checkpoint covers them.")

    def _check_stored(self, root: bytes, tree: Frontier) -> None:
        assert self._stored is not None
        size, stored_root, text = self._stored
        try:
            note = checkpoint_parse(text)
        except NoteError as error:
            raise _Bad(Verdict.ALTERED, f"The checkpoint of size {size} is no signed note: {error}.") from error
        self._ring.signer(note)
        if note.size != size or root != note.root or stored_root != note.root:
            raise _Bad(Verdict.ALTERED, f"{self._span(tree)}: their root is not the signed one.")
        self.count += 1

    def _span(self, tree: Frontier) -> str:
        return f"Leaves {self._before} to {tree.size - 1}"

    def _advance(self) -> None:
        self._stored = next(self._rows, None)


def _event_check(row: Sequence[Any], heads: dict[str, tuple[int, bytes]]) -> bytes:
    """Body, leaf and link of one event, made again from its columns; returns its leaf hash, or raises _Bad."""
    event_id, at, *facts, chain, seq, prev, body, leaf, leaf_hash = row
    try:
        is_same = body == body_of(*facts)
    except ValueError:
        is_same = False
    if not is_same:
        raise _Bad(Verdict.ALTERED, f"Event {event_id} says something else than its body.")
    # Django's connections speak UTC; a time in another zone would only make the comparison fail.
    made = leaf_of(at.isoformat(timespec="microseconds")[:-6], sha256(body).hexdigest(), chain, prev, seq)
    if leaf != made or leaf_hash != sha256(b"\0" + made).digest():
        raise _Bad(Verdict.ALTERED, f"Event {event_id} does not match its leaf.")
    before = heads.get(chain, _FIRST)
    if seq != before[0] + 1 or prev != before[1]:
        raise _Bad(
            Verdict.ALTERED, f"Event {event_id} is number {seq} of chain {chain}, but {before[0]} came before it."
        )
    heads[chain] = (seq, leaf_hash)
    return leaf_hash  # type: ignore[no-any-return]  # a row of the database


_FIRST = (0, ORIGIN)


def _rows(name: str, query: str, values: list[Any] | None = None) -> Generator[Sequence[Any]]:
    """Stream rows through a cursor of the server, 5,000 at a time, as plain Python values (bytes for bytea)."""
    connection.ensure_connection()
    with connection.connection.cursor(name=f"pld_verify_{name}", binary=True) as cursor:
        cursor.itersize = 5000
        cursor.execute(query, values or None)
        yield from cursor
