"""After migrating: functions with a fixed search path, and rights on the tables that have just been made."""

from django.db import connections

from pld_app.database.catalog import functions_pin
from pld_app.database.grants import grants_apply
from pld_app.database.roles import OWNER


def after_migrate(using: str, **_signal: object) -> None:
    """Pin new functions; where the migrating session acts as the owner role, give the other roles their rights."""
    connection = connections[using]
    functions_pin(connection)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user::text")
        is_owner = cursor.fetchone()[0] == OWNER
    if is_owner:
        grants_apply(connection)
