"""A running claim is kept by the database: no decision and no text by anybody but its holder, and no silent taking over."""

from django.db import migrations

from pld_app.triggers import guard

# The instruction's row is the lock that claims, decisions and texts share: whoever comes second sees what the first did.
_HELD = """
  PERFORM 1 FROM rules_instruction WHERE id = NEW.instruction_id FOR UPDATE;
  IF EXISTS (SELECT 1 FROM rules_claim c WHERE c.instruction_id = NEW.instruction_id
             AND c.holder_id <> NEW.{person} AND c.expires_at > clock_timestamp()) THEN
    RAISE EXCEPTION 'pld: a colleague is working on this instruction' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

CLAIM = """
  SELECT * INTO i FROM rules_instruction WHERE id = NEW.instruction_id FOR UPDATE;
  IF i.status NOT IN ('proposed', 'in_review') THEN
    RAISE EXCEPTION 'pld: only an open instruction is claimed' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.expires_at > clock_timestamp() + interval '1 hour' THEN
    RAISE EXCEPTION 'pld: a claim runs for an hour at most' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.holder_id FOR SHARE;
  IF NOT u.is_active OR u.role <> 'reviewer' THEN
    RAISE EXCEPTION 'pld: only an active reviewer claims' USING ERRCODE = 'check_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    IF NEW.instruction_id <> OLD.instruction_id THEN
      RAISE EXCEPTION 'pld: a claim stays with its instruction' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.holder_id <> OLD.holder_id AND OLD.expires_at > clock_timestamp() AND NOT EXISTS (
         SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.id IS DISTINCT FROM OLD.event_id
         AND e.actor_id = NEW.holder_id AND e.action = 'instruction.taken_over'
         AND e.object_type = 'instruction' AND e.object_id = NEW.instruction_id::text) THEN
      RAISE EXCEPTION 'pld: taking over a claim needs its own audit event' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
"""

class Migration(migrations.Migration):
    dependencies = [("rules", "0013_review_queues")]
    operations = [
        guard("rules_decision", "BEFORE INSERT", "pld_guard_claim_decision", _HELD.format(person="actor_id")),
        guard(
            "rules_revision",
            "BEFORE INSERT",
            "pld_guard_claim_revision",
            f"IF NEW.author_id IS NULL THEN RETURN NEW; END IF; {_HELD.format(person='author_id')}",
        ),
        guard("rules_claim", "BEFORE INSERT OR UPDATE", "pld_guard_claim", CLAIM, "i rules_instruction; u pld_app_user;"),
    ]
