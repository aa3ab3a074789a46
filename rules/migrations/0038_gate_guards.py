"""What is always true of gates, held by the database.

- Gates change by a proposal that a second person confirms; each has a threshold that can be missed and met.
- A verdict is by the gates in force, about a frozen manifest, of their student, dataset and split; it says what its
  figures say, and never goes back to an older run.
- A release is published only past passed gates, or under an exception that a signatory without a hand in it signed and
  that has not expired. A rollback is not asked: it is how a bad prompt is taken back.
- After the date of re-validation and its grace, no other release goes to production.
"""

from django.db import migrations

from pld_app.triggers import append_only, guard, requires_event

FUNCTIONS = """
-- The newest confirmed version; NULL: no gate was ever set.
CREATE FUNCTION pld_gate_policy(task bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT p.id FROM rules_gatepolicy p JOIN rules_gatedecision d ON d.policy_id = p.id
   WHERE p.task_id = task AND d.verdict = 'confirmed' ORDER BY p.version DESC LIMIT 1
$$;
CREATE FUNCTION pld_gate_thresholds(policy bigint) RETURNS TABLE (gate text, label text, threshold text)
LANGUAGE sql STABLE AS $$
  SELECT g.gate, ''::text, g.threshold FROM rules_gatepolicy p CROSS JOIN LATERAL (VALUES
      ('macro_f1', p.min_macro_f1::text), ('drop', p.max_drop::text), ('malformed', p.max_malformed_rate::text),
      ('prompt_tokens', p.max_prompt_tokens::text)) AS g(gate, threshold)
   WHERE p.id = policy AND g.threshold IS NOT NULL
  UNION ALL
  SELECT 'label_f1', f.key, f.value FROM rules_gatepolicy p, jsonb_each_text(p.label_floors) f WHERE p.id = policy
$$;
-- The release a channel serves now; the same rule as rules.selectors.publishing.publications_valid.
CREATE FUNCTION pld_served_release(task bigint, in_channel text) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT p.release_id FROM rules_publication p
    JOIN rules_release l ON l.id = p.release_id JOIN rules_ruleset s ON s.id = l.ruleset_id
   WHERE p.task_id = task AND p.channel = in_channel AND (p.until IS NULL OR p.until > clock_timestamp())
     AND s.status = 'signed' AND NOT pld_is_stopped(s.id)
     AND NOT EXISTS (SELECT 1 FROM rules_publication r
       WHERE r.task_id = task AND r.channel = in_channel AND r.kind = 'rollback' AND r.id > p.id
         AND r.release_id <> p.release_id
         AND EXISTS (SELECT 1 FROM rules_publication q WHERE q.task_id = task AND q.channel = in_channel
                     AND q.release_id = r.release_id AND q.id < p.id))
   ORDER BY p.id DESC LIMIT 1
$$;
-- The manifest in production that a ruleset is compared with; empty when there is none, or it is this very one.
CREATE FUNCTION pld_gate_reference(task bigint, ruleset bigint) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT l.manifest_sha256 FROM rules_release l
                    WHERE l.id = pld_served_release(task, 'production') AND l.ruleset_id <> ruleset), '')
$$;
-- Whether one result satisfies its gate. Without another release in production there is nothing to drop from.
CREATE FUNCTION pld_gate_holds(result jsonb, minimum bigint, reference text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT coalesce(CASE result->>'gate'
    WHEN 'macro_f1' THEN (result->>'value')::numeric >= (result->>'threshold')::numeric AND (result->>'n')::bigint >= minimum
    WHEN 'label_f1' THEN (result->>'value')::numeric >= (result->>'threshold')::numeric AND (result->>'n')::bigint >= minimum
    WHEN 'malformed' THEN (result->>'value')::numeric <= (result->>'threshold')::numeric AND (result->>'n')::bigint >= minimum
    WHEN 'drop' THEN reference = '' OR ((result->>'low')::numeric >= -(result->>'threshold')::numeric AND (result->>'n')::bigint >= minimum)
    WHEN 'prompt_tokens' THEN (result->>'value')::numeric <= (result->>'threshold')::numeric
  END, false)
$$;
-- Whether the newest verdict passed and still counts: same model at the endpoint, same release in production (or none).
CREATE FUNCTION pld_gates_pass(policy bigint, about_ruleset bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT NOT EXISTS (SELECT 1 FROM pld_gate_thresholds(policy)) OR coalesce((
    SELECT v.passed AND v.student_model = e.model AND v.manifest_sha256 = s.manifest_sha256
       AND (p.max_drop IS NULL OR pld_gate_reference(v.task_id, s.id) IN ('', v.reference_sha256))
      FROM rules_gateverdict v JOIN rules_gatepolicy p ON p.id = v.policy_id
      JOIN pld_app_modelendpoint e ON e.id = p.student_id JOIN rules_ruleset s ON s.id = v.ruleset_id
     WHERE v.policy_id = policy AND v.ruleset_id = about_ruleset ORDER BY v.id DESC LIMIT 1), false)
$$;
CREATE FUNCTION pld_gate_excepted(policy bigint, about_release bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT 1 FROM rules_gateexception x JOIN rules_release l ON l.id = x.release_id
    WHERE x.policy_id = policy AND x.release_id = about_release AND x.manifest_sha256 = l.manifest_sha256
      AND x.expires_at > clock_timestamp())
$$;
-- When the release in production is due for re-validation: counted from its publication, from the day the rule came
-- into force, and from its newest passed measurement, whichever is last. NULL: not asked for.
CREATE FUNCTION pld_validation_due(task bigint) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT greatest(d.at,
           (SELECT max(b.at) FROM rules_publication b
             WHERE b.release_id = l.id AND b.channel = 'production' AND b.kind = 'publish'),
           (SELECT max(v.measured_at) FROM rules_gateverdict v
             WHERE v.policy_id = p.id AND v.ruleset_id = l.ruleset_id AND v.passed))
         + p.revalidate_days * interval '1 day'
    FROM rules_gatepolicy p JOIN rules_gatedecision d ON d.policy_id = p.id
    JOIN rules_release l ON l.id = pld_served_release(task, 'production')
   WHERE p.id = pld_gate_policy(task) AND p.revalidate_days IS NOT NULL
$$;
"""
DROP_FUNCTIONS = """
DROP FUNCTION pld_validation_due(bigint); DROP FUNCTION pld_gate_excepted(bigint, bigint);
DROP FUNCTION pld_gates_pass(bigint, bigint); DROP FUNCTION pld_gate_holds(jsonb, bigint, text);
DROP FUNCTION pld_gate_reference(bigint, bigint); DROP FUNCTION pld_served_release(bigint, text);
DROP FUNCTION pld_gate_thresholds(bigint); DROP FUNCTION pld_gate_policy(bigint);
"""

