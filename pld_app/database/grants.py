"""What each database role may do with each table: derived from the tables and their guards, not listed table by table.

A table that refuses change (trigger pld_append_only) is read and added to by the application, one that refuses deletion
(pld_no_delete) changed too, every other written freely. Rows get their identity from the database alone: identity
columns are in no INSERT or UPDATE. What deviates stands in EXCEPTIONS with its reason. A new table needs no line here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from psycopg import sql

from pld_app.database.roles import APPLICATION, AUDITOR, MIGRATOR, OWNER, SEALER, WORKING

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")
# The key of a right: role, then privilege. Its value: the columns it covers, or None for the whole table.
type Rights = Mapping[tuple[str, str], frozenset[str] | None]
type Row = tuple[Any, ...]  # what a catalogue query returns

# An auditor reads everything but what would let a reader of it act as somebody.
_SECRET = re.compile(r"(^|_)(password|secret|token|session|encrypted|ciphertext|private)(_|$)|^digest$|code_hash")
_READ = frozenset({"SELECT"})
_ADD = frozenset({"SELECT", "INSERT"})
_CHANGE = frozenset({"SELECT", "INSERT", "UPDATE"})
_SEAL = "Sealed by its own process: the application must not be able to forge a seal."


@dataclass(frozen=True)
class Deviation:
    """How a table differs from what its guards say, and why. None: as derived."""

    reason: str
    application: frozenset[str] | None = None
    sealer: frozenset[str] = frozenset()
    fixed_columns: frozenset[str] = frozenset()  # written when a row is made, never after
    hidden_from_auditor: bool = False


EXCEPTIONS: dict[str, Deviation] = {
    "django_migrations": Deviation("Only migrating changes what was migrated.", application=_READ),
    "django_content_type": Deviation("Filled by migrating.", application=_READ),
    "auth_permission": Deviation("Django's own permissions: filled by migrating, used by nothing.", application=_READ),
    "auth_group": Deviation("Django's own groups: used by nothing.", application=_READ),
    "auth_group_permissions": Deviation("Django's own groups: used by nothing.", application=_READ),
    "pld_app_user": Deviation(
        "An account keeps its name: what it did stays under it. Its role changes under a guard of its own.",
        fixed_columns=frozenset({"username", "is_shared", "created_at"}),
    ),
    "pld_app_auditevent": Deviation("The sealer reads what it seals and records changes of its key.", sealer=_ADD),
    "pld_app_auditchain": Deviation("Heads of chains move by the trigger of an event alone.", application=_READ),
    "pld_app_sealedleaf": Deviation(_SEAL, application=_READ, sealer=_ADD),
    "pld_app_sealednode": Deviation(_SEAL, application=_READ, sealer=_ADD),
    "pld_app_checkpoint": Deviation(_SEAL, application=_READ, sealer=_ADD),
    "pld_app_checkpointcopy": Deviation(_SEAL, application=_READ, sealer=_ADD),
    "pld_app_auditkey": Deviation(_SEAL, application=_READ, sealer=_ADD),
    "pld_app_auditkeyrevocation": Deviation(_SEAL, application=_READ, sealer=_ADD),
    "pld_app_auditsink": Deviation("Where copies go, and how that went.", application=_READ, sealer=_CHANGE),
    "pld_app_auditalarm": Deviation("Raised and cleared where the seal is made.", application=_READ, sealer=_ADD),
    "rules_bundlerequest": Deviation("The sealer signs what it has checked of a request.", sealer=_READ),
    "rules_bundlesignature": Deviation(_SEAL, application=_READ, sealer=_ADD),
    "django_session": Deviation("Whoever reads a session acts as its person.", hidden_from_auditor=True),
    "pld_app_usersession": Deviation("Whoever reads a session acts as its person.", hidden_from_auditor=True),
}


@dataclass(frozen=True)
class Table:
    """A table of schema public as the catalogue knows it."""

    name: str
    columns: tuple[str, ...]
    identity: frozenset[str]
    primary_key: frozenset[str]
    is_append_only: bool
    refuses_delete: bool
    granted: Rights = field(default_factory=dict)


_TABLES = """
SELECT c.relname,
       array_agg(a.attname::text ORDER BY a.attnum),
       coalesce(array_agg(a.attname::text) FILTER (WHERE a.attidentity <> '' OR a.attgenerated <> ''), '{}'),
       coalesce(array_agg(a.attname::text) FILTER (WHERE a.attnum = ANY (i.indkey)), '{}'),
       EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'pld_append_only'),
       EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'pld_no_delete')
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
 GROUP BY c.oid ORDER BY c.relname
