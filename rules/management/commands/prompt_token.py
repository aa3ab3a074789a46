"""Make a bearer token for the student's service of a task and print it: this is the only time it is shown."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from pld_app.errors import Refusal
from pld_app.models import Role, User
from rules.models import Task
from rules.services.tokens import token_create


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="slug of the task")
        parser.add_argument("--name", required=True, help="what the token is for, e.g. the name of the service")
        parser.add_argument("--by", help="user name of the administrator who answers for it (default: the first one)")

    def handle(self, *args: Any, **options: Any) -> None:
        task = Task.objects.filter(slug=options["task"]).first()
        if task is None:
            raise CommandError(f"There is no task {options['task']}.")
        admins = User.objects.filter(role=Role.ADMIN, is_active=True).order_by("pk")
        admin = (admins.filter(username=options["by"]) if options["by"] else admins).first()
        if admin is None:
            raise CommandError("There is no such active administrator. Create one or name one with --by.")
        try:
            _token, secret = token_create(task=task, name=options["name"], actor=admin)
        except Refusal as refusal:
            raise CommandError(str(refusal)) from refusal
        self.stdout.write(secret)
