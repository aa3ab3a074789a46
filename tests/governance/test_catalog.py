# ruff: noqa: E501  # a statement stays in one line
"""Test 31: the guards that stand are those of the migrations, and whatever a table's owner does to them is named."""

import io

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from pld_app.database.catalog import SEARCH_PATH, expected, functions_pin, guard_faults
from pld_app.models import User
from tests.database_roles import as_owner

pytestmark = pytest.mark.django_db


def test_every_guard_stands_as_the_migrations_made_it() -> None:
    assert guard_faults(connection) == []
    catalog = expected()
    # Read from the migrations, not from the database: an empty reading would find no fault in anything.
    assert {"pld_refuse_change", "pld_guard_decision", "pld_signatures_complete"} <= set(catalog.functions)
    assert ("pld_app_auditevent", "pld_no_truncate") in catalog.triggers
    assert len(catalog.triggers) >= 36
    assert all(guard.calls in catalog.functions for guard in catalog.triggers.values())


def test_the_reading_of_the_migrations_agrees_with_what_postgres_says() -> None:
    """Names found in another way, so that a statement the reading does not understand is noticed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE 'pld\\_%%'",
            [],
        )
        assert set(cursor.fetchall()) == set(expected().triggers)
        cursor.execute("SELECT proname FROM pg_proc WHERE proname LIKE 'pld\\_%%'", [])
        assert {row[0] for row in cursor.fetchall()} == set(expected().functions)


BODY = "RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$ BEGIN RETURN NEW; END $$"
DAMAGE = [
    ("ALTER TABLE pld_app_auditevent DISABLE TRIGGER pld_append_only", "pld_append_only on pld_app_auditevent is not enabled"),
    ("ALTER TABLE rules_release ENABLE TRIGGER pld_guard_release", "pld_guard_release on rules_release is not enabled"),
    ("ALTER TABLE rules_release ENABLE REPLICA TRIGGER pld_guard_release", "pld_guard_release on rules_release is not en"),
    ("DROP TRIGGER pld_no_truncate ON rules_decision", "trigger pld_no_truncate on rules_decision is missing"),
    (f"CREATE OR REPLACE FUNCTION pld_guard_signature() {BODY}", "function pld_guard_signature is not the one"),
    (f"CREATE OR REPLACE FUNCTION pld_refuse_change() {BODY}", "function pld_refuse_change is not the one"),
    ("ALTER FUNCTION pld_guard_signature() SECURITY DEFINER", "function pld_guard_signature is not the one"),
    ("ALTER FUNCTION pld_guard_signature() RESET search_path", "function pld_guard_signature has no fixed search path"),
    ("ALTER FUNCTION pld_guard_signature() SET search_path = pg_temp, public", "pld_guard_signature has no fixed"),
    ("DROP FUNCTION pld_guard_signature() CASCADE", "function pld_guard_signature is missing"),
    (
        "DROP TRIGGER pld_guard_release ON rules_release; CREATE TRIGGER pld_guard_release BEFORE INSERT ON rules_release"
        " FOR EACH ROW WHEN (false) EXECUTE FUNCTION pld_guard_release();"
        "ALTER TABLE rules_release ENABLE ALWAYS TRIGGER pld_guard_release",
        "trigger pld_guard_release on rules_release is not the one",
    ),
    (
        "DROP TRIGGER pld_append_only ON rules_decision; CREATE TRIGGER pld_append_only BEFORE DELETE ON rules_decision"
        " FOR EACH ROW EXECUTE FUNCTION pld_refuse_change();"
        "ALTER TABLE rules_decision ENABLE ALWAYS TRIGGER pld_append_only",
        "trigger pld_append_only on rules_decision is not the one",
    ),
    (
        "DROP TRIGGER pld_append_only ON rules_decision; CREATE TRIGGER pld_append_only BEFORE UPDATE OF note OR DELETE ON"
        " rules_decision FOR EACH ROW EXECUTE FUNCTION pld_refuse_change();"
        "ALTER TABLE rules_decision ENABLE ALWAYS TRIGGER pld_append_only",
        "trigger pld_append_only on rules_decision is not the one",
    ),
    (
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER aaa BEFORE INSERT ON pld_app_auditevent FOR EACH ROW EXECUTE FUNCTION swallow()",
        "trigger aaa on pld_app_auditevent is in no migration",
    ),
    (f"CREATE FUNCTION pld_other() {BODY}", "function pld_other is in no migration"),
    ("CREATE RULE gone AS ON INSERT TO pld_app_auditevent DO INSTEAD NOTHING", "pld_app_auditevent: has the rule gone"),
    ("ALTER TABLE rules_signature ENABLE ROW LEVEL SECURITY", "rules_signature: row security is on"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "named"), DAMAGE)
def test_damage_is_named_to_administrators_and_turns_health_to_503(
    client: Client, ada: User, damage: str, named: str
) -> None:
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(damage)
        faults = guard_faults(connection)
        assert any(named in fault for fault in faults), faults
        answer = client.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "a guard is disabled"})
        client.force_login(ada)
        page = client.get("/health/")
        assert page.status_code == 200
        assert named in page.text
        with pytest.raises(CommandError):
            call_command("database_roles", "check", stdout=io.StringIO())


def test_functions_get_their_search_path_when_migrating() -> None:
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("ALTER FUNCTION pld_guard_signature() RESET search_path")
        assert functions_pin(connection) == ["pld_guard_signature()"]
        assert functions_pin(connection) == []
        assert guard_faults(connection) == []
    assert SEARCH_PATH.endswith("pg_temp")
