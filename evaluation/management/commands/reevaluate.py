"""`manage.py reevaluate TASK`: ask the release in production (or --release V) again, within the task's budget."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from evaluation.models import Cause
from evaluation.services.reevaluation import reevaluation_start
from pld_app.errors import Refusal
from rules.models import ChannelName, Release, Task
from rules.selectors.publishing import current_release


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="slug of the task")
        parser.add_argument("--release", type=int, metavar="V", help="version; default: the one in production")

    def handle(self, *args: Any, **options: Any) -> None:
        task = Task.objects.filter(slug=options["task"]).first()
        if task is None:
            raise CommandError(f"There is no task {options['task']}.")
        release = _release(task, options["release"])
        try:
            started = reevaluation_start(release=release, cause=Cause.COMMAND)
        except Refusal as refusal:
            raise CommandError(str(refusal.user_message)) from refusal
        self.stdout.write(f"{task.slug}: {release} is evaluated again as evaluation {started.run.number}.")


def _release(task: Task, version: int | None) -> Release:
    if version is None:
        found = current_release(task, ChannelName.PRODUCTION)
        if found is None:
            raise CommandError("Production serves nothing. Name a release with --release.")
        return found
    named = Release.objects.select_related("task", "ruleset").filter(task=task, version=version).first()
    if named is None:
        raise CommandError(f"There is no release {version}.")
    return named
