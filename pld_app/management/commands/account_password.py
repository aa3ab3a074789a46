"""`manage.py account_password NAME`: set a new password; the account's sessions end."""

from argparse import ArgumentParser
from getpass import getpass
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from pld_app.accounts import account_set_password
from pld_app.models import User


class Command(BaseCommand):
    help = "Set an account's password."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError("There is no such account.")
        password = getpass("New password: ")
        try:
            validate_password(password, user)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        account_set_password(user_id=user.pk, password=password)
        self.stdout.write(f"Set the password of {user.display_name}.")
