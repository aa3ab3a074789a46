"""What each role of the database may do with each table: tried for real, and as docs/governance.md says."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client

from pld_app.database.checks import check_session
from pld_app.database.grants import EXCEPTIONS, FREELY, Table, grant_statements, matrix, rights_wanted, tables
from pld_app.database.hooks import after_migrate
from pld_app.database.roles import APPLICATION, AUDITOR, MIGRATOR, OWNER, SEALER
from pld_app.database.session import Standing, application_faults, database_health, session_faults, standing
from pld_app.models import User
from tests.database_roles import as_owner, session_of

ROOT = Path(__file__).resolve().parents[2]
ROLES = (APPLICATION, SEALER, AUDITOR, MIGRATOR)
DENIED = "42501"  # insufficient_privilege
pytestmark = pytest.mark.usefixtures("roles")


def documented() -> dict[str, dict[str, str]]:
    """Rights in words by table and role, from the table in docs/governance.md; "every other table" is the default."""
    text = (ROOT / "docs" / "governance.md").read_text(encoding="utf-8").partition("\n## The statements")[0]
    rows = re.findall(r"^\| `?([\w ]+)`? \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    return {
        name: dict(zip((APPLICATION, SEALER, AUDITOR), map(str.strip, words), strict=True))
        for name, *words in rows
        if name != "Table"
    }


def documented_columns(words: str, table: Table) -> dict[str, frozenset[str]]:
    """Columns by privilege that the words grant; DELETE is of the whole row."""
    found: dict[str, frozenset[str]] = {}
    for privilege, left_out in re.findall(r"(select|insert|update|delete)(?: \(not ([^)]+)\))?", words):
        without = frozenset(left_out.split(", ")) if left_out else frozenset()
        unwritable = table.identity if privilege in {"insert", "update"} else frozenset()
        found[privilege.upper()] = frozenset(table.columns) - without - unwritable
    return found


def state_of(session: "psycopg.Connection[tuple[object, ...]]", statement: str) -> str:
    """The SQLSTATE with which the statement is refused, or "" when it is not. Nothing it does stays."""
    try:
        with session.transaction(force_rollback=True):
            session.execute(statement.encode())
    except psycopg.Error as error:
        return error.sqlstate or "?"
    return ""


@pytest.mark.django_db
def test_every_role_has_exactly_the_documented_rights_on_every_table() -> None:
    """Test 30: role x SELECT, INSERT, UPDATE, DELETE, TRUNCATE, ALTER, COPY PROGRAM x table, each statement run."""
    page, known, wrong = documented(), tables(connection), []
    assert len(known) > 30
    sessions = {role: session_of(role) for role in ROLES}
    for table in known:
        for role, session in sessions.items():
            words = page.get(table.name, page["every other table"]).get(role, "nothing")
            expected = documented_columns(words, table)
            for privilege, statement in statements(table, expected):
                refused = state_of(session, statement)
                if refused != ("" if privilege in expected else DENIED):
                    wrong.append(f"{role}: {statement}: {refused or 'allowed'}")
            wrong += column_faults(table, role, expected)
    for session in sessions.values():
        session.close()
    assert wrong == []


def statements(table: Table, expected: dict[str, frozenset[str]]) -> list[tuple[str, str]]:
    """A statement for each privilege; EXPLAIN checks rights as running does, and changes nothing."""
    name = f'public."{table.name}"'

    def column(privilege: str) -> str:
        allowed = expected.get(privilege) or frozenset(table.columns) - table.identity - table.primary_key
        return f'"{min(allowed or frozenset(table.columns))}"'

    return [
        ("SELECT", f"SELECT {column('SELECT')} FROM {name} LIMIT 0"),
        ("INSERT", f"EXPLAIN INSERT INTO {name} ({column('INSERT')}) VALUES (DEFAULT)"),
        ("UPDATE", f"EXPLAIN UPDATE {name} SET {column('UPDATE')} = DEFAULT"),
        ("DELETE", f"EXPLAIN DELETE FROM {name}"),
        ("TRUNCATE", f"TRUNCATE {name}"),
        ("TRUNCATE CASCADE", f"TRUNCATE {name} CASCADE"),
        ("ALTER", f"ALTER TABLE {name} ADD COLUMN mine int"),
        ("DROP", f"DROP TABLE {name} CASCADE"),
        ("TRIGGER", f"CREATE TRIGGER mine BEFORE INSERT ON {name} EXECUTE FUNCTION pld_refuse_change()"),
        ("REFERENCES", f"GRANT ALL ON {name} TO PUBLIC; ALTER TABLE {name} DISABLE TRIGGER ALL"),
        ("COPY PROGRAM", f"COPY {name} TO PROGRAM 'true'"),
        ("COPY FROM PROGRAM", f"COPY {name} FROM PROGRAM 'true'"),
    ]


def column_faults(table: Table, role: str, expected: dict[str, frozenset[str]]) -> list[str]:
    faults = []
    with connection.cursor() as cursor:
        for privilege in ("SELECT", "INSERT", "UPDATE", "REFERENCES"):
            query = "SELECT a FROM unnest(%s::text[]) a WHERE has_column_privilege(%s, %s, a, %s)"
            cursor.execute(query, [list(table.columns), role, f'public."{table.name}"', privilege])
            has = {str(row[0]) for row in cursor.fetchall()}
            if has != expected.get(privilege, frozenset()):
                differ = sorted(has ^ expected.get(privilege, frozenset()))
                faults.append(f"{role} {privilege} on {table.name}: differs in {', '.join(differ)}")
    return faults


@pytest.mark.django_db
def test_the_page_names_every_table_that_is_not_written_freely() -> None:
    """A new table that refuses change is documented; one that nothing protects needs no line."""
    page = documented()
    assert tuple(page["every other table"].values()) == FREELY
    special = [row for row in matrix(connection) if row[1:] != FREELY]
    missing = ["| `{}` | {} | {} | {} |".format(*row) for row in special if row[0] not in page]
    assert missing == [], "add to docs/governance.md (manage.py database_roles matrix):\n" + "\n".join(missing)
    assert set(page) - {"every other table"} == {row[0] for row in special}
    assert set(EXCEPTIONS) <= {table.name for table in tables(connection)}, "a deviation names a table that is gone"
    assert all(deviation.reason.endswith(".") for deviation in EXCEPTIONS.values())


@pytest.mark.django_db
def test_a_new_table_gets_its_rights_by_its_guards_and_without_being_listed() -> None:
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {OWNER}")
        cursor.execute(
            "CREATE TABLE made_today (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, word text, secret text)"
        )
        cursor.execute(
            "CREATE TRIGGER pld_append_only BEFORE UPDATE OR DELETE ON made_today"
            " FOR EACH ROW EXECUTE FUNCTION pld_refuse_change()"
        )
        after_migrate(using="default")
        made = next(table for table in tables(connection) if table.name == "made_today")
        cursor.execute("RESET ROLE")
    assert (
        dict(made.granted)
        == dict(rights_wanted(made))
        == {
            (APPLICATION, "SELECT"): None,
            (APPLICATION, "INSERT"): frozenset({"word", "secret"}),
            (AUDITOR, "SELECT"): frozenset({"id", "word"}),
        }
    )


@pytest.mark.django_db
def test_applied_again_nothing_changes() -> None:
    output = io.StringIO()
    with as_owner():
        call_command("database_roles", "apply", stdout=output)
    assert "rights were right already" in output.getvalue()


@pytest.mark.django_db
def test_surplus_rights_are_taken_back() -> None:
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {OWNER}")
        cursor.execute(f"GRANT ALL ON pld_app_auditevent TO {APPLICATION}; GRANT SELECT ON pld_app_user TO PUBLIC")
        cursor.execute(f"GRANT UPDATE (data) ON pld_app_auditevent TO {APPLICATION}, {SEALER}")
        cursor.execute(f"GRANT USAGE ON SEQUENCE pld_app_auditevent_id_seq TO {APPLICATION}")
        assert any("UPDATE" in fault for fault in application_faults(connection))
        after_migrate(using="default")
        assert grant_statements(connection) == []
        assert application_faults(connection) == []
        cursor.execute("RESET ROLE")


@pytest.mark.django_db
def test_the_migrator_has_nothing_but_the_owner_and_nobody_else_becomes_it() -> None:
    with session_of(MIGRATOR) as session:
        assert state_of(session, "SELECT FROM public.pld_app_user") == DENIED
        assert state_of(session, f"SET ROLE {OWNER}; ALTER TABLE pld_app_user ADD COLUMN mine int") == ""
        assert state_of(session, f"SET ROLE {APPLICATION}") == DENIED
    for role in (APPLICATION, SEALER, AUDITOR):
        with session_of(role) as session:
            for other in (OWNER, MIGRATOR, "postgres"):
                assert state_of(session, f"SET ROLE {other}") == DENIED
                assert state_of(session, f"SET SESSION AUTHORIZATION {other}") == DENIED
    found = standing(connection, OWNER)
    assert not found.is_superuser
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'pld\\_%%' AND rolcanlogin ORDER BY rolname", []
        )
        assert {APPLICATION, AUDITOR, MIGRATOR, SEALER} <= {row[0] for row in cursor.fetchall()}
        cursor.execute("SELECT rolcanlogin, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = %s", [OWNER])
        assert cursor.fetchone() == (False, False, False)


@pytest.mark.django_db
def test_the_auditor_reads_no_secret_and_writes_nothing() -> None:
    with session_of(AUDITOR) as session:
        for statement in (
            "SELECT password FROM pld_app_user",
            "SELECT * FROM pld_app_user",
            "SELECT FROM django_session",
            "SELECT digest FROM rules_prompttoken",
        ):
            assert state_of(session, statement) == DENIED, statement
        assert state_of(session, "SELECT username, role, is_active FROM pld_app_user") == ""
        assert state_of(session, "SELECT * FROM pld_app_auditevent") == ""


@pytest.mark.django_db
def test_the_application_owns_nothing_and_is_nothing_special() -> None:
    found = standing(connection, APPLICATION)
    assert found == Standing(found.session_role, APPLICATION, *[False] * 5)
    assert application_faults(connection) == []


class TestOneRole:
    """An installation that connects as the owner runs, and says what that means."""

    pytestmark = pytest.mark.django_db

    def test_it_is_named_on_the_health_page(self, client: Client, ada: User) -> None:
        with as_owner():
            client.force_login(ada)
            page = client.get("/health/")
            assert "One role for everything" in page.text
            assert "database_roles apply" in page.text

    def test_and_by_the_deployment_check(self) -> None:
        with as_owner():
            (warning,) = check_session(None)
        assert warning.id == "pld.W001"

    def test_with_the_applications_role_both_are_silent(self) -> None:
        with as_owner(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL ROLE {APPLICATION}")
            assert session_faults(connection) == []
            assert check_session(None) == []
            health = database_health(connection)
            cursor.execute("RESET ROLE")
        assert (health.faults, health.warnings) == ([], [])


@pytest.mark.django_db
def test_check_fails_and_names_what_is_wrong() -> None:
    output = io.StringIO()
    with as_owner():
        call_command("database_roles", "check", stdout=output)
        assert "as they should be" in output.getvalue()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"GRANT DELETE ON pld_app_auditevent TO {APPLICATION}")
            with pytest.raises(CommandError):
                call_command("database_roles", "check", stdout=output)
    assert 'REVOKE DELETE ON "public"."pld_app_auditevent"' in output.getvalue()


POPULATE = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from tests.factories import make_task, make_user
from tests.publishing import steps
people = [make_user("ana", "reviewer", "legal"), make_user("sam", "signatory"), make_user("sue", "signatory")]
steps.in_production(make_task(), *people)
"""
USE = """
import django; django.setup()
from django.db import connection
from pld_app.models import AuditEvent, User
from rules.models import Publication, Task
from tests.publishing import steps
assert Publication.objects.count() == 2 and AuditEvent.objects.count() > 5
people = [User.objects.get(username=name) for name in ("ana", "sam", "sue")]
steps.publish(steps.again(Task.objects.get(), *people), people[1])
with connection.cursor() as cursor:
    cursor.execute("SELECT session_user")
    print(cursor.fetchone()[0], Publication.objects.count())
"""


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_populated_database_of_one_role_is_upgraded_in_place() -> None:
    """The upgrade of docs/operations.md: apply on data of years, then migrate as migrator and work as application."""
    values = dict(connection.settings_dict)
    name, user = f"{values['NAME']}_upgrade", values["USER"]
    address = f"{values['HOST']}:{values['PORT']}/{name}"
    one_role = f"postgresql://{user}:{values['PASSWORD']}@{address}"

    def run(*command: str, **environment: str) -> str:
        given = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": one_role} | environment
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    connection.close()
    maintenance = psycopg.connect(
        host=values["HOST"],
        port=values["PORT"] or None,
        user=user,
        password=values["PASSWORD"] or None,
        dbname="postgres",
        autocommit=True,
    )
    with maintenance:
        maintenance.execute(f'DROP DATABASE IF EXISTS "{name}"'.encode())
        maintenance.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            run("-c", POPULATE)
            assert "rights changed" in run("manage.py", "database_roles", "apply")
            secret = f":{values['PASSWORD']}" if values["PASSWORD"] else ""
            migrator = {"PLD_MIGRATOR_DATABASE_URL": f"postgresql://{MIGRATOR}{secret}@{address}"}
            application = {"DATABASE_URL": f"postgresql://{APPLICATION}{secret}@{address}"}
            run("manage.py", "migrate", "--verbosity=0", **migrator, **application)
            assert "as they should be" in run("manage.py", "database_roles", "check", **migrator, **application)
            assert run("-c", USE, **application).split() == [APPLICATION, "3"]
        finally:
            maintenance.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
