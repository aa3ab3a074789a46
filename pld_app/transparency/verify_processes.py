"""Several processes that verify blocks of the log at once, each with a connection that sees the same snapshot.

Nothing of Django's models is imported at the top: a spawned process reads this module before it is set up.
"""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import django
from django.db import connection, transaction

if TYPE_CHECKING:
    from pld_app.transparency.verify import Workers
    from pld_app.transparency.verify_block import Block, Part

_snapshot = ""


@contextmanager
def pool(processes: int, snapshot: str) -> "Iterator[Workers]":
    """Workers that look at the exported snapshot; they end with the block of code."""
    # Spawned, not forked: a forked child would share this process's connection to the database.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=_start, initargs=(snapshot, connection.settings_dict["NAME"])) as workers:
        yield lambda parts: workers.imap(_verify, parts)


def _start(snapshot: str, database: str) -> None:
    global _snapshot  # noqa: PLW0603  # one value for the life of a worker
    django.setup()
    _snapshot = snapshot
    connection.settings_dict["NAME"] = database


def _verify(part: "Part") -> "Block":
    from pld_app.transparency.verify_block import block_verify  # noqa: PLC0415  # after the set-up

    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(f"SET TRANSACTION SNAPSHOT '{_snapshot}'")
        return block_verify(part)
