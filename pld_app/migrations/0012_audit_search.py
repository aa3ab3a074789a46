"""Searching the log: indexes by task, request and words, and searches that people keep."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

# Words of the object's label weigh A, those of the data D. A row whose data are too long for a tsvector (1 MB) is found
# by its first words: an index must never be why an event cannot be written.
WORDS = """
CREATE FUNCTION pld_audit_words(label text, data jsonb) RETURNS tsvector LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  RETURN setweight(to_tsvector('simple'::regconfig, label), 'A') || CASE
    WHEN octet_length(data::text) < 200000 THEN jsonb_to_tsvector('simple'::regconfig, data, '["string"]')
    ELSE to_tsvector('simple'::regconfig, left(data::text, 50000)) END;
END $$;
CREATE INDEX audit_words ON pld_app_auditevent USING gin (pld_audit_words(object_label, data));
"""
DROP_WORDS = "DROP INDEX audit_words; DROP FUNCTION pld_audit_words(text, jsonb);"


class Migration(migrations.Migration):
    dependencies = [("pld_app", "0011_batches_of_calls")]
    operations = [
        migrations.CreateModel(
            name="AuditQuery",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("slug", models.SlugField(max_length=60, unique=True)),
                ("name", models.CharField(max_length=80, verbose_name="name")),
                ("is_shared", models.BooleanField(default=False, verbose_name="for everybody who reads the log")),
                ("query", models.CharField(blank=True, max_length=1000)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={"ordering": ("name", "pk")},
        ),
        migrations.AddIndex("auditevent", models.Index(fields=["task_slug", "-id"], name="audit_task")),
        migrations.AddIndex(
            "auditevent",
            models.Index(condition=~models.Q(request_id=""), fields=["request_id"], name="audit_request"),
        ),
        migrations.RunSQL(WORDS, DROP_WORDS),
    ]
