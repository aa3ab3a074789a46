"""Several processes that verify blocks of the log at once, each with a connection that sees the same snapshot."""

import gc
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction

from pld_app.transparency.verify_block import Block, Part, block_verify

if TYPE_CHECKING:
    from pld_app.transparency.verify import Workers

_snapshot = ""
_parents: list[object] = []


@contextmanager
def pool(processes: int, snapshot: str) -> "Iterator[Workers]":
    """Workers that look at the exported snapshot; they end with the block of code."""
    # Forked: importing everything again would take each of them a second.
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, initializer=_start, initargs=(snapshot, connection.settings_dict["NAME"])) as workers:
        yield lambda parts: workers.imap(_verify, parts)


def _start(snapshot: str, database: str) -> None:
    global _snapshot  # noqa: PLW0603  # one value for the life of a worker
    _snapshot = snapshot
    # Rows are millions of tuples and no cycle, which would be looked for among them all the time.
    gc.disable()
    # The parent's connection is neither used nor closed here: it is set aside, and a new one is made when asked for.
    _parents.append(connections[DEFAULT_DB_ALIAS])
    del connections[DEFAULT_DB_ALIAS]
    connection.settings_dict["NAME"] = database


def _verify(part: Part) -> Block:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(f"SET TRANSACTION SNAPSHOT '{_snapshot}'")
        return block_verify(part)
