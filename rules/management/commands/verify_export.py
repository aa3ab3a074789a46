"""`manage.py verify_export FILE --key PEM [--checkpoint FILE] [--json]`: whether a bundle is what was attested."""

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from pld_app.management.verifying import KEY_HELP, VerifyingCommand
from rules.export_bundle.verify import Report, bundle_verify

_NOT_PROVED = "not proved that no later version exists; that the named people acted unobserved"


class Command(VerifyingCommand):
    help = (
        "Verify a bundle, without a database. Exit code 0: intact, 1: altered, 2: incomplete, 3: unknown or revoked "
        "key, 64: usage."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--key", type=Path, help=KEY_HELP)
        parser.add_argument("--checkpoint", type=Path, help="a checkpoint you kept: the log must begin with it")
        parser.add_argument("--json", action="store_true", help="the result as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["key"] is None:
            self.usage("Name the log's public key with --key: the one inside a bundle proves nothing about itself.")
        pinned = self.key_read(options["key"])
        outside = self.checkpoint_read(options["checkpoint"])
        try:
            with options["file"].open("rb") as source:
                report = bundle_verify(source, pinned=pinned, outside=outside)
        except OSError as error:
            self.usage(f"{options['file']} cannot be read: {error.strerror}")
        self.stdout.write(_as_json(report) if options["json"] else _as_text(report))
        if report.verdict:
            sys.exit(int(report.verdict))


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
