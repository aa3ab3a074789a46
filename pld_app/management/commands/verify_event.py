"""`manage.py verify_event FILE --key KEY`: whether the event in a downloaded proof stands in the sealed log."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from pld_app.management.verifying import KEY_HELP, VerifyingCommand
from pld_app.transparency.event_proof import ProofRefused, proof_verify


class Command(VerifyingCommand):
    help = (
        "Verify a downloaded event without the database. Exit code 0: it stands in the log, 1: it does not, 64: usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="the proof of an event: /audit/<number>/proof.json")
        parser.add_argument("--key", type=Path, required=True, help=KEY_HELP)

    def handle(self, *args: Any, **options: Any) -> None:
        key = self.key_read(options["key"])
        try:
            text = options["file"].read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            self.usage(f"{options['file']} is no readable proof: {error}")
        try:
            body = proof_verify(text, key)
        except ProofRefused as refusal:
            self.stdout.write(f"{refusal}\nVERDICT     ALTERED")
            sys.exit(1)
        said = f"{body['actor']['name']} {body['action']} {body['object']['type']} {body['object']['label']}"
        self.stdout.write(f"event       {said}\nVERDICT     INTACT")
