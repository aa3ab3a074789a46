"""Names of the database roles and the statements that make them; free of Django, since the embedded stack uses it."""

from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg import sql

OWNER = "pld_owner"
MIGRATOR = "pld_migrator"
APPLICATION = "pld_app"
SEALER = "pld_sealer"
AUDITOR = "pld_auditor"
# Those that sign in and have rights of their own; the migrator has none but to become the owner.
WORKING = (APPLICATION, SEALER, AUDITOR)

CLUSTER_SQL = Path(__file__).with_name("cluster.sql")


def cluster_sql() -> str:
    """What makes the roles and hands the database over to their owner: several statements, no parameters."""
    return CLUSTER_SQL.read_text(encoding="utf-8")


def cluster_apply(connection: psycopg.Connection[tuple[object, ...]], passwords: Mapping[str, str]) -> None:
    """Make the roles on this connection's server and database, with these passwords by role name.

    Raises psycopg.errors.InsufficientPrivilege when the session may not. A password travels as its SCRAM verifier.
    """
    connection.execute(cluster_sql().encode())
    for role, password in passwords.items():
        verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))
