"""Fixtures shared by all tests: accounts of each role, a task, and a client for each person."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management.commands import flush
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import Client

from pld_app.models import Domain, Role, User
from rules.models import Task
from tests import factories
from tests.database_roles import AS_APPLICATION, run_as_application

_APPEND_ONLY = """
SELECT format('ALTER TABLE %I {verb} TRIGGER %I', c.relname, t.tgname)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.tgname = 'pld_no_truncate'
"""


def _append_only_sql(connection: BaseDatabaseWrapper, verb: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(_APPEND_ONLY.replace("{verb}", verb))
        return [str(row[0]) for row in cursor.fetchall()]


@pytest.fixture(autouse=True, scope="session")
def _flush_may_truncate() -> Iterator[None]:
    """Tests with real transactions empty the tables afterwards, which our own triggers refuse to everybody else."""
    module: Any = flush  # the command's own name for the function is not in its stubs
    original = module.sql_flush

    def sql_flush(style: object, connection: BaseDatabaseWrapper, **options: object) -> list[str]:
        statements: list[str] = original(style, connection, **options)
        owner, back = (["RESET ROLE"], ["SET ROLE pld_app"]) if AS_APPLICATION else ([], [])
        return [
            *owner,
            *_append_only_sql(connection, "DISABLE"),
            *statements,
            *_append_only_sql(connection, "ENABLE ALWAYS"),
            *back,
        ]

    module.sql_flush = sql_flush
    yield
    module.sql_flush = original


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """The test database, with the application's rights where the run asks for it (tests/database_roles.py)."""
    if AS_APPLICATION:
        with django_db_blocker.unblock():
            run_as_application()


@pytest.fixture
def ana(db: None) -> User:
    """A reviewer in legal."""
    return factories.make_user("ana", Role.REVIEWER, Domain.LEGAL)


@pytest.fixture
def ben(db: None) -> User:
    """A reviewer in finance."""
    return factories.make_user("ben", Role.REVIEWER, Domain.FINANCE)


@pytest.fixture
def sam(db: None) -> User:
    """A signatory."""
    return factories.make_user("sam", Role.SIGNATORY)


@pytest.fixture
def sue(db: None) -> User:
    """Another signatory."""
    return factories.make_user("sue", Role.SIGNATORY)


@pytest.fixture
def abe(db: None) -> User:
    """An auditor."""
    return factories.make_user("abe", Role.AUDITOR)


@pytest.fixture
def ada(db: None) -> User:
    """An administrator."""
    return factories.make_user("ada", Role.ADMIN)


@pytest.fixture
def task(db: None) -> Task:
    return factories.make_task()


@pytest.fixture
def client_of() -> Callable[[User], Client]:
    """A browser in which this person is signed in."""

    def client_for(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return client_for
