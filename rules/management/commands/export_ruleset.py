"""Write a frozen ruleset with its signatures to standard output. The export is on the audit log."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from pld_app.errors import Refusal
from rules.models import Ruleset
from rules.services.exporting import ExportKind, ruleset_export


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="slug of the task")
        parser.add_argument("number", type=int, help="number of the ruleset")
        parser.add_argument("--format", choices=[kind.value for kind in ExportKind], default=ExportKind.JSON.value)

    def handle(self, *args: Any, **options: Any) -> None:
        rulesets = Ruleset.objects.select_related("task", "composed_by")
        ruleset = rulesets.filter(task__slug=options["task"], number=options["number"]).first()
        if ruleset is None:
            raise CommandError(f"There is no ruleset {options['number']} of {options['task']}.")
        try:
            export = ruleset_export(ruleset=ruleset, kind=ExportKind(options["format"]), actor=None)
        except Refusal as refusal:
            raise CommandError(str(refusal)) from refusal
        for chunk in export.chunks:
            self.stdout.write(chunk.decode() if isinstance(chunk, bytes) else chunk, ending="")
