"""An assignment stands beside its own event, and names an active reviewer."""

from django.db import migrations

from pld_app.triggers import guard

ASSIGNMENT = """
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.by_id
                 AND e.object_type = 'instruction' AND e.object_id = NEW.instruction_id::text) THEN
    RAISE EXCEPTION 'pld: an assignment needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.person_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pld_app_user u WHERE u.id = NEW.person_id
       AND u.is_active AND u.role = 'reviewer') THEN
    RAISE EXCEPTION 'pld: work is assigned to active reviewers' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_user u WHERE u.id = NEW.by_id AND u.is_active
                 AND u.role IN ('admin', 'reviewer')) THEN
    RAISE EXCEPTION 'pld: administrators and reviewers assign work' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

class Migration(migrations.Migration):
    dependencies = [("rules", "0020_rows_have_events")]
    operations = [guard("rules_assignment", "BEFORE INSERT OR UPDATE", "pld_guard_assignment", ASSIGNMENT)]
