"""A verdict of a gate is of a finished run of those very bytes, and its figures are those of the stored predictions."""

from django.db import migrations

from pld_app.triggers import guard

# As evaluation.metrics has it: a label neither gold nor predicted has no F1 and no part in the mean.
FUNCTIONS = """
CREATE FUNCTION pld_run_f1(run bigint) RETURNS TABLE (label text, f1 double precision, support bigint)
LANGUAGE sql STABLE AS $$
  SELECT named.label, CASE WHEN c.gold + c.said > 0 THEN 2.0::double precision * c.hit / (c.gold + c.said) END, c.gold
    FROM evaluation_evaluationrun r CROSS JOIN LATERAL unnest(r.labels::text[]) AS named(label)
   CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE p.gold = named.label) AS gold,
       count(*) FILTER (WHERE p.label = named.label) AS said,
       count(*) FILTER (WHERE p.gold = named.label AND p.label = named.label) AS hit
     FROM evaluation_prediction p WHERE p.run_id = r.id AND p.repeat = 0) c
   WHERE r.id = run
$$;
-- Whether a figure of a verdict is the one the predictions give, to the six decimals it is kept with.
CREATE FUNCTION pld_same_figure(said text, found double precision) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT said IS NULL OR coalesce(abs(said::double precision - found) < 0.0000011, false)
$$;
"""
DROP_FUNCTIONS = """
DROP FUNCTION pld_same_figure(text, double precision); DROP FUNCTION pld_run_f1(bigint);
"""

VERDICT = """
  SELECT * INTO r FROM evaluation_evaluationrun WHERE id = NEW.run_id;
  IF NOT FOUND OR r.state <> 'succeeded' OR r.number <> NEW.run_number OR r.finished_at <> NEW.measured_at
     OR r.prompt_sha256 <> (SELECT prompt_sha256 FROM rules_ruleset WHERE id = NEW.ruleset_id)
     OR NEW.ruleset_id IS DISTINCT FROM
        coalesce(r.ruleset_id, (SELECT ruleset_id FROM rules_release WHERE id = r.release_id))
     OR (r.student_id, r.student_model, r.split) IS DISTINCT FROM (NEW.student_id, NEW.student_model, NEW.split)
     OR r.sample_size IS NOT NULL
     OR NEW.dataset_sha256 IS DISTINCT FROM (SELECT sha256 FROM evaluation_dataset WHERE id = r.dataset_id)
     OR NEW.n <> (SELECT count(*) FROM evaluation_prediction WHERE run_id = r.id AND repeat = 0) THEN
    RAISE EXCEPTION 'pld: a verdict is of a finished run of this very prompt, over the whole split' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM jsonb_array_elements(NEW.results) x WHERE NOT CASE x->>'gate'
       WHEN 'macro_f1' THEN pld_same_figure(x->>'value', (SELECT avg(f1) FROM pld_run_f1(r.id)))
       WHEN 'label_f1' THEN pld_same_figure(x->>'value', (SELECT f1 FROM pld_run_f1(r.id) f WHERE f.label = x->>'label'))
            AND (x->>'outcome' = 'not_shown' OR (SELECT support FROM pld_run_f1(r.id) f WHERE f.label = x->>'label') > 0)
       WHEN 'malformed' THEN pld_same_figure(x->>'value', (SELECT (count(*) FILTER (WHERE p.outcome IN ('malformed', 'no_answer')))::double precision
            / count(*) FROM evaluation_prediction p WHERE p.run_id = r.id AND p.repeat = 0))
       WHEN 'drop' THEN NEW.reference_sha256 = '' OR x->>'value' IS NULL OR pld_same_figure(x->>'value',
            (SELECT avg(f1) FROM pld_run_f1(r.id)) - (SELECT avg(f1) FROM pld_run_f1(NEW.reference_run_id)))
       ELSE true END) THEN
    RAISE EXCEPTION 'pld: the figures of a verdict are those of the stored predictions' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.reference_run_id IS NOT NULL AND NOT EXISTS (
       SELECT 1 FROM evaluation_evaluationrun o JOIN rules_release l ON l.id = o.release_id
        WHERE o.id = NEW.reference_run_id AND o.state = 'succeeded' AND l.manifest_sha256 = NEW.reference_sha256
          AND (o.examples_sha256, o.student_id, o.student_model) = (r.examples_sha256, r.student_id, r.student_model)) THEN
    RAISE EXCEPTION 'pld: a verdict compares with a run of the release in production over the same examples' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.reference_sha256 <> '' AND NEW.reference_run_id IS NULL AND EXISTS (
       SELECT 1 FROM jsonb_array_elements(NEW.results) x WHERE x->>'gate' = 'drop' AND x->>'outcome' <> 'not_shown') THEN
    RAISE EXCEPTION 'pld: without a run of the release in production no drop is shown' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("evaluation", "0007_ablations"), ("rules", "0038_gate_guards")]
    operations = [
        migrations.RunSQL(FUNCTIONS, DROP_FUNCTIONS),
        # Fires after pld_guard_gate_verdict of `rules` (triggers go by name), which holds the lock on the task.
        guard("rules_gateverdict", "BEFORE INSERT", "pld_guard_gate_verdict_run", VERDICT,
              "r evaluation_evaluationrun;"),
    ]
