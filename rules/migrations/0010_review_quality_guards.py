"""What the database holds of the quality of review: see docs/security.md for the list and the test of each.

Who is drawn for double review is worked out here and nowhere else: the services ask pld_double_bases and cannot argue.
"""

from django.db import migrations

from pld_app.triggers import append_only, guard, no_delete

POLICY = """
CREATE FUNCTION pld_review_policy(task bigint) RETURNS rules_reviewpolicy LANGUAGE plpgsql STABLE AS $$
DECLARE p rules_reviewpolicy;
BEGIN
  SELECT * INTO p FROM rules_reviewpolicy WHERE task_id = task ORDER BY version DESC LIMIT 1;
  IF NOT FOUND THEN
    -- A task made past the services is no way around the policy.
    p.task_id := task; p.version := 0; p.draw_key := 'task ' || task;
    p.double_percent := 20; p.double_edited := true; p.double_conflicting := true; p.impact_percent := 1;
    p.seed_percent := 5; p.blind_first := true; p.blind_percent := 20;
    p.min_seconds := 4; p.fast_percent := 20; p.evidence_percent := 10; p.age_soon_days := 3; p.age_late_days := 7;
  END IF;
  RETURN p;
END $$;
-- A number from 0 to 9999 that anybody with the key can work out again and nobody can choose.
CREATE FUNCTION pld_draw(key text, what text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT ('x' || substr(encode(sha256(convert_to(key || ':' || what, 'UTF8')), 'hex'), 1, 8))::bit(32)::bigint % 10000
$$;
CREATE FUNCTION pld_double_bases(instruction bigint) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
DECLARE i rules_instruction; p rules_reviewpolicy; m rules_instructionimpact; bases text[] := '{}'; run bigint;
BEGIN
  SELECT * INTO i FROM rules_instruction WHERE id = instruction;
  p := pld_review_policy(i.task_id);
  -- A check item looks drawn, so that an answer to it waits as one to any other that was drawn.
  IF i.is_seeded OR pld_draw(p.draw_key, 'double ' || i.id) < p.double_percent * 100 THEN
    bases := bases || 'sample'::text;
  END IF;
  IF p.double_edited AND EXISTS (SELECT 1 FROM rules_revision r
                                 WHERE r.id = i.current_revision_id AND r.author_id IS NOT NULL) THEN
    bases := bases || 'edited'::text;
  END IF;
  IF p.double_conflicting THEN
    SELECT id INTO run FROM rules_miningrun WHERE task_id = i.task_id AND state = 'succeeded' ORDER BY number DESC LIMIT 1;
    IF EXISTS (SELECT 1 FROM rules_conflict c JOIN rules_instruction o
                 ON o.id = CASE WHEN c.first_id = i.id THEN c.second_id ELSE c.first_id END
               WHERE c.run_id = run AND c.kind = 'conflict' AND i.id IN (c.first_id, c.second_id)
                 AND o.status NOT IN ('rejected', 'superseded')) THEN
      bases := bases || 'conflict'::text;
    END IF;
  END IF;
  IF p.impact_percent > 0 THEN
    SELECT * INTO m FROM rules_instructionimpact
     WHERE instruction_id = i.id AND revision_id = i.current_revision_id ORDER BY id DESC LIMIT 1;
    IF FOUND AND m.flipped::bigint * 100 > m.n::bigint * p.impact_percent THEN
      bases := bases || 'impact'::text;
    END IF;
  END IF;
  RETURN bases;
END $$;
-- What two reviewers agreed on, or a third decided between them; NULL while it is not settled.
CREATE FUNCTION pld_double_outcome(double bigint) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN count(*) = 2 AND min(o.verdict) = max(o.verdict) THEN min(o.verdict)
              WHEN count(*) = 3 THEN max(o.verdict) FILTER (WHERE o.seat = 3) END
    FROM rules_opinion o JOIN rules_doublereview d ON d.id = o.double_id
   WHERE o.double_id = double AND d.reader_id IS NULL
$$;
"""
DROP_POLICY = """
DROP FUNCTION pld_double_outcome(bigint); DROP FUNCTION pld_double_bases(bigint);
DROP FUNCTION pld_draw(text, text); DROP FUNCTION pld_review_policy(bigint);
"""

