"""`manage.py verify_export FILE --key PEM [--checkpoint FILE] [--json]`: whether a bundle is what was attested."""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, NoReturn

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.core.management.base import BaseCommand

from pld_app.transparency.note import NoteError, ParsedCheckpoint, Verifier, checkpoint_parse
from rules.export_bundle.verify import Report, bundle_verify

_USAGE = 64
_NOT_PROVED = "not proved that no later version exists; that the named people acted unobserved"


class Command(BaseCommand):
    help = (
        "Verify a bundle, without a database. Exit code 0: intact, 1: altered, 2: incomplete, 3: unknown or revoked "
        "key, 64: usage."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--key", type=Path, help="the log's public key you kept: PEM, or the line audit_key printed"
        )
        parser.add_argument("--checkpoint", type=Path, help="a checkpoint you kept: the log must begin with it")
        parser.add_argument("--json", action="store_true", help="the result as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["key"] is None:
            self._usage("Name the log's public key with --key: the one inside a bundle proves nothing about itself.")
        pinned = self._key(options["key"])
        outside = self._checkpoint(options["checkpoint"]) if options["checkpoint"] else None
        try:
            data = options["file"].read_bytes()
        except OSError as error:
            self._usage(f"{options['file']} cannot be read: {error.strerror}")
        report = bundle_verify(data, pinned=pinned, outside=outside)
        self.stdout.write(_as_json(report) if options["json"] else _as_text(report))
        if report.verdict:
            sys.exit(int(report.verdict))

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

    def _checkpoint(self, path: Path) -> ParsedCheckpoint:
        try:
            return checkpoint_parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeError, NoteError) as error:
            self._usage(f"{path} is no readable checkpoint: {error}")

    def _usage(self, why: str) -> NoReturn:
        self.stderr.write(why)
        sys.exit(_USAGE)


def _as_text(report: Report) -> str:
    lines = [*report.lines, report.fault] if report.fault else [*report.lines, _NOT_PROVED]
    return "\n".join([*lines, f"VERDICT    {report.verdict.name.replace('_', ' ')}"])


def _as_json(report: Report) -> str:
    said = {
        "verdict": report.verdict.name.lower(),
        "exit_code": int(report.verdict),
        "claims": report.lines,
        "fault": report.fault,
    }
    return json.dumps(said)
