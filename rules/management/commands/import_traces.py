"""`manage.py import_traces TASK FILE`: import a trace file here and now, with its progress on standard error."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.files import File
from django.core.management.base import BaseCommand, CommandError

from pld_app.errors import Refusal
from pld_app.models import Role, User
from rules.models import ImportState, Task, TraceImport
from rules.services.imports import import_create, import_read_now

SHOWN_REJECTS = 10


class Command(BaseCommand):
    help = "Import a trace.v1 file (JSON Lines or CSV, plain or gzipped) into a task. Exit 1 when it cannot be read."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="slug of the task")
        parser.add_argument("file", type=Path)
        parser.add_argument("--user", default="", metavar="NAME", help="the administrator in whose name this is done")

    def handle(self, *_args: Any, **options: Any) -> None:
        task = Task.objects.filter(slug=options["task"]).first()
        if task is None:
            raise CommandError(f"There is no task {options['task']}. Make one with task_create or on the site.")
        made = self._create(task, options["file"], _administrator(options["user"]))
        done = import_read_now(made, watch=self._progress)
        self._report(done)
        if done.state != ImportState.SUCCEEDED:
            raise CommandError(done.error or "Reading stopped; a worker will go on with it.")

    def _create(self, task: Task, path: Path, user: User | None) -> TraceImport:
        try:
            with path.open("rb") as stream:
                return import_create(task=task, upload=File(stream), file_name=path.name, user=user)
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror or error}.") from error
        except Refusal as refusal:
            raise CommandError(str(refusal.user_message)) from refusal

    def _progress(self, trace_import: TraceImport) -> None:
        percent = 100 * trace_import.bytes_read // trace_import.file_bytes
        rows = trace_import.rows_new + trace_import.rows_unchanged + trace_import.rows_rejected
        self.stderr.write(f"{percent:3d} %  {rows} rows")

    def _report(self, done: TraceImport) -> None:
        for reject in done.rejects.all()[:SHOWN_REJECTS]:
            self.stderr.write(f"line {reject.line}: {reject.reason}. {reject.message}")
        if done.rows_rejected > SHOWN_REJECTS:
            self.stderr.write(f"... and {done.rows_rejected - SHOWN_REJECTS} more, listed on the page of this import")
        self.stdout.write(f"{done.rows_new} new, {done.rows_unchanged} unchanged, {done.rows_rejected} rejected")


def _administrator(name: str) -> User | None:
    """The account of this name; None (the system itself) when no name was given."""
    if not name:
        return None
    user = User.objects.filter(username=name, is_active=True, role=Role.ADMIN).first()
    if user is None:
        raise CommandError(f"{name} is no active administrator; only they import.")
    return user