POLICY = r"""
  SELECT * INTO t FROM rules_task WHERE id = NEW.task_id FOR UPDATE;
  IF NEW.version <> 1 + (SELECT count(*) FROM rules_gatepolicy WHERE task_id = NEW.task_id) THEN
    RAISE EXCEPTION 'pld: versions of gates have no gaps' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM rules_gatepolicy p WHERE p.task_id = NEW.task_id
             AND NOT EXISTS (SELECT 1 FROM rules_gatedecision d WHERE d.policy_id = p.id)) THEN
    RAISE EXCEPTION 'pld: proposed gates wait for their decision' USING ERRCODE = 'check_violation';
  END IF;
  IF jsonb_typeof(NEW.label_floors) <> 'object' OR EXISTS (
       SELECT 1 FROM jsonb_each(NEW.label_floors) f WHERE NOT f.key = ANY (t.labels) OR jsonb_typeof(f.value) <> 'string'
          OR (f.value #>> '{}') !~ '^(0\.\d{3}|1\.000)$' OR (f.value #>> '{}') = '0.000') THEN
    RAISE EXCEPTION 'pld: a floor is for a label of the task, above 0 and at most 1' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pld_signed_act(NEW.reauthentication_id, NEW.proposed_by_id, 'admin', 'gates', 'task', t.id::text, '',
                         NEW.event_id, 'gates.proposed', 'task', t.id::text);
  NEW.created_at := clock_timestamp();
  RETURN NEW;
"""

