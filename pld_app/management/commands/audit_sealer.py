"""`manage.py audit_sealer [--once]`: the process that seals the audit log, with key and database role of its own."""

import signal
import sys
import time
from argparse import ArgumentParser
from types import FrameType
from typing import Any, NoReturn

import psycopg
import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from pld_app.transparency.copies import sinks_configured
from pld_app.transparency.key_file import KeyFault
from pld_app.transparency.keys import key_ensure
from pld_app.transparency.locks import SealerBusy
from pld_app.transparency.note import NoteError
from pld_app.transparency.rounds import Round, seal_round
from pld_app.transparency.sealing import Blocked

log = structlog.get_logger(__name__)
CHANNEL = "pld_audit_seal"
_AFTER_FAULT_S = 5.0
_HELD_UP_S = 1.0


class Command(BaseCommand):
    help = "Seal the audit log every PLD_AUDIT_SEAL_S seconds (10) and as soon as something is published or exported."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--origin", default="", help="make the key first if the log has none; the log's name")
        parser.add_argument("--once", action="store_true", help="one round; exit code 1 if it did not get everything")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["origin"]:
            try:
                key_ensure(options["origin"])
            except (KeyFault, SealerBusy, NoteError) as error:
                raise CommandError(str(error)) from error
        if options["once"]:
            self._once()
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)
        while True:
            _wait(_attempt())

    def _once(self) -> None:
        try:
            done = seal_round(sinks_configured())
        except (KeyFault, SealerBusy, Blocked) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{done.sealed.added} events sealed, {done.sealed.size} in all.")
        if not done.is_current:
            raise CommandError("Not everything is sealed and copied yet: see the log of this command.")


def _attempt() -> float:
    """One round; returns how long to wait for the next. After a fault it is tried again: the sealer never gives up."""
    try:
        done: Round = seal_round(sinks_configured())
    except (KeyFault, SealerBusy, Blocked) as error:
        log.error("audit.not_sealed", cause=type(error).__name__, error=str(error))
        return settings.AUDIT_SEAL_S
    except (DatabaseError, psycopg.Error) as error:
        log.warning("audit.database_away", error=str(error))
        connection.close()
        return _AFTER_FAULT_S
    if done.sealed.added:
        log.info("audit.sealed", added=done.sealed.added, size=done.sealed.size)
    return _HELD_UP_S if done.sealed.is_held_up else settings.AUDIT_SEAL_S


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """End at once, also in the middle of a round: what is not committed is sealed by the next start."""
    sys.exit(0)


def _wait(seconds: float) -> None:
    """Until the time is up or somebody asks for a seal."""
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        for _asked in connection.connection.notifies(timeout=seconds, stop_after=1):
            return
    except (DatabaseError, psycopg.Error):
        connection.close()
        time.sleep(seconds)
