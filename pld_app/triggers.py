"""SQL for rows that never change: used by migrations, so that every app refuses in the same words."""

from collections.abc import Iterable

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


# At commit: the row's event exists, was written by this very transaction, is by the row's person about its object,
# and names an action that such a row may have. The column's own UNIQUE lets one event serve one row.
_REQUIRE_EVENT = """
CREATE FUNCTION pld_require_event() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE row_ jsonb := to_jsonb(NEW); e record; epoch bigint := (pg_current_xact_id()::text)::bigint >> 32;
BEGIN
  SELECT actor_id, object_type, object_id, action, xmin::text::bigint AS writer INTO e
    FROM pld_app_auditevent WHERE id = (row_->>TG_ARGV[0])::bigint;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'pld: a row of % needs its own audit event', TG_TABLE_NAME USING ERRCODE = 'check_violation';
  END IF;
  -- Still in progress and yet visible: written by us.
  IF e.writer < 3 OR pg_xact_status(((epoch << 32) + e.writer)::text::xid8) IS DISTINCT FROM 'in progress' THEN
    RAISE EXCEPTION 'pld: the audit event of a row of % is of its own transaction', TG_TABLE_NAME
      USING ERRCODE = 'check_violation';
  END IF;
  IF e.actor_id IS DISTINCT FROM (row_->>TG_ARGV[1])::bigint OR e.object_type <> TG_ARGV[2]
     OR e.object_id IS DISTINCT FROM row_->>TG_ARGV[3] OR NOT e.action = ANY (string_to_array(TG_ARGV[4], ' ')) THEN
    RAISE EXCEPTION 'pld: the audit event % does not say what a row of % records', e.action, TG_TABLE_NAME
      USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;
"""


def require_event_function() -> RunSQL:
    """Create the function behind `requires_event`."""
    return RunSQL(_REQUIRE_EVENT, "DROP FUNCTION IF EXISTS pld_require_event() CASCADE;")


def requires_event(
    table: str,
    *,
    about: tuple[str, str],
    actions: Iterable[str],
    actor: str = "actor_id",
    event: str = "event_id",
    when: str = "",
) -> RunSQL:
    """Refuse any commit in which a new row of `table` lacks its audit event (a deferred constraint trigger).

    `about` is the event's object type and the column that holds that object's id; `actions` those that fit; `actor` and
    `event` name columns; `when` is an SQL condition over NEW for rows that need it. The event's column must be unique.
    """
    listed = " ".join(actions)
    condition = f"WHEN ({when})" if when else ""
    return RunSQL(
        f"""
        CREATE CONSTRAINT TRIGGER pld_requires_event AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW {condition}
          EXECUTE FUNCTION pld_require_event('{event}', '{actor}', '{about[0]}', '{about[1]}', '{listed}');
        ALTER TABLE {table} ENABLE ALWAYS TRIGGER pld_requires_event;
        """,
        f"DROP TRIGGER pld_requires_event ON {table};",
    )