DECISION = """
  SELECT * INTO p FROM rules_gatepolicy WHERE id = NEW.policy_id;
  PERFORM 1 FROM rules_task WHERE id = p.task_id FOR UPDATE;
  IF NEW.actor_role NOT IN ('admin', 'signatory') THEN
    RAISE EXCEPTION 'pld: only an active administrator or signatory decides on gates' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.verdict = 'confirmed' AND NEW.actor_id = p.proposed_by_id THEN
    RAISE EXCEPTION 'pld: nobody confirms their own gates' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pld_signed_act(NEW.reauthentication_id, NEW.actor_id, NEW.actor_role, 'gates', 'gatepolicy', p.id::text, '',
                         NEW.event_id, 'gates.' || NEW.verdict, 'task', p.task_id::text);
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

VERDICT = """
  -- The task's row is the lock: verdicts and publications of a task come one after the other.
  PERFORM 1 FROM rules_task WHERE id = NEW.task_id FOR UPDATE;
  SELECT * INTO p FROM rules_gatepolicy WHERE id = NEW.policy_id;
  SELECT * INTO s FROM rules_ruleset WHERE id = NEW.ruleset_id;
  IF s.task_id <> NEW.task_id OR NEW.policy_id IS DISTINCT FROM pld_gate_policy(NEW.task_id) THEN
    RAISE EXCEPTION 'pld: a verdict is by the gates in force of its own task' USING ERRCODE = 'check_violation';
  END IF;
  IF s.status NOT IN ('in_sign_off', 'signed') OR NEW.manifest_sha256 <> s.manifest_sha256 THEN
    RAISE EXCEPTION 'pld: a verdict is about a frozen manifest' USING ERRCODE = 'check_violation';
  END IF;
  SELECT model INTO model_now FROM pld_app_modelendpoint WHERE id = p.student_id FOR SHARE;
  IF (NEW.student_id, NEW.dataset_sha256::text, NEW.split::text, NEW.student_model::text)
     IS DISTINCT FROM (p.student_id, p.dataset_sha256::text, p.split::text, model_now) THEN
    RAISE EXCEPTION 'pld: a verdict is of the student, dataset and split of its gates' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.reference_sha256 <> (CASE WHEN p.max_drop IS NULL THEN '' ELSE pld_gate_reference(NEW.task_id, s.id) END) THEN
    RAISE EXCEPTION 'pld: a verdict compares with the release in production' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.measured_at > clock_timestamp() + interval '5 seconds' OR EXISTS (SELECT 1 FROM rules_gateverdict v
       WHERE v.policy_id = p.id AND v.ruleset_id = s.id AND v.measured_at > NEW.measured_at) THEN
    RAISE EXCEPTION 'pld: a verdict is not of an older run than the one before' USING ERRCODE = 'check_violation';
  END IF;
  IF jsonb_typeof(NEW.results) <> 'array'
     OR jsonb_array_length(NEW.results) <> (SELECT count(*) FROM pld_gate_thresholds(p.id))
     OR EXISTS (SELECT gate, label, threshold FROM pld_gate_thresholds(p.id) EXCEPT
                SELECT r->>'gate', r->>'label', r->>'threshold' FROM jsonb_array_elements(NEW.results) r) THEN
    RAISE EXCEPTION 'pld: a verdict has one result for each gate' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM jsonb_array_elements(NEW.results) r
             WHERE r->>'outcome' IS NULL OR r->>'outcome' NOT IN ('passed', 'failed', 'not_shown')
                OR (r->>'outcome' <> 'not_shown'
                    AND (r->>'outcome' = 'passed') <> pld_gate_holds(r, p.minimum_n, NEW.reference_sha256))
                OR (r->>'n')::bigint IS DISTINCT FROM NEW.n)
     OR NEW.passed <> (SELECT coalesce(bool_and(r->>'outcome' = 'passed'), false) FROM jsonb_array_elements(NEW.results) r) THEN
    RAISE EXCEPTION 'pld: a verdict says what its figures say' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