POLICY_INSERT = """
  PERFORM 1 FROM rules_task WHERE id = NEW.task_id FOR UPDATE;
  SELECT * INTO last FROM rules_reviewpolicy WHERE task_id = NEW.task_id ORDER BY version DESC LIMIT 1;
  IF NEW.version <> 1 + coalesce(last.version, 0) THEN
    RAISE EXCEPTION 'pld: review policies are numbered without gaps' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.author_id IS NOT NULL THEN
    SELECT * INTO u FROM pld_app_user WHERE id = NEW.author_id FOR SHARE;
    IF NOT u.is_active OR u.role <> 'admin' THEN
      RAISE EXCEPTION 'pld: only an active administrator changes the review policy' USING ERRCODE = 'check_violation';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.author_id
                   AND e.object_type = 'task' AND e.object_id = NEW.task_id::text) THEN
      RAISE EXCEPTION 'pld: a review policy needs its own audit event' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  NEW.draw_key := coalesce(last.draw_key, replace(gen_random_uuid()::text, '-', ''));
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

DOUBLE_INSERT = """
  SELECT * INTO i FROM rules_instruction WHERE id = NEW.instruction_id FOR UPDATE;
  IF NEW.revision_id IS DISTINCT FROM i.current_revision_id OR i.status NOT IN ('proposed', 'in_review') THEN
    RAISE EXCEPTION 'pld: a double review is of the current text' USING ERRCODE = 'check_violation';
  END IF;
  IF i.is_seeded <> (NEW.reader_id IS NOT NULL) OR NEW.voided_at IS NOT NULL THEN
    RAISE EXCEPTION 'pld: only a check item has a reader of its own' USING ERRCODE = 'check_violation';
  END IF;
  NEW.bases := pld_double_bases(i.id);
  IF cardinality(NEW.bases) = 0 THEN
    RAISE EXCEPTION 'pld: nothing asks for a second reviewer here' USING ERRCODE = 'check_violation';
  END IF;
  NEW.opened_at := clock_timestamp();
  RETURN NEW;
"""

DOUBLE_UPDATE = """
  IF (NEW.instruction_id, NEW.revision_id, NEW.reader_id, NEW.bases, NEW.opened_at)
     IS DISTINCT FROM (OLD.instruction_id, OLD.revision_id, OLD.reader_id, OLD.bases, OLD.opened_at)
     OR OLD.voided_at IS NOT NULL OR NOT coalesce(CASE NEW.voided_why
       WHEN 'edited' THEN EXISTS (SELECT 1 FROM rules_revision a JOIN rules_revision b ON b.instruction_id = a.instruction_id
                                  WHERE a.id = OLD.revision_id AND b.number > a.number)
       WHEN 'reopened' THEN (SELECT kind = 'reopen' FROM rules_decision
                             WHERE instruction_id = OLD.instruction_id ORDER BY id DESC LIMIT 1)
       WHEN 'undone' THEN (SELECT count(*) = 1 FROM rules_opinion o JOIN rules_revision r ON r.id = OLD.revision_id
                           WHERE o.double_id = OLD.id AND o.actor_id IS DISTINCT FROM r.author_id)
     END, false) THEN
    RAISE EXCEPTION 'pld: opinions once given stand' USING ERRCODE = 'check_violation';
  END IF;
  NEW.voided_at := clock_timestamp();
  RETURN NEW;
"""

OPINION = """
  SELECT i2.* INTO i FROM rules_instruction i2 JOIN rules_doublereview d2 ON d2.instruction_id = i2.id
   WHERE d2.id = NEW.double_id FOR UPDATE OF i2;
  SELECT * INTO d FROM rules_doublereview WHERE id = NEW.double_id;
  IF d.voided_at IS NOT NULL OR d.revision_id IS DISTINCT FROM i.current_revision_id
     OR i.status NOT IN ('proposed', 'in_review') THEN
    RAISE EXCEPTION 'pld: this double review is over' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO r FROM rules_revision WHERE id = d.revision_id;
  SELECT count(*), min(verdict), max(verdict) INTO seats, lowest, highest FROM rules_opinion WHERE double_id = d.id;
  IF NEW.seat <> seats + 1 THEN
    RAISE EXCEPTION 'pld: opinions are numbered without gaps' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  IF NEW.actor_id IS NOT DISTINCT FROM r.author_id THEN
    -- The endorsement that lies in the edit: nothing else of the author's counts on their own text.
    IF NEW.seat <> 1 OR NEW.verdict <> 'approve' OR NEW.event_id IS DISTINCT FROM r.event_id THEN
      RAISE EXCEPTION 'pld: nobody approves their own edit' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.actor_id FOR SHARE;
  IF NOT u.is_active OR u.role <> 'reviewer' THEN
    RAISE EXCEPTION 'pld: only an active reviewer decides' USING ERRCODE = 'check_violation';
  END IF;
  IF r.author_id IS NOT NULL AND seats = 0 THEN
    RAISE EXCEPTION 'pld: the first opinion on an edit is its author''s' USING ERRCODE = 'check_violation';
  END IF;
  IF seats >= 3 OR (seats = 2 AND lowest = highest)
     OR (d.reader_id IS NOT NULL AND (d.reader_id <> NEW.actor_id OR seats > (r.author_id IS NOT NULL)::int)) THEN
    RAISE EXCEPTION 'pld: this double review is over' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.actor_id
                 AND e.object_type = 'doublereview' AND e.object_id = NEW.double_id::text) THEN
    RAISE EXCEPTION 'pld: an opinion needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# Fires before pld_guard_instruction_update (triggers go by name), which asks for the decision itself.
