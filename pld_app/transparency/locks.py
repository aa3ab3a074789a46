"""The two advisory locks of the log. Numbers are arbitrary and the same in migration 0004."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError, connection, transaction

FENCE = 5783748000  # shared by every event until its commit, taken alone for the sealer's look
SEALER = 5783748001  # held by the one process that seals, or changes keys
FENCE_WAIT_MS = 250


class SealerBusy(Exception):
    """Another process seals or changes keys at this moment."""


@contextmanager
def sealer_lock() -> Iterator[None]:
    """Be the only one that seals. Raises SealerBusy at once when somebody else is.

    A lock of the session: it ends with the connection, so that a killed sealer holds up nobody.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [SEALER])
        if not cursor.fetchone()[0]:
            raise SealerBusy("Another process is sealing the log or changing its key. Try again.")
    try:
        yield
    finally:
        if connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [SEALER])


def fenced_high() -> int | None:
    """The highest event id below which everything is committed or gone for ever; None when writers were in the way.

    Waits at most FENCE_WAIT_MS, since whoever writes an event meanwhile waits behind us.
    """
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{FENCE_WAIT_MS}ms"])
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [FENCE])
            # A statement of its own: its snapshot is younger than the lock.
            cursor.execute("SELECT coalesce(max(id), 0) FROM pld_app_auditevent")
            return int(cursor.fetchone()[0])
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != "55P03":  # lock_not_available
            raise
        return None