EXCEPTION = """
  SELECT * INTO l FROM rules_release WHERE id = NEW.release_id;
  PERFORM 1 FROM rules_task WHERE id = l.task_id FOR UPDATE;
  IF NEW.policy_id IS DISTINCT FROM pld_gate_policy(l.task_id) OR NEW.manifest_sha256 <> l.manifest_sha256 THEN
    RAISE EXCEPTION 'pld: an exception is from the gates in force, for the manifest that was shown' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.actor_role <> 'signatory' THEN
    RAISE EXCEPTION 'pld: only an active signatory signs an exception' USING ERRCODE = 'check_violation';
  END IF;
  IF pld_worked_on(l.ruleset_id, NEW.actor_id) THEN
    RAISE EXCEPTION 'pld: who composed or edited a ruleset signs no exception for it' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.expires_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '90 days' THEN
    RAISE EXCEPTION 'pld: an exception expires within 90 days' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.meaning IS DISTINCT FROM (SELECT meaning FROM pld_app_reauthentication WHERE id = NEW.reauthentication_id) THEN
    RAISE EXCEPTION 'pld: re-authenticate: this proof has another meaning' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pld_signed_act(NEW.reauthentication_id, NEW.actor_id, NEW.actor_role, 'gate exception', 'release', l.id::text,
                         l.manifest_sha256, NEW.event_id, 'gates.excepted', 'release', l.id::text);
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

# Fires after pld_guard_publication, which holds the lock on the task.
PUBLICATION = """
  IF NEW.kind <> 'publish' THEN RETURN NEW; END IF;
  SELECT * INTO p FROM rules_gatepolicy WHERE id = pld_gate_policy(NEW.task_id);
  IF NOT FOUND OR (NEW.channel <> 'production' AND NOT p.staging_too) THEN RETURN NEW; END IF;
  -- A model set at the endpoint at this moment either comes first and is seen, or waits.
  PERFORM 1 FROM pld_app_modelendpoint WHERE id = p.student_id FOR SHARE;
  IF pld_gate_excepted(p.id, NEW.release_id) THEN RETURN NEW; END IF;
  IF NOT pld_gates_pass(p.id, (SELECT ruleset_id FROM rules_release WHERE id = NEW.release_id)) THEN
    RAISE EXCEPTION 'pld: a gate is not shown to be passed' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.channel = 'production' AND NEW.release_id IS DISTINCT FROM pld_served_release(NEW.task_id, 'production')
     AND pld_validation_due(NEW.task_id) + p.grace_days * interval '1 day' < clock_timestamp() THEN
    RAISE EXCEPTION 'pld: the re-validation of production is overdue' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0037_gates"), ("pld_app", "0009_require_event")]
    operations = [
        migrations.RunSQL(FUNCTIONS, DROP_FUNCTIONS),
        append_only("rules_gatepolicy"),
        append_only("rules_gatedecision"),
        append_only("rules_gateverdict"),
        append_only("rules_gateexception"),
        append_only("rules_releaseflag"),
        guard("rules_gatepolicy", "BEFORE INSERT", "pld_guard_gate_policy", POLICY, "t rules_task;"),
        guard("rules_gatedecision", "BEFORE INSERT", "pld_guard_gate_decision", DECISION, "p rules_gatepolicy;"),
        guard("rules_gateverdict", "BEFORE INSERT", "pld_guard_gate_verdict", VERDICT,
              "p rules_gatepolicy; s rules_ruleset; model_now text;"),
        guard("rules_gateexception", "BEFORE INSERT", "pld_guard_gate_exception", EXCEPTION, "l rules_release;"),
        guard("rules_publication", "BEFORE INSERT", "pld_guard_publication_gates", PUBLICATION, "p rules_gatepolicy;"),
        requires_event("rules_gateverdict", about=("ruleset", "ruleset_id"), actions=["gates.judged"]),
        requires_event("rules_gateexception", about=("release", "release_id"), actions=["gates.excepted"]),
        requires_event("rules_releaseflag", about=("release", "release_id"), actions=["release.flagged"]),
    ]