INSTRUCTION_DOUBLE = """
  IF NEW.status = OLD.status OR NEW.status NOT IN ('approved', 'rejected') THEN RETURN NEW; END IF;
  IF NEW.is_seeded THEN
    RAISE EXCEPTION 'pld: a check item is never approved or rejected' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO d FROM rules_doublereview WHERE instruction_id = NEW.id AND voided_at IS NULL;
  IF FOUND OR cardinality(pld_double_bases(NEW.id)) > 0 THEN
    IF d.id IS NULL OR d.revision_id IS DISTINCT FROM NEW.current_revision_id
       OR pld_double_outcome(d.id) IS DISTINCT FROM (CASE NEW.status WHEN 'approved' THEN 'approve' ELSE 'reject' END)
       OR (SELECT actor_id FROM rules_decision WHERE instruction_id = NEW.id ORDER BY id DESC LIMIT 1)
          IS DISTINCT FROM (SELECT actor_id FROM rules_opinion WHERE double_id = d.id ORDER BY seat DESC LIMIT 1) THEN
      RAISE EXCEPTION 'pld: two reviewers decide on this instruction' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
"""

VOID_BY_EDIT = """
  UPDATE rules_doublereview SET voided_at = clock_timestamp(), voided_why = 'edited'
   WHERE instruction_id = NEW.instruction_id AND voided_at IS NULL AND revision_id <> NEW.id;
  RETURN NULL;
"""
VOID_BY_REOPENING = """
  IF NEW.kind = 'reopen' THEN
    UPDATE rules_doublereview SET voided_at = clock_timestamp(), voided_why = 'reopened'
     WHERE instruction_id = NEW.instruction_id AND voided_at IS NULL;
  END IF;
  RETURN NULL;
"""


FOR_TASKS_THAT_ARE_THERE = """
INSERT INTO rules_reviewpolicy (task_id, version, draw_key, double_percent, double_edited, double_conflicting,
  impact_percent, seed_percent, blind_first, blind_percent, min_seconds, fast_percent, evidence_percent, age_soon_days,
  age_late_days, at)
SELECT t.id, 1, '', p.double_percent, p.double_edited, p.double_conflicting, p.impact_percent, p.seed_percent,
  p.blind_first, p.blind_percent, p.min_seconds, p.fast_percent, p.evidence_percent, p.age_soon_days, p.age_late_days, now()
FROM rules_task t CROSS JOIN LATERAL pld_review_policy(t.id) p;
"""

_APPEND_ONLY = (
    "reviewpolicy opinion instructionimpact judgementcontext biasnotice seed seedanswer seedalarm commentversion batchitem"
)


class Migration(migrations.Migration):
    dependencies = [("rules", "0009_review_quality")]
    operations = [
        *(append_only(f"rules_{table}") for table in _APPEND_ONLY.split()),
        *(no_delete(f"rules_{table}") for table in ("doublereview", "reviewpause", "comment", "reviewbatch")),
        migrations.RunSQL(POLICY, DROP_POLICY),
        guard("rules_reviewpolicy", "BEFORE INSERT", "pld_guard_review_policy", POLICY_INSERT,
              "last rules_reviewpolicy; u pld_app_user;"),
        guard("rules_doublereview", "BEFORE INSERT", "pld_guard_double_insert", DOUBLE_INSERT, "i rules_instruction;"),
        guard("rules_doublereview", "BEFORE UPDATE", "pld_guard_double_update", DOUBLE_UPDATE),
        guard("rules_opinion", "BEFORE INSERT", "pld_guard_opinion", OPINION,
              "i rules_instruction; d rules_doublereview; r rules_revision; u pld_app_user; seats int; "
              "lowest text; highest text;"),
        guard("rules_instruction", "BEFORE UPDATE", "pld_guard_instruction_double", INSTRUCTION_DOUBLE,
              "d rules_doublereview;"),
        guard("rules_revision", "AFTER INSERT", "pld_void_opinions_by_edit", VOID_BY_EDIT),
        guard("rules_decision", "AFTER INSERT", "pld_void_opinions_by_reopening", VOID_BY_REOPENING),
        migrations.RunSQL(FOR_TASKS_THAT_ARE_THERE, migrations.RunSQL.noop),
    ]
