"""The audit log and the ledger of model calls refuse change in the database itself; accounts are never deleted."""

from django.db import migrations

from pld_app.triggers import append_only, append_only_function, no_delete


class Migration(migrations.Migration):
    dependencies = [("pld_app", "0001_initial")]
    operations = [
        append_only_function(),
        append_only("pld_app_auditevent"),
        append_only("pld_app_modelcall"),
        no_delete("pld_app_user"),
    ]
