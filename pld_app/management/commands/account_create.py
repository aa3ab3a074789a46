"""`manage.py account_create NAME --name "Full Name" --role ROLE [--domain DOMAIN]`: asks for the first password."""

from argparse import ArgumentParser
from getpass import getpass
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from pld_app.accounts import account_create
from pld_app.models import Domain, Role


class Command(BaseCommand):
    help = "Create an account, the first administrator above all; the password is asked for, never an argument."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", required=True, help="as it stands under decisions and signatures")
        parser.add_argument("--role", required=True, choices=Role.values)
        parser.add_argument("--domain", default="", choices=["", *Domain.values], help="for reviewers")
        parser.add_argument("--email", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        password = getpass("Password: ")
        if getpass("Again: ") != password:
            raise CommandError("The two differ. Nothing was changed.")
        try:
            validate_password(password)
            user = account_create(
                username=options["username"],
                display_name=options["name"],
                role=options["role"],
                domain=options["domain"],
                email=options["email"],
                password=password,
            )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        self.stdout.write(f"Created {user.display_name} ({user.get_role_display()}).")
