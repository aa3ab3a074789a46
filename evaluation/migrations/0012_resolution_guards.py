"""What is always true of a loop of conflict resolution, held by the database: see docs/security.md."""

from django.db import migrations

from pld_app.triggers import append_only, guard, no_delete

LOOP_INSERT = """
  IF NEW.state <> 'queued' OR NEW.calls_used <> 0 OR NEW.cost_used <> 0 THEN
    RAISE EXCEPTION 'pld: a loop starts as queued' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM evaluation_dataset d JOIN rules_ruleset s ON s.task_id = d.task_id
                 WHERE d.id = NEW.dataset_id AND s.id = NEW.ruleset_id AND d.task_id = NEW.task_id AND d.state = 'frozen') THEN
    RAISE EXCEPTION 'pld: a loop needs a ruleset and a frozen dataset of its task' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

LOOP_UPDATE = """
  IF (NEW.task_id, NEW.number, NEW.ruleset_id, NEW.dataset_id, NEW.student_id, NEW.student_model, NEW.resolver_id,
      NEW.resolver_model, NEW.sample_size, NEW.seed, NEW.max_rounds, NEW.is_automatic, NEW.estimate, NEW.created_by_id, NEW.created_at)
     IS DISTINCT FROM (OLD.task_id, OLD.number, OLD.ruleset_id, OLD.dataset_id, OLD.student_id, OLD.student_model, OLD.resolver_id,
      OLD.resolver_model, OLD.sample_size, OLD.seed, OLD.max_rounds, OLD.is_automatic, OLD.estimate, OLD.created_by_id, OLD.created_at) THEN
    RAISE EXCEPTION 'pld: what a loop asks never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.state <> OLD.state AND NOT (
       (OLD.state = 'queued' AND NEW.state IN ('running', 'failed', 'cancelled'))
    OR (OLD.state = 'running' AND NEW.state IN ('waiting', 'paused', 'stopped', 'failed', 'cancelled'))
    OR (OLD.state = 'waiting' AND NEW.state IN ('queued', 'running', 'failed', 'cancelled'))
    OR (OLD.state = 'paused' AND NEW.state IN ('queued', 'failed', 'cancelled'))) THEN
    RAISE EXCEPTION 'pld: a loop that is % cannot become %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.state IN ('stopped', 'failed', 'cancelled') AND (NEW.stop_reason, NEW.error, NEW.finished_at)
     IS DISTINCT FROM (OLD.stop_reason, OLD.error, OLD.finished_at) THEN
    RAISE EXCEPTION 'pld: a loop that is over never changes' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

ROUND_INSERT = """
  SELECT * INTO l FROM evaluation_resolutionloop WHERE id = NEW.loop_id FOR UPDATE;
  IF l.state <> 'running' OR NEW.state <> 'measuring'
     OR NEW.number <> 1 + (SELECT count(*) FROM evaluation_resolutionround WHERE loop_id = NEW.loop_id)
     OR EXISTS (SELECT 1 FROM evaluation_resolutionround WHERE loop_id = NEW.loop_id AND state <> 'over') THEN
    RAISE EXCEPTION 'pld: rounds of a running loop follow each other' USING ERRCODE = 'check_violation';
  END IF;
  -- The split is what keeps the test examples from the resolver.
  IF NOT EXISTS (SELECT 1 FROM evaluation_evaluationrun r WHERE r.id = NEW.run_id AND r.split = 'validation'
                 AND r.task_id = l.task_id AND r.dataset_id = l.dataset_id AND r.student_id = l.student_id
                 AND r.prompt_sha256 = NEW.prompt_sha256) THEN
    RAISE EXCEPTION 'pld: a round measures its prompt on validation' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

ROUND_UPDATE = """
  IF (NEW.loop_id, NEW.number, NEW.run_id, NEW.is_reused, NEW.items, NEW.prompt_sha256, NEW.set_aside_calls, NEW.set_aside_cost, NEW.created_at)
     IS DISTINCT FROM (OLD.loop_id, OLD.number, OLD.run_id, OLD.is_reused, OLD.items, OLD.prompt_sha256, OLD.set_aside_calls, OLD.set_aside_cost, OLD.created_at) THEN
    RAISE EXCEPTION 'pld: what a round measures never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.state <> OLD.state AND NOT (
       (OLD.state = 'measuring' AND NEW.state IN ('asking', 'over'))
    OR (OLD.state = 'asking' AND NEW.state IN ('waiting', 'over'))
    OR (OLD.state = 'waiting' AND NEW.state = 'over')) THEN
    RAISE EXCEPTION 'pld: a round that is % cannot become %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

