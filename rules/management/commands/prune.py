"""`manage.py prune [--dry-run]`: remove texts whose retention period is over, or say what would be removed."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from rules.selectors.retention import drafts_past, prunable, sessions_past
from rules.services.pruning import prune


class Command(BaseCommand):
    help = "Remove texts of traces and raw replies past their retention period and under no hold; the record stays."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["dry_run"]:
            for one in prunable():
                what = f"texts of traces of {one.task.slug}" if one.task else "raw replies of models"
                self.stdout.write(f"{one.count:8,} {what} from before {one.cutoff:%Y-%m-%d}, ids {one.digest[:16]}")
            self.stdout.write(f"{sessions_past().count():8,} sessions that ended 30 days ago")
            self.stdout.write(f"{drafts_past().count():8,} drafts untouched for half a year")
            return
        for run in prune():
            what = f"texts of traces of {run.task.slug}" if run.task else "raw replies of models"
            self.stdout.write(f"{run.removed:8,} {what} removed, event {run.event_id}")
