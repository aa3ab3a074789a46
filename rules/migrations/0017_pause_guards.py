"""A paused reviewer decides nothing until an administrator lifts the pause: see docs/security.md."""

from django.db import migrations

from pld_app.triggers import guard

DECISION_PAUSE = """
  IF EXISTS (SELECT 1 FROM rules_reviewpause p JOIN rules_instruction i ON i.task_id = p.task_id
             WHERE i.id = NEW.instruction_id AND p.user_id = NEW.actor_id AND p.lifted_at IS NULL) THEN
    RAISE EXCEPTION 'pld: this queue is paused' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

OPINION_PAUSE = """
  IF EXISTS (SELECT 1 FROM rules_doublereview d JOIN rules_instruction i ON i.id = d.instruction_id
             JOIN rules_reviewpause p ON p.task_id = i.task_id
             LEFT JOIN rules_revision r ON r.id = d.revision_id
             WHERE d.id = NEW.double_id AND p.user_id = NEW.actor_id AND p.lifted_at IS NULL
               AND r.author_id IS DISTINCT FROM NEW.actor_id) THEN
    RAISE EXCEPTION 'pld: this queue is paused' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

PAUSE_UPDATE = """
  IF (NEW.user_id, NEW.task_id, NEW.reason, NEW.opened_at, NEW.event_id)
     IS DISTINCT FROM (OLD.user_id, OLD.task_id, OLD.reason, OLD.opened_at, OLD.event_id) OR OLD.lifted_at IS NOT NULL THEN
    RAISE EXCEPTION 'pld: a pause is lifted once and changed in nothing else' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.lifted_by_id FOR SHARE;
  IF NOT u.is_active OR u.role <> 'admin' OR NOT EXISTS (
       SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.lift_event_id AND e.actor_id = NEW.lifted_by_id
       AND e.object_type = 'reviewpause' AND e.object_id = NEW.id::text) THEN
    RAISE EXCEPTION 'pld: only an active administrator lifts a pause, on record' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

class Migration(migrations.Migration):
    dependencies = [("rules", "0016_reauthentication_guards")]
    operations = [
        guard("rules_decision", "BEFORE INSERT", "pld_guard_decision_pause", DECISION_PAUSE),
        guard("rules_opinion", "BEFORE INSERT", "pld_guard_opinion_pause", OPINION_PAUSE),
        guard("rules_reviewpause", "BEFORE UPDATE", "pld_guard_pause_update", PAUSE_UPDATE, "u pld_app_user;"),
    ]
