"""What the database holds of decisions made in bulk, of tags and of pairs that are kept: see docs/security.md.

Each decision of a batch is an ordinary one with its own event, so every guard of single decisions holds it too. What is
held here: a batch is written whole, by one transaction, of its actor's own decisions; approvals in bulk are few, of mined
texts alike, beside a card that was opened and decided with them.
"""

from django.db import migrations

from pld_app.triggers import append_only, guard, requires_event

WRITTEN_HERE = """
-- Whether the transaction (or savepoint) that wrote a row is one of ours: still in progress and yet visible.
CREATE FUNCTION pld_written_here(writer xid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE number bigint := writer::text::bigint; epoch bigint := (pg_current_xact_id()::text)::bigint >> 32;
BEGIN
  RETURN number >= 3 AND pg_xact_status(((epoch << 32) + number)::text::xid8) IS NOT DISTINCT FROM 'in progress';
END $$;
"""

BATCH = """
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.actor_id FOR SHARE;
  IF NOT u.is_active OR u.role <> 'reviewer' THEN
    RAISE EXCEPTION 'pld: only an active reviewer decides' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.undone_at IS NOT NULL THEN
    RAISE EXCEPTION 'pld: a batch is undone after it was made' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.opened_id IS NOT NULL THEN
    SELECT * INTO i FROM rules_instruction WHERE id = NEW.opened_id FOR UPDATE;
    IF i.task_id <> NEW.task_id OR NOT EXISTS (SELECT 1 FROM rules_cardlook l WHERE l.user_id = NEW.actor_id
         AND l.instruction_id = i.id AND l.version = i.version) THEN
      RAISE EXCEPTION 'pld: open the card before you approve what is like it' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

BATCH_UPDATE = """
  IF (NEW.id, NEW.task_id, NEW.act, NEW.actor_id, NEW.opened_id, NEW.at)
     IS DISTINCT FROM (OLD.id, OLD.task_id, OLD.act, OLD.actor_id, OLD.opened_id, OLD.at)
     OR OLD.undone_at IS NOT NULL OR NEW.undone_at IS NULL THEN
    RAISE EXCEPTION 'pld: a batch is undone once and changed in nothing else' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (
       SELECT 1 FROM rules_batchitem x JOIN pld_app_auditevent e
           ON e.object_type = 'instruction' AND e.object_id = x.instruction_id::text
        WHERE x.batch_id = OLD.id AND e.actor_id = OLD.actor_id AND e.action = 'instruction.reopened' AND pld_written_here(e.xmin)
       UNION ALL
       SELECT 1 FROM rules_batchitem x JOIN rules_doublereview d ON d.instruction_id = x.instruction_id
         JOIN pld_app_auditevent e ON e.object_type = 'doublereview' AND e.object_id = d.id::text
        WHERE x.batch_id = OLD.id AND e.actor_id = OLD.actor_id AND e.action = 'opinion.undone' AND pld_written_here(e.xmin)) THEN
    RAISE EXCEPTION 'pld: a batch is undone by its actor, decision by decision' USING ERRCODE = 'check_violation';
  END IF;
  NEW.undone_at := clock_timestamp();
  RETURN NEW;
"""

# Asked at commit, when all of its items are there.
BATCH_WHOLE = """
CREATE FUNCTION pld_guard_batch_whole() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM rules_batchitem x WHERE x.batch_id = NEW.id
                 AND (NEW.opened_id IS NULL OR x.instruction_id = NEW.opened_id)) THEN
    RAISE EXCEPTION 'pld: a batch holds a decision, and one of approvals that on its opened card' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER pld_guard_batch_whole AFTER INSERT ON rules_reviewbatch DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION pld_guard_batch_whole();
