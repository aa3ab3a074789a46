"""A proposed text is compared with the text that stands, never changes, and is dismissed once, by a reviewer."""

from django.db import migrations

from pld_app.triggers import guard, no_delete

INSERT = """
  -- The instruction is locked so that a proposal and a new text cannot pass each other.
  SELECT * INTO i FROM rules_instruction WHERE id = NEW.instruction_id FOR UPDATE;
  IF i.is_seeded OR i.status NOT IN ('proposed', 'in_review', 'approved') OR NEW.base_id IS DISTINCT FROM i.current_revision_id THEN
    RAISE EXCEPTION 'pld: a proposal is compared with the text that stands' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.text_sha256 <> encode(sha256(convert_to(NEW.text, 'UTF8')), 'hex') THEN
    RAISE EXCEPTION 'pld: the hash is not that of the text' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM rules_revision WHERE instruction_id = NEW.instruction_id AND text_sha256 = NEW.text_sha256) THEN
    RAISE EXCEPTION 'pld: the instruction has had this text already' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.dismissed_at IS NOT NULL THEN
    RAISE EXCEPTION 'pld: a proposal begins as one that waits' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

UPDATE = """
  IF (NEW.instruction_id, NEW.base_id, NEW.text, NEW.text_sha256, NEW.reason, NEW.resolver, NEW."loop", NEW.round, NEW.flags, NEW.created_at)
     IS DISTINCT FROM (OLD.instruction_id, OLD.base_id, OLD.text, OLD.text_sha256, OLD.reason, OLD.resolver, OLD."loop", OLD.round, OLD.flags, OLD.created_at)
     OR OLD.dismissed_at IS NOT NULL THEN
    RAISE EXCEPTION 'pld: a proposal is dismissed once and never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.dismissed_by_id IS NOT NULL THEN
    SELECT * INTO u FROM pld_app_user WHERE id = NEW.dismissed_by_id FOR SHARE;
    IF NOT u.is_active OR u.role <> 'reviewer' THEN
      RAISE EXCEPTION 'pld: only an active reviewer dismisses a proposal' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0042_text_proposals"), ("pld_app", "0002_append_only")]
    operations = [
        guard("rules_textproposal", "BEFORE INSERT", "pld_guard_text_proposal", INSERT, "i rules_instruction;"),
        guard("rules_textproposal", "BEFORE UPDATE", "pld_guard_text_proposal_update", UPDATE, "u pld_app_user;"),
        no_delete("rules_textproposal"),
    ]
