"""`manage.py database_roles apply|check|sql|matrix`: the roles of the database and what each may do."""

import os
from argparse import ArgumentParser
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from pld_app.database.catalog import functions_pin, guard_faults
from pld_app.database.grants import FREELY, grant_statements, grants_apply, matrix
from pld_app.database.roles import APPLICATION, AUDITOR, MIGRATOR, OWNER, SEALER, cluster_apply, cluster_sql
from pld_app.database.session import application_faults, session_faults

_URLS = {
    APPLICATION: "DATABASE_URL",
    MIGRATOR: "PLD_MIGRATOR_DATABASE_URL",
    SEALER: "PLD_SEALER_DATABASE_URL",
    AUDITOR: "PLD_AUDITOR_DATABASE_URL",
}
_ADMIN_URL = "PLD_ADMIN_DATABASE_URL"


class Command(BaseCommand):
    help = (
        "apply: make the roles, hand everything over to their owner and give each its rights (again: mend them). "
        "check: compare guards and roles with what they should be; 1 when something is wrong. "
        "sql: print what apply would run. matrix: print what each role may do, the rows of docs/governance.md. "
        f"Making roles takes a superuser: name it in {_ADMIN_URL} for the time of the command."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["apply", "check", "sql", "matrix"])

    def handle(self, *, action: str, **_options: Any) -> None:
        {"apply": self._apply, "check": self._check, "sql": self._sql, "matrix": self._matrix}[action]()

    def _apply(self) -> None:
        if os.environ.get(_ADMIN_URL):
            with psycopg.connect(os.environ[_ADMIN_URL]) as admin:
                self._cluster(admin, passwords())
        else:
            with transaction.atomic():
                connection.ensure_connection()
                self._cluster(connection.connection, passwords() if self._session_makes_roles() else {})
        self.stdout.write("roles made, everything handed over to pld_owner")
        statements = self._as_owner()
        self.stdout.write(f"{len(statements)} rights changed" if statements else "rights were right already")

    def _cluster(self, session: "psycopg.Connection[Any]", given: dict[str, str]) -> None:
        try:
            cluster_apply(session, given)
        except psycopg.errors.InsufficientPrivilege as error:
            raise CommandError(f"This session may not do that ({error}): set {_ADMIN_URL}.") from error

    def _as_owner(self) -> list[str]:
        """Pin functions and give rights, acting as the owner: with a superuser's session or the migrator's."""
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_has_role(current_user, %s, 'MEMBER')", [OWNER])
            if not cursor.fetchone()[0]:
                raise CommandError("This session may not act as pld_owner: set PLD_MIGRATOR_DATABASE_URL.")
            cursor.execute(f"SET LOCAL ROLE {OWNER}")
            functions_pin(connection)
            statements = grants_apply(connection)
            cursor.execute("RESET ROLE")
        return statements

    def _session_makes_roles(self) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
            return bool(cursor.fetchone()[0])

    def _check(self) -> None:
        faults = [*guard_faults(connection), *application_faults(connection)]
        for fault in faults:
            self.stdout.write(f"fault: {fault}")
        if os.environ.get("PLD_MIGRATOR_DATABASE_URL"):  # then this session is the migrator's, which acts as the owner
            user = unquote(urlsplit(os.environ["DATABASE_URL"]).username or "")
            warnings = [] if user == APPLICATION else [f"DATABASE_URL connects as {user}, not as {APPLICATION}"]
        else:
            warnings = session_faults(connection)
        for warning in warnings:
            self.stdout.write(f"warning: {warning}")
        if faults:
            raise CommandError(f"{len(faults)} faults", returncode=1)
        self.stdout.write("guards and roles are as they should be")

    def _sql(self) -> None:
        self.stdout.write(cluster_sql())
        self.stdout.write("\n".join(f"{statement};" for statement in grant_statements(connection)))

    def _matrix(self) -> None:
        """The rows of the table in docs/governance.md: tables that are not written freely."""
        for row in matrix(connection):
            if row[1:] != FREELY:
                self.stdout.write("| `{}` | {} | {} | {} |".format(*row))


def passwords() -> dict[str, str]:
    """Passwords by role, from those of the connection URLs in the environment that name the role."""
    found = {}
    for role, name in _URLS.items():
        parts = urlsplit(os.environ.get(name, ""))
        if parts.password and unquote(parts.username or "") == role:
            found[role] = unquote(parts.password)
    return found
