"""Reports and training records stay as they were made; without training and the notice nobody decides who must have them.

See docs/security.md for the list and the test of each.
"""

from django.db import migrations

from pld_app.triggers import append_only, guard, requires_event

# The presets of a task without a policy, with those this version adds.
POLICY = """
CREATE OR REPLACE FUNCTION pld_review_policy(task bigint) RETURNS rules_reviewpolicy LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE p rules_reviewpolicy;
BEGIN
  SELECT * INTO p FROM rules_reviewpolicy WHERE task_id = task ORDER BY version DESC LIMIT 1;
  IF NOT FOUND THEN
    -- A task made past the services is no way around the policy.
    p.task_id := task; p.version := 0; p.draw_key := 'task ' || task;
    p.double_percent := 20; p.double_edited := true; p.double_conflicting := true; p.impact_percent := 1;
    p.seed_percent := 5; p.blind_first := true; p.blind_percent := 20;
    p.min_seconds := 4; p.fast_percent := 20; p.evidence_percent := 10; p.age_soon_days := 3; p.age_late_days := 7;
    p.notice_first := true; p.training_required := false; p.recall_percent := 70; p.overturned_percent := 20;
  END IF;
  RETURN p;
END $$;
"""

# An instruction without a domain takes whoever is trained for any.
FUNCTIONS = """
CREATE FUNCTION pld_is_trained(who bigint, field text) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT EXISTS (
    SELECT 1 FROM (SELECT DISTINCT ON (t.domain) t.expires_on FROM rules_trainingrecord t
                    WHERE t.person_id = who AND (field = '' OR t.domain = field) ORDER BY t.domain, t.id DESC) newest
     WHERE newest.expires_on > (clock_timestamp() AT TIME ZONE 'UTC')::date)
$$;
-- Why this person may not decide on this instruction; NULL where they may.
CREATE FUNCTION pld_unready(who bigint, instruction bigint) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE i rules_instruction; p rules_reviewpolicy;
BEGIN
  SELECT * INTO i FROM rules_instruction WHERE id = instruction;
  p := pld_review_policy(i.task_id);
  IF p.training_required THEN
    -- Whoever ends a record at this moment waits for us, or we for them.
    PERFORM 1 FROM pld_app_user WHERE id = who FOR SHARE;
    IF NOT pld_is_trained(who, i.domain) THEN
      RETURN 'pld: a current training record is needed here';
    END IF;
  END IF;
  IF p.notice_first AND NOT EXISTS (SELECT 1 FROM rules_biasnotice WHERE user_id = who
       AND quarter = to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY"Q"Q')) THEN
    RETURN 'pld: the notice on habit is read first';
  END IF;
  RETURN NULL;
END $$;
"""
DROP_FUNCTIONS = "DROP FUNCTION pld_unready(bigint, bigint); DROP FUNCTION pld_is_trained(bigint, text);"

DECISION = """
  said := pld_unready(NEW.actor_id, NEW.instruction_id);
  IF said IS NOT NULL THEN
    RAISE EXCEPTION '%', said USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# The endorsement that lies in an edit was given with the edit, and is only written down here.
OPINION = """
  SELECT dr.instruction_id, r.author_id INTO d FROM rules_doublereview dr
    LEFT JOIN rules_revision r ON r.id = dr.revision_id WHERE dr.id = NEW.double_id;
  IF d.author_id IS DISTINCT FROM NEW.actor_id THEN
    said := pld_unready(NEW.actor_id, d.instruction_id);
    IF said IS NOT NULL THEN
      RAISE EXCEPTION '%', said USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
"""

TRAINING = """
  SELECT * INTO person FROM pld_app_user WHERE id = NEW.person_id FOR NO KEY UPDATE;
  SELECT * INTO admin FROM pld_app_user WHERE id = NEW.granted_by_id FOR SHARE;
  IF NOT admin.is_active OR admin.role <> 'admin' OR admin.id = person.id THEN
    RAISE EXCEPTION 'pld: only an active administrator keeps training records' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  IF NEW.expires_on < (NEW.at AT TIME ZONE 'UTC')::date THEN
    RAISE EXCEPTION 'pld: a training record ends today at the earliest' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.expires_on > (NEW.at AT TIME ZONE 'UTC')::date AND (NOT person.is_active OR person.role <> 'reviewer') THEN
    RAISE EXCEPTION 'pld: training is recorded for active reviewers' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

REPORT = """
  NEW.at := clock_timestamp();
  IF NEW.month + interval '1 month' > NEW.at AT TIME ZONE 'UTC' THEN
    RAISE EXCEPTION 'pld: a report is of a month that is over' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0040_oversight")]
    operations = [
        append_only("rules_trainingrecord"),
        append_only("rules_oversightreport"),
        migrations.RunSQL(POLICY, migrations.RunSQL.noop),
        migrations.RunSQL(FUNCTIONS, DROP_FUNCTIONS),
        guard("rules_decision", "BEFORE INSERT", "pld_guard_decision_ready", DECISION, "said text;"),
        guard("rules_opinion", "BEFORE INSERT", "pld_guard_opinion_ready", OPINION, "d record; said text;"),
        guard("rules_trainingrecord", "BEFORE INSERT", "pld_guard_training", TRAINING,
              "person pld_app_user; admin pld_app_user;"),
        guard("rules_oversightreport", "BEFORE INSERT", "pld_guard_oversight_report", REPORT),
        requires_event("rules_trainingrecord", about=("user", "person_id"),
                       actions=["training.granted", "training.ended"], actor="granted_by_id"),
        # A report is the system's: its table has no actor, as its event has none.
        requires_event("rules_oversightreport", about=("task", "task_id"), actions=["oversight_report.made"]),
    ]
