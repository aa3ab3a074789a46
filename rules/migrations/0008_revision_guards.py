"""A revision's author is who wrote it, so that nobody approves their own edit by leaving the author out.

Found by tests/security/test_database.py: a second revision without an author counted as mined, so its writer could
approve it; and a revision could name any account beside any event. Only the first text of an instruction is mined.
"""

from django.db import migrations

from pld_app.triggers import guard

REVISION_AUTHOR = """
  IF NEW.author_id IS NULL THEN
    IF NEW.number <> 1 THEN
      RAISE EXCEPTION 'pld: only the first text of an instruction is mined; every other has an author' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.author_id FOR SHARE;
  IF NOT u.is_active OR u.role <> 'reviewer' THEN
    RAISE EXCEPTION 'pld: only an active reviewer writes a text' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.author_id
                 AND e.object_type = 'instruction' AND e.object_id = NEW.instruction_id::text) THEN
    RAISE EXCEPTION 'pld: a text by a person needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0007_second_teacher")]
    operations = [
        guard("rules_revision", "BEFORE INSERT", "pld_guard_revision_author", REVISION_AUTHOR, "u pld_app_user;"),
    ]
