"""Whether the guards that stand in the database are those of the migrations of this program, word for word.

The expected side is read from the SQL of the migrations themselves, so nothing has to be kept in step by hand. What a
table's owner can do is noticed here: a trigger disabled, dropped, replaced, given a condition, or one more beside ours
that swallows rows; a function whose body changed; row security and rules, which would hide or divert rows.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.special import RunSQL, SeparateDatabaseAndState
from django.utils.translation import gettext as _

SEARCH_PATH = "pg_catalog, public, pg_temp"
PREFIX = "pld_"

_FLAGS = re.IGNORECASE | re.DOTALL
_STATEMENTS = re.compile(
    r"""
      CREATE \s+ (?:OR \s+ REPLACE \s+)? FUNCTION \s+ (?:public\.)? (?P<function>\w+) \s* \(
        (?P<before> (?: (?! \bAS \s+ \$ ) . )*? ) \b AS \s+ (?P<tag> \$\w*\$) (?P<body> .*?) (?P=tag) (?P<after> [^;$]*)
    | CREATE \s+ (?:CONSTRAINT \s+)? TRIGGER \s+ (?P<trigger>\w+) \s+ (?P<timing>BEFORE|AFTER|INSTEAD \s+ OF) \s+
        (?P<events> [^;]*?) \s ON \s+ (?:public\.)? (?P<table>\w+) \s+ (?P<rest> [^;]*?)
        EXECUTE \s+ (?:FUNCTION|PROCEDURE) \s+ (?:public\.)? (?P<calls>\w+)
    | DROP \s+ FUNCTION \s+ (?:IF \s+ EXISTS \s+)? (?:public\.)? (?P<gone_function>\w+)
    | DROP \s+ TRIGGER \s+ (?:IF \s+ EXISTS \s+)? (?P<gone_trigger>\w+) \s+ ON \s+ (?:public\.)? (?P<gone_table>\w+)
    """,
    _FLAGS | re.VERBOSE,
)
_BITS = {"INSERT": 4, "DELETE": 8, "UPDATE": 16, "TRUNCATE": 32}
_ROW, _BEFORE = 1, 2


@dataclass(frozen=True)
class Guard:
    """A trigger: what it calls, when (the bits of pg_trigger.tgtype), and whether a condition or columns narrow it."""

    calls: str
    kind: int
    is_conditional: bool
    has_columns: bool


@dataclass
class Catalog:
    """Function bodies (SHA-256 and whether they run with their owner's rights) by name, triggers by table and name."""

    functions: dict[str, tuple[str, bool]] = field(default_factory=dict)
    triggers: dict[tuple[str, str], Guard] = field(default_factory=dict)


def _sql_of(operation: Operation) -> Iterator[str]:
    if isinstance(operation, SeparateDatabaseAndState):
        for inner in operation.database_operations:
            yield from _sql_of(inner)
    elif isinstance(operation, RunSQL):
        for part in [operation.sql] if isinstance(operation.sql, str) else operation.sql:
            yield part if isinstance(part, str) else str(part[0])


def _guard(found: re.Match[str]) -> Guard:
    events, rest = found["events"].upper(), found["rest"].upper()
    kind = sum(bit for word, bit in _BITS.items() if re.search(rf"\b{word}\b", events))
    kind |= _BEFORE if found["timing"].upper() == "BEFORE" else 0
    kind |= _ROW if re.search(r"FOR\s+(EACH\s+)?ROW", rest) else 0
    has_columns = re.search(r"UPDATE\s+OF\b", events) is not None
    return Guard(found["calls"].lower(), kind, re.search(r"\bWHEN\s*\(", rest) is not None, has_columns)


def _read(catalog: Catalog, statement: str) -> None:
    for found in _STATEMENTS.finditer(statement):
        if found["function"]:
            definer = "SECURITY DEFINER" in re.sub(r"\s+", " ", f"{found['before']} {found['after']}".upper())
            catalog.functions[found["function"].lower()] = (_sha256(found["body"]), definer)
        elif found["trigger"]:
            catalog.triggers[found["table"].lower(), found["trigger"].lower()] = _guard(found)
        elif found["gone_function"]:
            gone = found["gone_function"].lower()
            catalog.functions.pop(gone, None)
            if re.match(r"[^;]*\bCASCADE\b", statement[found.end() :], _FLAGS):
                for key in [key for key, guard in catalog.triggers.items() if guard.calls == gone]:
                    del catalog.triggers[key]
        else:
            catalog.triggers.pop((found["gone_table"].lower(), found["gone_trigger"].lower()), None)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=1)
def expected() -> Catalog:
    """Functions and triggers as the migrations of this program leave them."""
    loader = MigrationLoader(None)
    catalog, seen = Catalog(), set()
    for leaf in sorted(loader.graph.leaf_nodes()):
        for key in loader.graph.forwards_plan(leaf):
            if key not in seen:
                seen.add(key)
                for operation in loader.graph.nodes[key].operations:
                    for statement in _sql_of(operation):
                        _read(catalog, statement)
    return catalog


_TRIGGERS = """
SELECT c.relname, t.tgname, p.proname, t.tgtype::int, t.tgqual IS NOT NULL, t.tgattr::text <> '', t.tgenabled::text
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
 WHERE NOT t.tgisinternal AND c.relnamespace = 'public'::regnamespace
"""
_FUNCTIONS = """
SELECT p.proname, encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex'), p.prosecdef,
       coalesce('search_path=' || %s = ANY (p.proconfig), false)
  FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'pld\\_%%'
"""
_DIVERTED = """
SELECT c.relname, 'row security is on' FROM pg_class c
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relrowsecurity
UNION ALL SELECT c.relname, 'has the rule ' || r.rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
"""


def _trigger_faults(connection: BaseDatabaseWrapper) -> Iterator[str]:
    wanted = dict(expected().triggers)
    with connection.cursor() as cursor:
        cursor.execute(_TRIGGERS)
        rows = cursor.fetchall()
    for table, name, calls, kind, is_conditional, has_columns, enabled in rows:
        guard = wanted.pop((table, name), None)
        if guard is None:
            yield _("trigger %(name)s on %(table)s is in no migration") % {"name": name, "table": table}
        elif guard != Guard(calls, kind, is_conditional, has_columns):
            yield _("trigger %(name)s on %(table)s is not the one of the migrations") % {"name": name, "table": table}
        elif enabled != "A":
            yield _("trigger %(name)s on %(table)s is not enabled always") % {"name": name, "table": table}
    for table, name in sorted(wanted):
        yield _("trigger %(name)s on %(table)s is missing") % {"name": name, "table": table}


def _function_faults(connection: BaseDatabaseWrapper) -> Iterator[str]:
    wanted = dict(expected().functions)
    with connection.cursor() as cursor:
        cursor.execute(_FUNCTIONS, [SEARCH_PATH])
        rows = cursor.fetchall()
    for name, digest, is_definer, is_pinned in rows:
        known = wanted.pop(name, None)
        if known is None:
            yield _("function %(name)s is in no migration") % {"name": name}
        elif known != (digest, is_definer):
            yield _("function %(name)s is not the one of the migrations") % {"name": name}
        elif not is_pinned:
            yield _("function %(name)s has no fixed search path") % {"name": name}
    for name in sorted(wanted):
        yield _("function %(name)s is missing") % {"name": name}


def guard_faults(connection: BaseDatabaseWrapper) -> list[str]:
    """What deviates from the migrations, one line each, naming it; empty when every guard stands."""
    with connection.cursor() as cursor:
        cursor.execute(_DIVERTED)
        diverted = [
            _("table %(table)s: %(what)s") % {"table": table, "what": what} for table, what in cursor.fetchall()
        ]
    return sorted([*_trigger_faults(connection), *_function_faults(connection), *diverted])


_UNPINNED = """
SELECT p.oid::regprocedure::text FROM pg_proc p
 WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'pld\\_%%'
   AND NOT coalesce('search_path=' || %s = ANY (p.proconfig), false)
"""


def functions_pin(connection: BaseDatabaseWrapper) -> list[str]:
    """Fix the search path of every function of ours, so that no temporary table of a session stands in for a real one.

    Returns the functions that had none. The session acts as their owner.
    """
    with connection.cursor() as cursor:
        cursor.execute(_UNPINNED, [SEARCH_PATH])
        names = [str(row[0]) for row in cursor.fetchall()]
        for name in names:
            cursor.execute(f"ALTER FUNCTION {name} SET search_path = {SEARCH_PATH}")
    return names
