"""What the present session could do to the guards: an application that owns its tables can switch them off."""

from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext as _

from pld_app.database.catalog import guard_faults
from pld_app.database.grants import grant_statements, roles_exist
from pld_app.database.roles import APPLICATION

_SESSION = """
SELECT session_user::text, r.rolsuper, r.rolcreaterole OR r.rolbypassrls OR r.rolreplication,
       EXISTS (SELECT FROM pg_class c
                WHERE c.relnamespace = 'public'::regnamespace AND pg_has_role(r.oid, c.relowner, 'MEMBER'))
         OR EXISTS (SELECT FROM pg_proc p
                     WHERE p.pronamespace = 'public'::regnamespace AND pg_has_role(r.oid, p.proowner, 'MEMBER'))
         OR EXISTS (SELECT FROM pg_database d
                     WHERE d.datname = current_database() AND pg_has_role(r.oid, d.datdba, 'MEMBER')),
       has_schema_privilege(r.oid, 'public', 'CREATE'),
       has_database_privilege(r.oid, current_database(), 'TEMP, CREATE')
  FROM pg_roles r WHERE r.rolname = %s
"""


@dataclass(frozen=True)
class Standing:
    """What a role may do beside its grants."""

    session_role: str
    role: str
    is_superuser: bool
    is_privileged: bool
    is_owner: bool
    makes_tables: bool
    makes_temporary_tables: bool


def standing(connection: BaseDatabaseWrapper, role: str | None = None) -> Standing:
    """Of this role, or of the one this session acts as."""
    with connection.cursor() as cursor:
        if role is None:
            cursor.execute("SELECT current_user::text")
            role = str(cursor.fetchone()[0])
        cursor.execute(_SESSION, [role])
        session_role, *powers = cursor.fetchone()
    return Standing(str(session_role), role, *map(bool, powers))


def session_faults(connection: BaseDatabaseWrapper) -> list[str]:
    """Why the role of this session is not held by the guards; empty in an installation with separate roles."""
    found = standing(connection)
    role = {"role": found.role}
    if found.is_superuser:
        return [_("the application is connected as %(role)s, a superuser, whom no guard stops") % role]
    if found.is_owner:
        return [_("the application is connected as %(role)s, which owns the tables and can switch guards off") % role]
    return _surplus(found)


def _surplus(found: Standing) -> list[str]:
    role = {"role": found.role}
    faults = []
    if found.is_privileged:
        faults.append(_("%(role)s may make roles, replicate or pass by row security") % role)
    if found.makes_tables:
        faults.append(_("%(role)s may make tables in the schema") % role)
    if found.makes_temporary_tables:
        faults.append(_("%(role)s may make temporary tables") % role)
    return faults


def application_faults(connection: BaseDatabaseWrapper) -> list[str]:
    """What the application's role is or has that it should not, and rights that are missing or too many."""
    if not roles_exist(connection):
        return [_("the roles do not exist: run `manage.py database_roles apply`")]
    found = standing(connection, APPLICATION)
    faults = _surplus(found)
    if found.is_superuser:
        faults.append(_("%(role)s is a superuser") % {"role": APPLICATION})
    if found.is_owner:
        faults.append(_("%(role)s owns something, or is a member of what does") % {"role": APPLICATION})
    return faults + [_("rights differ: %(statement)s") % {"statement": one} for one in grant_statements(connection)]


@dataclass(frozen=True)
class DatabaseHealth:
    """Faults that must not be, and what weakens an installation of one role."""

    faults: list[str]
    warnings: list[str]


def database_health(connection: BaseDatabaseWrapper) -> DatabaseHealth:
    """For the health page: guards against the migrations, and the roles where this installation has them."""
    warnings = session_faults(connection)
    faults = guard_faults(connection)
    if not warnings:
        faults += application_faults(connection)
    return DatabaseHealth(faults=faults, warnings=warnings)
