"""Several processes that verify blocks of the log at once, each with a connection that sees the same snapshot."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

import django
from django.db import connection, transaction

from pld_app.transparency.verify import Workers
from pld_app.transparency.verify_block import Block, Part, block_verify

_snapshot = ""


@contextmanager
def pool(processes: int, snapshot: str) -> Iterator[Workers]:
    """Workers that import the exported snapshot for each block; they end with the block of code."""
    # Spawned, not forked: a forked child would share this process's connection to the database.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=_start, initargs=(snapshot, connection.settings_dict["NAME"])) as workers:
        yield lambda parts: workers.imap(_verify, parts)


def _start(snapshot: str, database: str) -> None:
    global _snapshot  # noqa: PLW0603  # one value for the life of a worker
    django.setup()
    _snapshot = snapshot
    connection.settings_dict["NAME"] = database


def _verify(part: Part) -> Block:
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(f"SET TRANSACTION SNAPSHOT '{_snapshot}'")
        return block_verify(part)
