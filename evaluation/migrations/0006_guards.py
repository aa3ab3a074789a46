"""What is always true of datasets, runs and predictions, held by the database: see docs/security.md."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

from pld_app.triggers import append_only, guard, no_delete

# The hash of a dataset over its rows, as evaluation.sampling.dataset_hash computes it.
DATASET_SHA256 = """
CREATE FUNCTION pld_dataset_sha256(dataset bigint) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT encode(sha256(convert_to(coalesce(string_agg(
           e.split || ' ' || encode(sha256(convert_to(e.external_id, 'UTF8')), 'hex') || ' ' || e.input_sha256 || ' '
           || encode(sha256(convert_to(e.label, 'UTF8')), 'hex') || E'\\n', '' ORDER BY e.position), ''), 'UTF8')), 'hex')
    FROM evaluation_example e WHERE e.dataset_id = dataset
$$;
"""

DATASET_INSERT = """
  IF NEW.state <> 'reading' OR NEW.sha256 <> '' THEN
    RAISE EXCEPTION 'pld: a dataset is frozen after its examples are there' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

DATASET_UPDATE = """
  IF OLD.state <> 'reading' THEN
    RAISE EXCEPTION 'pld: a dataset that is % never changes', OLD.state USING ERRCODE = 'check_violation';
  END IF;
  IF (NEW.task_id, NEW.number, NEW.name, NEW.source, NEW.last_trace_id, NEW.file, NEW.file_name, NEW.file_sha256,
      NEW.created_by_id, NEW.created_at) IS DISTINCT FROM (OLD.task_id, OLD.number, OLD.name, OLD.source,
      OLD.last_trace_id, OLD.file, OLD.file_name, OLD.file_sha256, OLD.created_by_id, OLD.created_at) THEN
    RAISE EXCEPTION 'pld: where a dataset comes from never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.state = 'frozen' THEN
    IF NOT EXISTS (SELECT 1 FROM evaluation_example WHERE dataset_id = NEW.id) THEN
      RAISE EXCEPTION 'pld: a dataset has examples' USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (SELECT 1 FROM evaluation_example WHERE dataset_id = NEW.id
               GROUP BY input_sha256 HAVING count(DISTINCT split) > 1) THEN
      RAISE EXCEPTION 'pld: an input stands in one split of a dataset only' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.sha256 <> pld_dataset_sha256(NEW.id) THEN
      RAISE EXCEPTION 'pld: the hash is not that of the examples' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
"""

# The lock keeps the dataset as it is until this row is committed: nothing slips in behind a freeze.
EXAMPLE_INSERT = """
  PERFORM 1 FROM evaluation_dataset WHERE id = NEW.dataset_id AND state = 'reading' FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'pld: a dataset takes examples only before it is frozen' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

RUN_INSERT = """
  IF NEW.state <> 'queued' OR NEW.figures <> '{}'::jsonb OR NEW.done <> 0 THEN
    RAISE EXCEPTION 'pld: an evaluation run starts as queued, without figures' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.prompt_sha256 <> encode(sha256(convert_to(NEW.prompt, 'UTF8')), 'hex') THEN
    RAISE EXCEPTION 'pld: the hash is not that of the prompt' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM evaluation_dataset d
                 WHERE d.id = NEW.dataset_id AND d.task_id = NEW.task_id AND d.state = 'frozen') THEN
    RAISE EXCEPTION 'pld: a run needs a frozen dataset of its task' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.release_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM rules_release r WHERE r.id = NEW.release_id
       AND r.task_id = NEW.task_id AND r.prompt_sha256 = NEW.prompt_sha256) THEN
    RAISE EXCEPTION 'pld: a release is evaluated with its own bytes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.group_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM evaluation_rungroup g WHERE g.id = NEW.group_id
       AND g.task_id = NEW.task_id AND g.dataset_id = NEW.dataset_id AND g.split = NEW.split) THEN
    RAISE EXCEPTION 'pld: the runs of a comparison share its dataset and split' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.split = 'test' AND NEW.kind <> 'release' AND (NEW.kind = 'draft' OR NOT EXISTS (
       SELECT 1 FROM evaluation_rungroup g WHERE g.id = NEW.group_id AND g.release_id IS NOT NULL)) THEN
    RAISE EXCEPTION 'pld: the test split is for a release and the baselines beside it' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# What a run asks never changes; its state follows evaluation.transitions; a run that is over keeps its figures.
