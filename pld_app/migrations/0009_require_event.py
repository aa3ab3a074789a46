"""The function by which tables demand an audit event of their own for each new row (triggers.requires_event)."""

from django.db import migrations

from pld_app.triggers import require_event_function


class Migration(migrations.Migration):
    dependencies = [("pld_app", "0008_role_guard")]
    operations = [require_event_function()]