"""
# Whatever anybody but the owner has of our tables and sequences; column is '' for the whole.
_GRANTED = """
SELECT c.relname, g.privilege_type, '', coalesce(r.rolname::text, 'PUBLIC'), c.relkind::text
  FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
 WHERE c.relnamespace = 'public'::regnamespace AND g.grantee <> c.relowner
UNION ALL
SELECT c.relname, g.privilege_type, a.attname, coalesce(r.rolname::text, 'PUBLIC'), c.relkind::text
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
 CROSS JOIN LATERAL aclexplode(a.attacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
 WHERE c.relnamespace = 'public'::regnamespace AND g.grantee <> c.relowner
"""
# Functions that run with their owner's rights are for the application alone; trigger functions nobody calls.
_DEFINER_FUNCTIONS = """
SELECT p.oid::regprocedure::text, has_function_privilege(%s, p.oid, 'EXECUTE'),
       p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) g WHERE g.grantee NOT IN (p.proowner, %s::regrole))
  FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef AND p.prorettype <> 'trigger'::regtype
"""


def _application_rights(table: Table) -> Iterator[tuple[str, frozenset[str] | None]]:
    deviation = EXCEPTIONS.get(table.name)
    may = {"SELECT", "INSERT"}
    if not table.is_append_only:
        may.add("UPDATE")
        if not table.refuses_delete:
            may.add("DELETE")
    if deviation and deviation.application is not None:
        may = set(deviation.application)
    fixed = table.identity | table.primary_key | (deviation.fixed_columns if deviation else frozenset())
    columns = {"INSERT": frozenset(table.columns) - table.identity, "UPDATE": frozenset(table.columns) - fixed}
    for privilege in sorted(may):
        covered = columns.get(privilege)
        if covered is None or covered:
            yield privilege, covered


def _auditor_columns(table: Table) -> frozenset[str] | None:
    """The columns an auditor reads; None is all of them, an empty set none."""
    deviation = EXCEPTIONS.get(table.name)
    if deviation and deviation.hidden_from_auditor:
        return frozenset()
    open_ = frozenset(column for column in table.columns if not _SECRET.search(column))
    return None if len(open_) == len(table.columns) else open_


def rights_wanted(table: Table) -> Rights:
    """What each working role should have of this table."""
    rights: dict[tuple[str, str], frozenset[str] | None] = {}
    for privilege, columns in _application_rights(table):
        rights[APPLICATION, privilege] = columns
    readable = _auditor_columns(table)
    if readable is None or readable:
        rights[AUDITOR, "SELECT"] = readable
    deviation = EXCEPTIONS.get(table.name)
    for privilege in sorted(deviation.sealer if deviation else ()):
        covered = {
            "INSERT": frozenset(table.columns) - table.identity,
            "UPDATE": frozenset(table.columns) - table.identity,
        }
        rights[SEALER, privilege] = covered.get(privilege)
    return rights


def _rows(cursor: CursorWrapper, query: str, values: Sequence[str | list[str]] = ()) -> list[Row]:
    cursor.execute(query, values)
    rows: list[Row] = cursor.fetchall()
    return rows


def tables(connection: BaseDatabaseWrapper) -> list[Table]:
    """Every table and view of the schema with what is granted on it, by name."""
    with connection.cursor() as cursor:
        granted: dict[str, dict[tuple[str, str], frozenset[str] | None]] = {}
        for name, privilege, column, role, kind in _rows(cursor, _GRANTED):
            if kind == "S":
                continue
            rights = granted.setdefault(str(name), {})
            key = (str(role), str(privilege))
            if not column:
                rights[key] = None
            elif rights.get(key, frozenset()) is not None:
                rights[key] = (rights.get(key) or frozenset()) | {str(column)}
        return [
            Table(
                name=str(name),
                columns=tuple(columns),
                identity=frozenset(identity),
                primary_key=frozenset(primary_key),
                is_append_only=bool(append_only),
                refuses_delete=bool(no_delete),
                granted=granted.get(str(name), {}),
            )
            for name, columns, identity, primary_key, append_only, no_delete in _rows(cursor, _TABLES)
        ]


def _statement(verb: str, role: str, privilege: str, columns: frozenset[str] | None, table: str) -> str:
    listed = (
        sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, sorted(columns)))) if columns else sql.SQL("")
    )
    return (
        sql.SQL("{} {}{} ON {} {} {}")
        .format(
            sql.SQL(verb),
            sql.SQL(privilege),
            listed,
            sql.Identifier("public", table),
            sql.SQL("TO" if verb == "GRANT" else "FROM"),
            sql.SQL(role) if role == "PUBLIC" else sql.Identifier(role),
        )
        .as_string()
    )


def _table_statements(table: Table) -> Iterator[str]:
    wanted = rights_wanted(table)
    for (role, privilege), columns in sorted(table.granted.items()):
        keep = wanted.get((role, privilege), frozenset())
        if columns is None and keep is not None:
            yield _statement("REVOKE", role, privilege, None, table.name)
        elif columns is not None and keep is not None and columns - keep:
            yield _statement("REVOKE", role, privilege, columns - keep, table.name)
        elif columns is not None and keep is None:
            yield _statement("REVOKE", role, privilege, columns, table.name)
    for (role, privilege), needed in sorted(wanted.items()):
        has = table.granted.get((role, privilege), frozenset())
        if needed is None:
            if has is not None:
                yield _statement("GRANT", role, privilege, None, table.name)
        elif has is None or needed - has:
            yield _statement("GRANT", role, privilege, needed if has is None else needed - has, table.name)


def grant_statements(connection: BaseDatabaseWrapper) -> list[str]:
    """What has to be said so that every role has exactly its rights; empty when that is so already."""
    statements = [statement for table in tables(connection) for statement in _table_statements(table)]
    with connection.cursor() as cursor:
        for name, privilege, _column, role, kind in _rows(cursor, _GRANTED):
            if kind == "S":  # identity columns need no right on their sequence, and nobody else counts
                statements.append(
                    sql.SQL("REVOKE {} ON SEQUENCE {} FROM {}")
                    .format(
                        sql.SQL(str(privilege)),
                        sql.Identifier("public", str(name)),
                        sql.SQL("PUBLIC") if role == "PUBLIC" else sql.Identifier(str(role)),
                    )
                    .as_string()
                )
        for signature, has, others_have in _rows(cursor, _DEFINER_FUNCTIONS, [APPLICATION, APPLICATION]):
            if others_have:
                others = ", ".join(["PUBLIC", MIGRATOR, SEALER, AUDITOR])
                statements.append(f"REVOKE ALL ON FUNCTION {signature} FROM {others}")
            if others_have or not has:
                statements.append(f"GRANT EXECUTE ON FUNCTION {signature} TO {APPLICATION}")
    return statements


def roles_exist(connection: BaseDatabaseWrapper) -> bool:
    with connection.cursor() as cursor:
        (row,) = _rows(cursor, "SELECT count(*) FROM pg_roles WHERE rolname = ANY (%s)", [[OWNER, MIGRATOR, *WORKING]])
    return bool(row[0] == len(WORKING) + 2)


def grants_apply(connection: BaseDatabaseWrapper) -> list[str]:
    """Give every role exactly its rights; returns the statements that were needed. The session acts as the owner."""
    statements = grant_statements(connection)
    if statements:
        with connection.cursor() as cursor:
            cursor.execute(";\n".join(statements))
    return statements


# What application, sealer and auditor have of a table that no guard protects.
FREELY = ("select, insert, update, delete", "nothing", "select")


def matrix(connection: BaseDatabaseWrapper) -> list[tuple[str, str, str, str]]:
    """(table, application, sealer, auditor) in words, as derived: the table of docs/governance.md."""

    def words(table: Table, role: str) -> str:
        rights = rights_wanted(table)
        names = []
        for privilege in PRIVILEGES:
            if (role, privilege) not in rights:
                continue
            columns = rights[role, privilege]
            left_out = sorted(set(table.columns) - table.identity - columns) if columns is not None else []
            names.append(privilege.lower() + (f" (not {', '.join(left_out)})" if left_out else ""))
        return ", ".join(names) or "nothing"

    return [(one.name, words(one, APPLICATION), words(one, SEALER), words(one, AUDITOR)) for one in tables(connection)]
