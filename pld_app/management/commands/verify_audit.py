"""`manage.py verify_audit [--checkpoint FILE] [--key PEM] [--json]`: whether the audit log is what it was."""

import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, NoReturn

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.core.management.base import BaseCommand

from pld_app.transparency.note import NoteError, ParsedCheckpoint, Verifier, checkpoint_parse
from pld_app.transparency.verify import Report, log_verify

_USAGE = 64


class Command(BaseCommand):
    help = (
        "Verify every event, chain, leaf and checkpoint. Exit code 0: intact, 1: altered, 2: incomplete or not yet "
        "sealed, 3: unknown or revoked key, 64: usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--checkpoint", type=Path, help="a checkpoint kept outside: the log must begin with it")
        parser.add_argument("--key", type=Path, help="the public key you kept: PEM, or the line audit_key printed")
        parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many share a long log")
        parser.add_argument("--json", action="store_true", help="the result as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        outside = self._checkpoint(options["checkpoint"]) if options["checkpoint"] else None
        pinned = self._key(options["key"]) if options["key"] else None
        report = log_verify(outside=outside, pinned=pinned, processes=options["processes"])
        self.stdout.write(_as_json(report) if options["json"] else _as_text(report))
        if report.verdict:
            sys.exit(int(report.verdict))

    def _checkpoint(self, path: Path) -> ParsedCheckpoint:
        try:
            return checkpoint_parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeError, NoteError) as error:
            self._usage(f"{path} is no readable checkpoint: {error}")

    def _key(self, path: Path) -> bytes:
        try:
            raw = path.read_bytes()
            if not raw.startswith(b"-----"):
                return Verifier.from_vkey(raw.decode().split()[0]).public_key
            key = serialization.load_pem_public_key(raw)
        except (OSError, ValueError, IndexError) as error:
            self._usage(f"{path} is no readable public key: {error}")
        if not isinstance(key, Ed25519PublicKey):
            self._usage(f"{path} holds no Ed25519 key")
        return key.public_bytes_raw()

    def _usage(self, why: str) -> NoReturn:
        self.stderr.write(why)
        sys.exit(_USAGE)


def _as_text(report: Report) -> str:
    lines = [*report.lines, report.first_bad] if report.first_bad else report.lines
    words = report.verdict.name.replace("_", " ")
    return "\n".join([*lines, f"VERDICT     {words}"])


def _as_json(report: Report) -> str:
    said = {
        "verdict": report.verdict.name.lower(),
        "exit_code": int(report.verdict),
        "first_bad": report.first_bad,
        "events": report.events,
        "sealed": report.sealed,
        "chains": report.chains,
        "checkpoints": report.checkpoints,
        "root": report.root,
    }
    return json.dumps(said)
