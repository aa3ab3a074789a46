"""Verifying the whole log from what is stored: bodies, leaves, chains, tree, checkpoints, and a copy from outside.

Trusts no function of the database: all is hashed again here, in blocks of 65,536 leaves that are full subtrees, so that
several processes share the work (`verify_block`). Memory does not grow with the log: a few values a chain and block.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, transaction

from pld_app.transparency.erased import erased_texts
from pld_app.transparency.keyring import KeyRefused, Keyring
from pld_app.transparency.keys import key_records
from pld_app.transparency.merkle import Frontier
from pld_app.transparency.note import NoteError, ParsedCheckpoint, checkpoint_parse
from pld_app.transparency.tree import sealed_count
from pld_app.transparency.verify_block import (
    BLOCK,
    COLUMNS,
    START,
    Bad,
    Block,
    Part,
    Verdict,
    block_verify,
    event_check,
    rows_stream,
)

_UNSEALED = f"SELECT {COLUMNS} FROM pld_app_auditevent e WHERE e.id > %s ORDER BY e.id"  # noqa: S608  # constants
_BETWEEN = """
SELECT e.id FROM pld_app_auditevent e WHERE e.id <= %s
   AND NOT EXISTS (SELECT 1 FROM pld_app_sealedleaf s WHERE s.event_id = e.id) ORDER BY e.id LIMIT 1