GROUP_INSERT = """
  IF NOT EXISTS (SELECT 1 FROM evaluation_resolutionround WHERE id = NEW.round_id AND state = 'measuring') THEN
    RAISE EXCEPTION 'pld: groups are made of a measurement' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.outcome <> '' THEN
    RAISE EXCEPTION 'pld: a group begins without an outcome' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# What came of a group is written once; a proposal is one of its instruction, a candidate one of its task.
GROUP_UPDATE = """
  IF (NEW.round_id, NEW.number, NEW.instruction_id, NEW.revision_id, NEW.label, NEW.failures, NEW.successes)
     IS DISTINCT FROM (OLD.round_id, OLD.number, OLD.instruction_id, OLD.revision_id, OLD.label, OLD.failures, OLD.successes)
     OR OLD.outcome <> '' THEN
    RAISE EXCEPTION 'pld: a group never changes but for its one outcome' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.proposal_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM rules_textproposal p
       WHERE p.id = NEW.proposal_id AND p.instruction_id = NEW.instruction_id AND p.base_id = NEW.revision_id) THEN
    RAISE EXCEPTION 'pld: a proposal of a group is one for its text' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.candidate_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM rules_instruction i
       JOIN evaluation_resolutionround r ON r.id = NEW.round_id JOIN evaluation_resolutionloop l ON l.id = r.loop_id
       WHERE i.id = NEW.candidate_id AND i.task_id = l.task_id AND i.origin = 'resolution') THEN
    RAISE EXCEPTION 'pld: a candidate of a group is one of its task' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# An example of the round's own measurement, with the answer it got there: so never one of the test split.
CASE_INSERT = """
  IF NOT EXISTS (SELECT 1 FROM evaluation_resolutiongroup g JOIN evaluation_resolutionround r ON r.id = g.round_id
                 JOIN evaluation_prediction p ON p.run_id = r.run_id JOIN evaluation_example e ON e.id = p.example_id
                 WHERE g.id = NEW.group_id AND r.state = 'measuring' AND p.example_id = NEW.example_id AND p.repeat = 0
                   AND p.label = NEW.said AND e.split = 'validation' AND (p.label = p.gold) = (NEW.role = 'right')) THEN
    RAISE EXCEPTION 'pld: a case is an answer of its round on validation' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("evaluation", "0011_resolution"), ("rules", "0043_text_proposal_guards")]
    operations = [
        guard("evaluation_resolutionloop", "BEFORE INSERT", "pld_guard_resolution_loop_insert", LOOP_INSERT),
        guard("evaluation_resolutionloop", "BEFORE UPDATE", "pld_guard_resolution_loop_update", LOOP_UPDATE),
        no_delete("evaluation_resolutionloop"),
        guard(
            "evaluation_resolutionround",
            "BEFORE INSERT",
            "pld_guard_resolution_round_insert",
            ROUND_INSERT,
            "l evaluation_resolutionloop;",
        ),
        guard("evaluation_resolutionround", "BEFORE UPDATE", "pld_guard_resolution_round_update", ROUND_UPDATE),
        no_delete("evaluation_resolutionround"),
        guard("evaluation_resolutiongroup", "BEFORE INSERT", "pld_guard_resolution_group_insert", GROUP_INSERT),
        guard("evaluation_resolutiongroup", "BEFORE UPDATE", "pld_guard_resolution_group_update", GROUP_UPDATE),
        no_delete("evaluation_resolutiongroup"),
        guard("evaluation_resolutioncase", "BEFORE INSERT", "pld_guard_resolution_case", CASE_INSERT),
        append_only("evaluation_resolutioncase"),
    ]
