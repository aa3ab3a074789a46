"""Neither a check item nor its words reach a prompt: see docs/security.md for the test."""

from django.db import migrations

from pld_app.triggers import guard

SEED = """
  IF NOT EXISTS (SELECT 1 FROM rules_instruction i JOIN rules_instruction s ON s.task_id = i.task_id
                 WHERE i.id = NEW.instruction_id AND i.is_seeded AND s.id = NEW.source_id AND NOT s.is_seeded) THEN
    RAISE EXCEPTION 'pld: a seed is a check item made from a real one of its task' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# The words of a wrong check item stay out of every prompt, also where somebody copied them into a real instruction.
ITEM_SEED = """
  IF EXISTS (SELECT 1 FROM rules_revision r JOIN rules_revision w ON w.text_sha256 = r.text_sha256
             JOIN rules_seed k ON k.instruction_id = w.instruction_id AND k.expected = 'reject'
             JOIN rules_instruction i ON i.id = k.instruction_id AND i.task_id =
                  (SELECT task_id FROM rules_ruleset WHERE id = NEW.ruleset_id)
             WHERE r.id = NEW.revision_id AND w.number = 1) THEN
    RAISE EXCEPTION 'pld: the text of a check item enters no ruleset' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

class Migration(migrations.Migration):
    dependencies = [("rules", "0018_parts_of_a_stage")]
    operations = [
        guard("rules_seed", "BEFORE INSERT", "pld_guard_seed", SEED),
        guard("rules_rulesetitem", "BEFORE INSERT", "pld_guard_item_seed_text", ITEM_SEED),
    ]