ALTER TABLE rules_reviewbatch ENABLE ALWAYS TRIGGER pld_guard_batch_whole;
"""
DROP_BATCH_WHOLE = """
DROP TRIGGER pld_guard_batch_whole ON rules_reviewbatch; DROP FUNCTION pld_guard_batch_whole();
"""

ITEM = """
  SELECT * INTO b FROM rules_reviewbatch WHERE id = NEW.batch_id FOR UPDATE;
  SELECT xmin INTO writer FROM rules_reviewbatch WHERE id = NEW.batch_id;
  SELECT * INTO i FROM rules_instruction WHERE id = NEW.instruction_id;
  SELECT xmin INTO said FROM pld_app_auditevent WHERE id = NEW.event_id;
  IF b.undone_at IS NOT NULL OR NOT pld_written_here(writer) OR NOT coalesce(pld_written_here(said), false) THEN
    RAISE EXCEPTION 'pld: a batch is written whole, by one transaction' USING ERRCODE = 'check_violation';
  END IF;
  is_decision := EXISTS (SELECT 1 FROM rules_decision d WHERE d.event_id = NEW.event_id
    AND d.instruction_id = i.id AND d.actor_id = b.actor_id AND d.kind = b.act);
  IF i.task_id <> b.task_id OR NOT (is_decision OR EXISTS (
       SELECT 1 FROM rules_opinion said_ JOIN rules_doublereview d ON d.id = said_.double_id
        WHERE said_.event_id = NEW.event_id AND d.instruction_id = i.id AND said_.actor_id = b.actor_id AND said_.verdict = b.act)) THEN
    RAISE EXCEPTION 'pld: an item of a batch is a decision of its actor in its task' USING ERRCODE = 'check_violation';
  END IF;
  IF b.act = 'approve' THEN
    IF (SELECT count(*) FROM rules_batchitem WHERE batch_id = b.id) >= 10 THEN
      RAISE EXCEPTION 'pld: at most ten are approved at a time' USING ERRCODE = 'check_violation';
    END IF;
    SELECT * INTO o FROM rules_instruction WHERE id = b.opened_id;
    IF i.id <> o.id AND (NOT is_decision OR i.label <> o.label OR NOT EXISTS (
         SELECT 1 FROM rules_nearduplicate n JOIN rules_nearduplicate m ON m.family = n.family
          WHERE n.instruction_id = i.id AND m.instruction_id = o.id)) THEN
      RAISE EXCEPTION 'pld: only near-duplicates of the opened card are approved with it' USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (SELECT 1 FROM rules_revision r WHERE r.id IN (i.current_revision_id, o.current_revision_id)
               AND r.author_id IS NOT NULL) THEN
      RAISE EXCEPTION 'pld: a text that somebody worded is approved on its own card' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
"""

TAG = """
  RAISE EXCEPTION 'pld: a tag is put on or taken off, never changed' USING ERRCODE = 'check_violation';
"""

# Asked at commit: the event is written last, after the row it tells of.
TAG_EVENT = """
CREATE FUNCTION pld_guard_tag_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE t rules_instructiontag := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; u pld_app_user;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e
       WHERE e.object_type = 'instruction' AND e.object_id = t.instruction_id::text AND pld_written_here(e.xmin)
         AND e.data->>'tag' = t.name
         AND CASE TG_OP WHEN 'DELETE' THEN e.action = 'instruction.untagged'
                        ELSE e.action = 'instruction.tagged' AND e.actor_id = t.by_id END) THEN
    RAISE EXCEPTION 'pld: a tag is put on and taken off with its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  IF TG_OP = 'INSERT' THEN
    SELECT * INTO u FROM pld_app_user WHERE id = t.by_id;
    IF NOT u.is_active OR u.role NOT IN ('reviewer', 'admin') THEN
      RAISE EXCEPTION 'pld: reviewers and administrators tag' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER pld_guard_tag_event AFTER INSERT OR DELETE ON rules_instructiontag DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION pld_guard_tag_event();
ALTER TABLE rules_instructiontag ENABLE ALWAYS TRIGGER pld_guard_tag_event;
"""
DROP_TAG_EVENT = """
DROP TRIGGER pld_guard_tag_event ON rules_instructiontag; DROP FUNCTION pld_guard_tag_event();
"""

PAIR = """
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.actor_id FOR SHARE;
  IF NOT u.is_active OR u.role <> 'reviewer' THEN
    RAISE EXCEPTION 'pld: only an active reviewer decides' USING ERRCODE = 'check_violation';
  END IF;
  IF (SELECT count(*) FROM rules_instruction i JOIN rules_instruction here ON here.task_id = i.task_id
       WHERE i.current_revision_id IN (NEW.first_id, NEW.second_id) AND here.id = NEW.instruction_id
         AND here.current_revision_id IN (NEW.first_id, NEW.second_id)) <> 2 THEN
    RAISE EXCEPTION 'pld: a pair is of the present texts of two instructions of a task' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0028_kept_pairs")]
    operations = [
        migrations.RunSQL(WRITTEN_HERE, "DROP FUNCTION pld_written_here(xid);"),
        guard("rules_reviewbatch", "BEFORE INSERT", "pld_guard_batch", BATCH, "u pld_app_user; i rules_instruction;"),
        guard("rules_reviewbatch", "BEFORE UPDATE", "pld_guard_batch_update", BATCH_UPDATE),
        migrations.RunSQL(BATCH_WHOLE, DROP_BATCH_WHOLE),
        guard("rules_batchitem", "BEFORE INSERT", "pld_guard_batch_item", ITEM,
              "b rules_reviewbatch; i rules_instruction; o rules_instruction; writer xid; said xid; is_decision boolean;"),
        guard("rules_instructiontag", "BEFORE UPDATE", "pld_guard_tag", TAG),
        migrations.RunSQL(TAG_EVENT, DROP_TAG_EVENT),
        append_only("rules_keptpair"),
        guard("rules_keptpair", "BEFORE INSERT", "pld_guard_kept_pair", PAIR, "u pld_app_user;"),
        requires_event("rules_keptpair", about=("instruction", "instruction_id"), actions=["pair.kept"]),
    ]
