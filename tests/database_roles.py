"""The roles of an installation in the test database: sessions of each, and a run with the application's rights."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.core.management import call_command
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from pld_app.database.roles import APPLICATION

# `PLD_TEST_AS_APPLICATION=1 ./dev test` runs every test with the rights the application has in production.
AS_APPLICATION = os.environ.get("PLD_TEST_AS_APPLICATION", "") == "1"


def roles_apply() -> None:
    """Make the roles in the present test database, as `manage.py database_roles apply` does anywhere."""
    with connection.cursor() as cursor:
        # Longer than a session that another test left in a transaction is let live (pld_app.settings).
        cursor.execute("SHOW lock_timeout")
        before = cursor.fetchone()[0]
        cursor.execute("SELECT set_config('lock_timeout', '60s', false)")
        call_command("database_roles", "apply", stdout=io.StringIO())
        cursor.execute("SELECT set_config('lock_timeout', %s, false)", [before])


def become_application(sender: object, connection: BaseDatabaseWrapper, **_signal: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {APPLICATION}")


def run_as_application() -> None:
    """From now on every connection of the tests has the application's rights."""
    roles_apply()
    connection.close()
    connection_created.connect(become_application, dispatch_uid="tests.become_application")


@contextmanager
def as_owner() -> Iterator[None]:
    """For what a test does as the tables' owner, in a run with the application's rights."""
    with connection.cursor() as cursor:
        if AS_APPLICATION:
            cursor.execute("RESET ROLE")
        yield
        if AS_APPLICATION:
            cursor.execute(f"SET ROLE {APPLICATION}")


def session_of(role: str) -> "psycopg.Connection[tuple[object, ...]]":
    """A session of its own in the test database, signed in as this role. The tests' server knows one password."""
    values = connection.settings_dict
    return psycopg.connect(
        host=values["HOST"] or None,
        port=values["PORT"] or None,
        dbname=values["NAME"],
        user=role,
        password=values["PASSWORD"] or None,
        autocommit=True,
    )
