"""A migrated database for each benchmark, copied from one template and dropped at the end."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from pld_app.devstack import paths


def _renamed(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _execute(url: str, statement: str, *names: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def _database(url: str, statement: str, *names: str) -> Iterator[str]:
    """A database of a new name; yields its URL."""
    name = f"pld_bench_{secrets.token_hex(4)}"
    _execute(url, statement, name, *names)
    try:
        yield _renamed(url, name)
    finally:
        try:  # this ends an autovacuum at work there, which only a superuser may end by force
            _execute(url, "DROP DATABASE IF EXISTS {}", name)
        except psycopg.errors.ObjectInUse:
            _execute(url, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


@contextmanager
def template_database(url: str) -> Iterator[str]:
    """A migrated, empty database on the server of `url`, whose own database stays untouched; yields its URL."""
    with _database(url, "CREATE DATABASE {}") as template:
        environment = os.environ | {"DATABASE_URL": template, "DJANGO_SETTINGS_MODULE": "tests.bench.settings"}
        migrate = [sys.executable, "manage.py", "migrate", "--noinput", "--verbosity", "0"]
        subprocess.run(migrate, cwd=paths.ROOT, env=environment, check=True, stdout=sys.stderr)
        yield template


@contextmanager
def copied_database(template: str) -> Iterator[str]:
    """A copy of the template; yields its URL."""
    name = urlsplit(template).path.lstrip("/")
    with _database(_renamed(template, "postgres"), "CREATE DATABASE {} TEMPLATE {}", name) as url:
        yield url
