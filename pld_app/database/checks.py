"""`manage.py check --deploy`: the application's session must not be able to switch the guards off."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.checks import CheckMessage
from django.db import DatabaseError, connection
from django.utils.translation import gettext as _

from pld_app.database.session import session_faults


def check_session(app_configs: Sequence[AppConfig] | None, **_kwargs: Any) -> list[CheckMessage]:
    """pld.W001 names what the application's role has too much of; pld.W002 that the database could not be asked."""
    try:
        faults = session_faults(connection)
    except DatabaseError as error:
        return [checks.Warning(_("The database could not be asked: %(error)s") % {"error": error}, id="pld.W002")]
    hint = _("Run `manage.py database_roles apply` and connect as pld_app: see docs/operations.md, Database roles.")
    return [checks.Warning(fault[:1].upper() + fault[1:] + ".", hint=hint, id="pld.W001") for fault in faults]