"""
_CHECKPOINTS = "SELECT size, root, note FROM pld_app_checkpoint ORDER BY size, id"
_SIZES = "SELECT DISTINCT size FROM pld_app_checkpoint WHERE size > %s AND size <= %s ORDER BY size"

# What was found in each part, in the same order.
type Workers = Callable[[Sequence[Part]], Iterable[Block]]


@dataclass
class Report:
    """What was found. `first_bad` names the first place that does not hold, "" when all does."""

    verdict: Verdict = Verdict.INTACT
    first_bad: str = ""
    events: int = 0
    sealed: int = 0
    chains: int = 0
    checkpoints: int = 0
    erased: int = 0
    root: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def unsealed(self) -> int:
        return self.events - self.sealed


def log_verify(
    *,
    outside: ParsedCheckpoint | None = None,
    pinned: bytes | None = None,
    processes: int = 1,
    block: int = BLOCK,
) -> Report:
    """Verify everything, from one snapshot, stopping at the first place that does not hold.

    `outside` is a checkpoint somebody kept; `pinned` a public key (32 bytes) somebody kept. Without, the log is only
    compared with itself, which its owner can rewrite: the report says so. Several `processes` share the blocks
    of 65,536 leaves; each has a connection of its own that sees what is committed. `block` is a power of two.
    """
    report = Report()
    try:
        with _snapshot(), _workers(min(processes, sealed_count() // block)) as workers:
            _Pass(report, outside, pinned, workers, block).run()
    except Bad as bad:
        report.verdict, report.first_bad = bad.verdict, bad.where
    except KeyRefused as error:
        report.verdict, report.first_bad = Verdict.KEY_REFUSED, str(error)
    return report


@contextmanager
def _snapshot() -> Iterator[None]:
    """One consistent look at all tables."""
    with transaction.atomic():
        if not connection.savepoint_ids:  # a test's own transaction has begun already
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


@contextmanager
def _workers(processes: int) -> Iterator[Workers]:
    """This process alone, or several that look at the snapshot of this one."""
    if processes <= 1:
        yield lambda parts: map(block_verify, parts)
        return
    from pld_app.transparency.verify_processes import pool  # noqa: PLC0415  # only where it is asked for

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_export_snapshot()")
        snapshot = str(cursor.fetchone()[0])
    with pool(processes, snapshot) as shared:
        yield shared


class _Pass:
    def __init__(
        self, report: Report, outside: ParsedCheckpoint | None, pinned: bytes | None, workers: Workers, block: int
    ) -> None:
        self.report, self.outside, self.workers, self.block = report, outside, workers, block
        self.ring = Keyring(key_records(), pinned=pinned)
        self.is_pinned = pinned is not None
        self.tree = Frontier()
        # chain -> (seq, leaf hash) of its newest event so far
        self.heads: dict[str, tuple[int, bytes]] = {}
        self.last_event = 0

    def run(self) -> None:
        if self.outside is not None:
            self.ring.signer(self.outside)
        with closing(rows_stream("checkpoints", _CHECKPOINTS)) as stored:
            self._sealed(_Marks(self.ring, self.outside, stored))
        self._nothing_between()
        self._unsealed()
        self._heads()
        self._outside()
        self._say()
        if self.report.unsealed:
            raise Bad(Verdict.INCOMPLETE, f"{self.report.unsealed} events are not sealed yet.")

    def _sealed(self, marks: "_Marks") -> None:
        """Put the blocks together; at each size that has a checkpoint, compare the root and the signature."""
        count = sealed_count()
        try:
            for block in self.workers([self._part(start, count) for start in range(0, count, self.block)]):
                self._link(block)
                self.report.erased += block.erased
                for size, hashes in block.frontiers:
                    marks.check(Frontier(size, [*self.tree.hashes, *hashes]))
                if block.bad is not None:
                    raise block.bad
                # A full block is one hash, which joins those before it like a leaf does.
                self.tree = _joined(self.tree, block, self.block)
        finally:
            self.report.events = self.report.sealed = self.tree.size
            self.report.checkpoints, self.report.root = marks.count, self.tree.root().hex()
        marks.finish(self.tree)

    def _part(self, start: int, count: int) -> Part:
        """The block that begins at `start`, with the sizes of the checkpoints that end in it."""
        end = min(start + self.block, count)
        with connection.cursor() as cursor:
            cursor.execute(_SIZES, [start, end])
            sizes = {int(row[0]) for row in cursor.fetchall()}
        if self.outside is not None and start < self.outside.size <= end:
            sizes.add(self.outside.size)
        return Part(start, end, tuple(sorted(sizes)))

    def _link(self, block: Block) -> None:
        """Each chain goes on where the blocks before left it."""
        for name, (event_id, seq, prev, last_seq, last_hash) in block.chains.items():
            before = self.heads.get(name, START)
            if (seq - 1, prev) != before:
                raise Bad(
                    Verdict.ALTERED, f"Event {event_id} is number {seq} of chain {name}, after number {before[0]}."
                )
            self.heads[name] = (last_seq, last_hash)
        if block.count and block.first_event <= self.last_event:
            raise Bad(Verdict.ALTERED, f"Event {block.first_event} was sealed out of order.")
        self.last_event = block.last_event or self.last_event

    def _nothing_between(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(_BETWEEN, [self.last_event])
            found = cursor.fetchone()
        if found is not None:
            raise Bad(Verdict.ALTERED, f"Event {found[0]} was put in among sealed events.")

    def _unsealed(self) -> None:
        erased = erased_texts()
        with closing(rows_stream("unsealed", _UNSEALED, [self.last_event])) as rows:
            for row in rows:
                chain, seq, prev, leaf_hash = event_check(row, erased)
                self.report.erased += row[0] in erased
                before = self.heads.get(chain, START)
                if (seq - 1, prev) != before:
                    raise Bad(
                        Verdict.ALTERED, f"Event {row[0]} is number {seq} of chain {chain}, after number {before[0]}."
                    )
                self.heads[chain] = (seq, leaf_hash)
                self.report.events += 1

    def _heads(self) -> None:
        """The newest event of each chain is the one its head names: a cut tail shows here while it is not sealed."""
        self.report.chains = len(self.heads)
        for name, seq, head in rows_stream("heads", "SELECT name, seq, head FROM pld_app_auditchain ORDER BY name"):
            if (seq, head) != self.heads.get(name, START):
                raise Bad(
                    Verdict.ALTERED, f"Chain {name} ends at {self.heads.get(name, (0,))[0]}, its head says {seq}."
                )

    def _outside(self) -> None:
        if self.outside is not None and self.outside.size > self.tree.size:
            missing = self.outside.size - self.tree.size
            raise Bad(Verdict.INCOMPLETE, f"{missing} events of the checkpoint from outside are missing here.")

    def _say(self) -> None:
        found = self.report
        by_whom = "pinned" if self.is_pinned else "taken from the database itself, not pinned"
        keys = ", ".join(one.key_id for one in self.ring.verifiers) or "none"
        found.lines = [
            f"keys        {keys}, {by_whom}",
            f"events      {found.events:,}: bodies agree with their columns",
            f"erased      {found.erased:,} texts, each by an erasure on record that two people stand for",
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
                raise Bad(Verdict.ALTERED, f"{self._span(tree)}: they are not those of the checkpoint from outside.")
            self._outside = None
        while self._stored is not None and self._stored[0] == tree.size:
            self._check_stored(root, tree)
            self._advance()
        self._before = tree.size

    def finish(self, tree: Frontier) -> None:
        """All leaves were seen: no checkpoint may be left that is not from outside."""
        if self._stored is not None:
            raise Bad(
                Verdict.ALTERED,
                f"There is a checkpoint of {self._stored[0]} leaves, the tree has {tree.size}: cut off.",
            )
        if tree.size != self._before and self._outside is None:
            raise Bad(Verdict.ALTERED, f"{self._span(tree)}: no checkpoint covers them.")

    def _check_stored(self, root: bytes, tree: Frontier) -> None:
        assert self._stored is not None
        size, stored_root, text = self._stored
        try:
            note = checkpoint_parse(text)
        except NoteError as error:
            raise Bad(Verdict.ALTERED, f"The checkpoint of size {size} is no signed note: {error}.") from error
        self._ring.signer(note)
        if note.size != size or root != note.root or stored_root != note.root:
            raise Bad(Verdict.ALTERED, f"{self._span(tree)}: their root is not the signed one.")
        self.count += 1

    def _span(self, tree: Frontier) -> str:
        return f"Leaves {self._before} to {tree.size - 1}"

    def _advance(self) -> None:
        self._stored = next(self._rows, None)


def _joined(tree: Frontier, block: Block, size: int) -> Frontier:
    """The tree with one more block: full, it is a single hash that merges to the left; the last one may be any size."""
    if block.count != size:
        return Frontier(tree.size + block.count, [*tree.hashes, *block.hashes])
    blocks = Frontier(tree.size // size, [*tree.hashes])
    blocks.append(block.hashes[0])
    return Frontier(blocks.size * size, blocks.hashes)
