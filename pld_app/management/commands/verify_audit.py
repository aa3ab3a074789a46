"""`manage.py verify_audit [--checkpoint FILE] [--key PEM] [--json]`: whether the audit log is what it was."""

import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from pld_app.management.verifying import KEY_HELP, VerifyingCommand
from pld_app.transparency.verify import Report, log_verify


class Command(VerifyingCommand):
    help = (
        "Verify every event, chain, leaf and checkpoint. Exit code 0: intact, 1: altered, 2: incomplete or not yet "
        "sealed, 3: unknown or revoked key, 64: usage."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--checkpoint", type=Path, help="a checkpoint kept outside: the log must begin with it")
        parser.add_argument("--key", type=Path, help=KEY_HELP)
        parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many share a long log")
        parser.add_argument("--json", action="store_true", help="the result as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        outside = self.checkpoint_read(options["checkpoint"])
        pinned = self.key_read(options["key"]) if options["key"] else None
        report = log_verify(outside=outside, pinned=pinned, processes=options["processes"])
        self.stdout.write(_as_json(report) if options["json"] else _as_text(report))
        if report.verdict:
            sys.exit(int(report.verdict))


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
        "erased": report.erased,
        "root": report.root,
    }
    return json.dumps(said)