RUN_UPDATE = """
  IF (NEW.task_id, NEW.number, NEW.group_id, NEW.kind, NEW.ruleset_id, NEW.release_id, NEW.k, NEW.student_id,
      NEW.student_model, NEW.embedder_id, NEW.dataset_id, NEW.split, NEW.sample_size, NEW.seed, NEW.temperature,
      NEW.repeats, NEW.labels, NEW.template_version, NEW.template, NEW.abstention_label, NEW.examples_sha256,
      NEW.prompt, NEW.prompt_sha256, NEW.asked_sha256, NEW.total, NEW.created_by_id, NEW.created_at)
     IS DISTINCT FROM
     (OLD.task_id, OLD.number, OLD.group_id, OLD.kind, OLD.ruleset_id, OLD.release_id, OLD.k, OLD.student_id,
      OLD.student_model, OLD.embedder_id, OLD.dataset_id, OLD.split, OLD.sample_size, OLD.seed, OLD.temperature,
      OLD.repeats, OLD.labels, OLD.template_version, OLD.template, OLD.abstention_label, OLD.examples_sha256,
      OLD.prompt, OLD.prompt_sha256, OLD.asked_sha256, OLD.total, OLD.created_by_id, OLD.created_at) THEN
    RAISE EXCEPTION 'pld: what an evaluation run asks never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.state IN ('succeeded', 'failed', 'cancelled') THEN
    RAISE EXCEPTION 'pld: an evaluation run that is over never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.state <> OLD.state AND NOT (
       (OLD.state = 'queued' AND NEW.state IN ('running', 'failed', 'cancelled'))
    OR (OLD.state = 'running' AND NEW.state IN ('succeeded', 'failed', 'cancelled'))) THEN
    RAISE EXCEPTION 'pld: an evaluation run that is % cannot become %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.figures <> '{}'::jsonb AND NEW.state <> 'succeeded' THEN
    RAISE EXCEPTION 'pld: only a run that succeeded has figures' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

PREDICTION_INSERT = """
  IF NOT EXISTS (SELECT 1 FROM evaluation_evaluationrun r JOIN evaluation_example e ON e.dataset_id = r.dataset_id
                 WHERE r.id = NEW.run_id AND e.id = NEW.example_id AND e.split = r.split AND e.label = NEW.gold
                   AND r.state = 'running' AND NEW.repeat < r.repeats
                   AND (NEW.label = '' OR NEW.label = ANY (r.labels))) THEN
    RAISE EXCEPTION 'pld: a prediction is of an example of its running run, with its gold label' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("evaluation", "0005_datasets_of_past_runs"), ("pld_app", "0002_append_only")]
    operations = [
        migrations.RemoveConstraint(model_name="prediction", name="prediction_once"),
        migrations.RemoveField(model_name="evaluationrun", name="last_trace_id"),
        migrations.RemoveField(model_name="prediction", name="trace"),
        migrations.AlterField(
            model_name="evaluationrun",
            name="dataset",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="runs", to="evaluation.dataset"
            ),
        ),
        migrations.AlterField(
            model_name="evaluationrun",
            name="labels",
            field=django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=60)),
        ),
        migrations.AlterField(
            model_name="prediction",
            name="example",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="evaluation.example"
            ),
        ),
        migrations.AddConstraint(
            model_name="prediction",
            constraint=models.UniqueConstraint(fields=("run", "example", "repeat"), name="prediction_once"),
        ),
        migrations.RunSQL(DATASET_SHA256, "DROP FUNCTION pld_dataset_sha256(bigint);"),
        guard("evaluation_dataset", "BEFORE INSERT", "pld_guard_dataset_insert", DATASET_INSERT),
        guard("evaluation_dataset", "BEFORE UPDATE", "pld_guard_dataset_update", DATASET_UPDATE),
        no_delete("evaluation_dataset"),
        guard("evaluation_example", "BEFORE INSERT", "pld_guard_example_insert", EXAMPLE_INSERT),
        append_only("evaluation_example"),
        append_only("evaluation_datasetcheck"),
        append_only("evaluation_inputtemplate"),
        append_only("evaluation_rungroup"),
        guard("evaluation_evaluationrun", "BEFORE INSERT", "pld_guard_evaluation_run_insert", RUN_INSERT),
        guard("evaluation_evaluationrun", "BEFORE UPDATE", "pld_guard_evaluation_run_update", RUN_UPDATE),
        no_delete("evaluation_evaluationrun"),
        guard("evaluation_prediction", "BEFORE INSERT", "pld_guard_prediction_insert", PREDICTION_INSERT),
        append_only("evaluation_prediction"),
    ]
