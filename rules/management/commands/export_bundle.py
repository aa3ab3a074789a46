"""Write the bundle that proves itself of a signed ruleset to a file. Runs where PLD_AUDIT_KEY_FILE is."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from pld_app.errors import Refusal
from pld_app.transparency.key_file import KeyFault
from pld_app.transparency.keys import signer_load
from pld_app.transparency.note import NoteError, ParsedCheckpoint, checkpoint_parse
from rules.export_bundle.pdf import ReportFault
from rules.models import Ruleset
from rules.services.bundles import NotYetSealed, bundle_export

_NOT_SEALED = 2


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="slug of the task")
        parser.add_argument("number", type=int, help="number of the ruleset")
        parser.add_argument("file", type=Path, help="the ZIP to write; an existing file is not overwritten")
        parser.add_argument(
            "--checkpoint", type=Path, help="a checkpoint the auditor kept: the bundle proves its growth"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        rulesets = Ruleset.objects.select_related("task")
        ruleset = rulesets.filter(task__slug=options["task"], number=options["number"]).first()
        if ruleset is None:
            raise CommandError(f"There is no ruleset {options['number']} of {options['task']}.")
        if options["file"].exists():
            raise CommandError(f"{options['file']} exists already.")
        try:
            path = options["checkpoint"]
            outside = checkpoint_parse(path.read_text(encoding="utf-8")) if path else None
            size = self._write(ruleset, options["file"], outside)
        except NotYetSealed as refusal:
            self.stderr.write(str(refusal))
            sys.exit(_NOT_SEALED)
        except (Refusal, KeyFault, ReportFault, NoteError, OSError, UnicodeError) as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(f"{options['file']}: {size} bytes")

    def _write(self, ruleset: Ruleset, path: Path, outside: ParsedCheckpoint | None) -> int:
        """Write the file whole or not at all; returns its bytes."""
        part = path.with_name(path.name + ".part")
        try:
            with part.open("xb") as to:
                bundle_export(ruleset=ruleset, signer=signer_load(), to=to, outside=outside)
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
        return path.stat().st_size
