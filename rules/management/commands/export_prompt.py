"""Write the prompt a channel serves to standard output, byte for byte."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from pld_app.canonical import sha256_hex
from rules.models import ChannelName, Task
from rules.selectors.publishing import current_release


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="slug of the task")
        parser.add_argument("--channel", choices=ChannelName.values, default=ChannelName.PRODUCTION.value)

    def handle(self, *args: Any, **options: Any) -> None:
        task = Task.objects.filter(slug=options["task"]).first()
        if task is None:
            raise CommandError(f"There is no task {options['task']}.")
        release = current_release(task, options["channel"])
        if release is None:
            raise CommandError(f"Nothing valid is published to {options['channel']} of {task.slug}.")
        if sha256_hex(release.prompt) != release.prompt_sha256:
            raise CommandError(f"The stored prompt of release {release} is not the signed one. Nothing was written.")
        self.stdout.write(release.prompt, ending="")
