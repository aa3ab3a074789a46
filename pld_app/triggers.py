"""SQL for rows that never change: used by migrations, so that every app refuses in the same words."""

from django.db.migrations.operations.special import RunSQL

# pg_temp last: a session's temporary table must not stand in for the table a guard means to read.
_SEARCH_PATH = "SET search_path = pg_catalog, public, pg_temp"

_FUNCTION = f"""
CREATE OR REPLACE FUNCTION pld_refuse_change() RETURNS trigger LANGUAGE plpgsql {_SEARCH_PATH} AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;
"""


def append_only_function() -> RunSQL:
    """Create the function behind `append_only`."""
    return RunSQL(_FUNCTION, "DROP FUNCTION IF EXISTS pld_refuse_change() CASCADE;")


def append_only(table: str) -> RunSQL:
    """Refuse UPDATE, DELETE and TRUNCATE on `table`, whatever session_replication_role says (ENABLE ALWAYS)."""
    return RunSQL(
        f"""
        CREATE TRIGGER pld_append_only BEFORE UPDATE OR DELETE ON {table}
          FOR EACH ROW EXECUTE FUNCTION pld_refuse_change();
        CREATE TRIGGER pld_no_truncate BEFORE TRUNCATE ON {table}
          FOR EACH STATEMENT EXECUTE FUNCTION pld_refuse_change();
        ALTER TABLE {table} ENABLE ALWAYS TRIGGER pld_append_only;
        ALTER TABLE {table} ENABLE ALWAYS TRIGGER pld_no_truncate;
        """,
        f"DROP TRIGGER pld_append_only ON {table}; DROP TRIGGER pld_no_truncate ON {table};",
    )


def no_delete(table: str) -> RunSQL:
    """Refuse DELETE and TRUNCATE on `table`: its rows change only through guarded updates."""
    return RunSQL(
        f"""
        CREATE TRIGGER pld_no_delete BEFORE DELETE ON {table}
          FOR EACH ROW EXECUTE FUNCTION pld_refuse_change();
        CREATE TRIGGER pld_no_truncate BEFORE TRUNCATE ON {table}
          FOR EACH STATEMENT EXECUTE FUNCTION pld_refuse_change();
        ALTER TABLE {table} ENABLE ALWAYS TRIGGER pld_no_delete;
        ALTER TABLE {table} ENABLE ALWAYS TRIGGER pld_no_truncate;
        """,
        f"DROP TRIGGER pld_no_delete ON {table}; DROP TRIGGER pld_no_truncate ON {table};",
    )


def guard(table: str, when: str, name: str, body: str, declare: str = "", *, as_owner: bool = False) -> RunSQL:
    """A row trigger `name` firing `when` (e.g. "BEFORE INSERT"), whose plpgsql `body` raises or ends in RETURN NEW.

    `as_owner`: it runs with the rights of the tables' owner, for what the application's role may not read or write.
    """
    rights = "SECURITY DEFINER" if as_owner else ""
    return RunSQL(
        f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql {rights} {_SEARCH_PATH} AS $guard$
        DECLARE {declare}
        BEGIN {body} END $guard$;
        CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}();
        ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name};
        """,
        f"DROP TRIGGER {name} ON {table}; DROP FUNCTION {name}();",
    )
