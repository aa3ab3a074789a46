"""No decision, text by a person, signature, release or publication without its own event; a doubted log closes channels.

The guards of 0002 and 0008 asked for an event of the same person and object, by any action and of any age. Now the commit
is refused unless the event was written by the same transaction and names this very act. And while an alarm is open (the
log and its copy outside disagree, as after the restore of an older backup) nothing new reaches a channel.
"""

from django.db import migrations

from pld_app.triggers import guard, requires_event

DECISIONS = ("approved", "edited", "rejected", "deferred", "sent_back", "reopened")
PUBLICATION = """
  IF (SELECT state FROM pld_app_auditalarm ORDER BY id DESC LIMIT 1) = 'raised' THEN
    RAISE EXCEPTION 'pld: the audit log does not match its copy outside' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0019_seed_guards"), ("pld_app", "0009_require_event")]
    operations = [
        requires_event(
            "rules_decision",
            about=("instruction", "instruction_id"),
            actions=[f"instruction.{one}" for one in DECISIONS],
        ),
        requires_event(
            "rules_revision",
            about=("instruction", "instruction_id"),
            actions=["instruction.edited"],
            actor="author_id",
            when="NEW.author_id IS NOT NULL",
        ),
        requires_event(
            "rules_signature", about=("ruleset", "ruleset_id"), actions=["ruleset.signed"], actor="signer_id"
        ),
        requires_event(
            "rules_release", about=("ruleset", "ruleset_id"), actions=["release.created"], actor="created_by_id"
        ),
        requires_event(
            "rules_publication",
            about=("release", "release_id"),
            actions=["release.published", "release.rolled_back"],
        ),
        guard("rules_publication", "BEFORE INSERT", "pld_guard_publication_sealed", PUBLICATION),
    ]
