"""`manage.py audit_key create|rotate|revoke|list`: the key that signs the audit log's checkpoints."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from pld_app.transparency.key_file import KeyFault
from pld_app.transparency.keyring import KeyRefused
from pld_app.transparency.keys import key_create, key_records, key_revoke, key_rotate, keyring
from pld_app.transparency.locks import SealerBusy
from pld_app.transparency.note import NoteError


class Command(BaseCommand):
    help = "Make, replace, revoke or list the log's keys. Runs where PLD_AUDIT_KEY_FILE is, as the sealer's account."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="what", required=True, metavar="create|rotate|revoke|list")
        create = actions.add_parser("create", help="make the first key, in PLD_AUDIT_KEY_FILE")
        create.add_argument("--origin", required=True, help="the log's name, for example review.example.org/audit")
        actions.add_parser("rotate", help="replace it by a new key, which it signs")
        revoke = actions.add_parser("revoke", help="let a key count no longer")
        revoke.add_argument("key_id")
        revoke.add_argument("--reason", required=True)
        revoke.add_argument("--size", type=int, help="from this many sealed events on (default: as many as now)")
        actions.add_parser("list", help="all keys, one a line, to be pinned by those who verify")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['what']}")(options)
        except (KeyFault, SealerBusy, NoteError) as error:
            raise CommandError(str(error)) from error

    def _create(self, options: dict[str, Any]) -> None:
        key_create(origin=options["origin"])
        self._list(options)

    def _rotate(self, options: dict[str, Any]) -> None:
        key_rotate()
        self._list(options)

    def _revoke(self, options: dict[str, Any]) -> None:
        key_revoke(key_id=options["key_id"], reason=options["reason"], size=options["size"])
        self._list(options)

    def _list(self, _options: dict[str, Any]) -> None:
        try:
            keyring()
        except KeyRefused as error:
            raise CommandError(f"The history does not hold: {error}") from error
        for record in key_records():
            state = f"revoked at size {record.revocation.size}" if record.revocation else f"since size {record.size}"
            by = f"signed by {record.signed_by}" if record.signed_by else "signs itself"
            self.stdout.write(f"{record.verifier.vkey}  {by}, {state}")
