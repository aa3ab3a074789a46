"""Comments become a record: their words, who is named in them and each turn of a thread are append-only and have events.

No program wrote a comment before this migration, so that the tables are empty.
"""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models
from django.db.migrations.operations.special import RunSQL

from pld_app.triggers import append_only, guard, requires_event

COMMENT = """
  IF NOT EXISTS (SELECT 1 FROM pld_app_user WHERE id = NEW.author_id AND is_active
                    AND role IN ('reviewer', 'signatory', 'admin')) THEN
    RAISE EXCEPTION 'pld: reviewers, signatories and administrators comment' USING ERRCODE = 'check_violation';
  END IF;
  SELECT text INTO said FROM rules_revision WHERE id = NEW.revision_id AND instruction_id = NEW.instruction_id;
  IF said IS NULL THEN
    RAISE EXCEPTION 'pld: a comment stands on a text of its own instruction' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.start IS NOT NULL AND (substr(said, NEW.start + 1, NEW."end" - NEW.start) IS DISTINCT FROM NEW.quote
       OR char_length(NEW.quote) <> NEW."end" - NEW.start) THEN
    RAISE EXCEPTION 'pld: the words a comment quotes stand at their place in the text' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.is_resolved THEN
    RAISE EXCEPTION 'pld: a comment begins open' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.parent_id IS NOT NULL THEN
    SELECT * INTO thread FROM rules_comment WHERE id = NEW.parent_id FOR UPDATE;
    IF thread.parent_id IS NOT NULL OR thread.instruction_id <> NEW.instruction_id THEN
      RAISE EXCEPTION 'pld: a reply answers a comment of the same instruction' USING ERRCODE = 'check_violation';
    END IF;
    IF thread.is_resolved THEN
      RAISE EXCEPTION 'pld: a resolved thread takes no reply' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
"""

# The state of a thread is that of its newest turn, whoever writes it.
COMMENT_UPDATE = """
  IF to_jsonb(NEW) - 'is_resolved' IS DISTINCT FROM to_jsonb(OLD) - 'is_resolved' THEN
    RAISE EXCEPTION 'pld: of a comment only its state changes' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.is_resolved IS DISTINCT FROM coalesce((SELECT is_resolved FROM rules_commentturn
       WHERE comment_id = NEW.id ORDER BY id DESC LIMIT 1), false) THEN
    RAISE EXCEPTION 'pld: a thread is resolved and opened by a turn on record' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

HAS_WORDS = """
  IF NOT EXISTS (SELECT 1 FROM rules_commentversion WHERE comment_id = NEW.id) THEN
    RAISE EXCEPTION 'pld: a comment has words' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
"""

VERSION = """
  SELECT author_id INTO writer FROM rules_comment WHERE id = NEW.comment_id FOR UPDATE;
  IF writer IS DISTINCT FROM NEW.author_id THEN
    RAISE EXCEPTION 'pld: only its writer changes a comment' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.number IS DISTINCT FROM 1 + coalesce((SELECT max(number) FROM rules_commentversion
       WHERE comment_id = NEW.comment_id), 0) THEN
    RAISE EXCEPTION 'pld: versions of a comment follow each other' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_user WHERE id = NEW.author_id AND is_active
                    AND role IN ('reviewer', 'signatory', 'admin')) THEN
    RAISE EXCEPTION 'pld: reviewers, signatories and administrators comment' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# Whoever is named is named by the writer, in the act of writing: nobody is added to what somebody said.
MENTION = """
  SELECT xmin::text::bigint INTO writer FROM rules_commentversion WHERE id = NEW.version_id;
  IF writer IS NULL OR writer < 3 OR pg_xact_status(((((pg_current_xact_id()::text)::bigint >> 32) << 32)
       + writer)::text::xid8) IS DISTINCT FROM 'in progress' THEN
    RAISE EXCEPTION 'pld: who is named in a comment is named when it is written' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

TURN = """
  SELECT * INTO thread FROM rules_comment WHERE id = NEW.comment_id FOR UPDATE;
  IF thread.parent_id IS NOT NULL THEN
    RAISE EXCEPTION 'pld: a thread is resolved, not a reply' USING ERRCODE = 'check_violation';
  END IF;
  IF thread.is_resolved = NEW.is_resolved THEN
    RAISE EXCEPTION 'pld: the thread is already so' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_user WHERE id = NEW.actor_id AND is_active
                    AND role IN ('reviewer', 'signatory', 'admin')) THEN
    RAISE EXCEPTION 'pld: reviewers, signatories and administrators comment' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

TURNED = """
  UPDATE rules_comment SET is_resolved = NEW.is_resolved WHERE id = NEW.comment_id;
  RETURN NULL;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("pld_app", "0011_batches_of_calls"),
        ("rules", "0029_bulk_guards"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.RemoveField("commentversion", "mentioned"),
        migrations.AddField(
            "commentversion",
            "author",
            models.ForeignKey(
                default=None,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
            preserve_default=False,
        ),
        migrations.AlterField("commentversion", "body", models.TextField(max_length=4000)),
        migrations.CreateModel(
            name="CommentTurn",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("is_resolved", models.BooleanField()),
                ("at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "actor",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "comment",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="turns", to="rules.comment"
                    ),
                ),
                (
                    "event",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="pld_app.auditevent"
                    ),
                ),
            ],
            options={"ordering": ("pk",)},
        ),
        migrations.CreateModel(
            name="CommentMention",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="mentions", to="rules.commentversion"
                    ),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("version", "user"), name="comment_mention_once")]
            },
        ),
        guard("rules_comment", "BEFORE INSERT", "pld_guard_comment", COMMENT, "said text; thread rules_comment;"),
        guard("rules_comment", "BEFORE UPDATE", "pld_guard_comment_update", COMMENT_UPDATE),
        RunSQL(
            f"""
            CREATE FUNCTION pld_guard_comment_words() RETURNS trigger LANGUAGE plpgsql
              SET search_path = pg_catalog, public, pg_temp AS $guard$ BEGIN {HAS_WORDS} END $guard$;
            CREATE CONSTRAINT TRIGGER pld_guard_comment_words AFTER INSERT ON rules_comment
              DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pld_guard_comment_words();
            ALTER TABLE rules_comment ENABLE ALWAYS TRIGGER pld_guard_comment_words;
            """,
            "DROP TRIGGER pld_guard_comment_words ON rules_comment; DROP FUNCTION pld_guard_comment_words();",
        ),
        guard("rules_commentversion", "BEFORE INSERT", "pld_guard_comment_version", VERSION, "writer bigint;"),
        guard("rules_commentmention", "BEFORE INSERT", "pld_guard_comment_mention", MENTION, "writer bigint;"),
        guard("rules_commentturn", "BEFORE INSERT", "pld_guard_comment_turn", TURN, "thread rules_comment;"),
        guard("rules_commentturn", "AFTER INSERT", "pld_comment_turned", TURNED),
        append_only("rules_commentmention"),
        append_only("rules_commentturn"),
        requires_event(
            "rules_commentversion",
            about=("comment", "comment_id"),
            actions=["comment.written", "comment.edited"],
            actor="author_id",
        ),
        requires_event(
            "rules_commentturn", about=("comment", "comment_id"), actions=["comment.resolved", "comment.reopened"]
        ),
    ]
