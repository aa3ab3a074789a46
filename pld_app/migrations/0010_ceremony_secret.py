"""Two afterthoughts: a column whose name says what it is, and events that rows cannot do without.

The rights of the database's roles go by the names of columns: called `secret`, it is hidden from auditors.
"""

from django.db import migrations

from pld_app.triggers import requires_event


class Migration(migrations.Migration):
    dependencies = [("pld_app", "0009_require_event")]
    operations = [
        migrations.RenameField("ceremony", "secrets", "secret"),
        requires_event(
            "pld_app_reauthentication",
            about=("user", "user_id"),
            actions=["account.reauthenticated"],
            actor="user_id",
        ),
        requires_event(
            "pld_app_signingconsent", about=("user", "user_id"), actions=["account.consented"], actor="user_id"
        ),
        requires_event("pld_app_securitypolicy", about=("user", "by_id"), actions=["security_policy.set"], actor="by_id"),
    ]
