"""A plan is an administrator's, on record; a re-evaluation is of a release's own run, never gone, and over with it."""

from django.db import migrations

from pld_app.triggers import append_only, guard, no_delete, requires_event

PLAN = """
  PERFORM 1 FROM rules_task WHERE id = NEW.task_id FOR NO KEY UPDATE;
  IF NEW.version <> 1 + (SELECT count(*) FROM evaluation_reevaluationplan WHERE task_id = NEW.task_id) THEN
    RAISE EXCEPTION 'pld: versions of a plan have no gaps' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM 1 FROM pld_app_user u WHERE u.id = NEW.author_id AND u.is_active AND u.role = 'admin' FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'pld: only an active administrator confirms a budget' USING ERRCODE = 'check_violation';
  END IF;
  NEW.created_at := clock_timestamp();
  RETURN NEW;
"""

REEVALUATION = """
  IF NEW.closed_at IS NOT NULL OR NOT EXISTS (
       SELECT 1 FROM evaluation_evaluationrun r WHERE r.id = NEW.run_id AND r.kind = 'release' AND r.state = 'queued'
          AND (r.release_id, r.dataset_id, r.split, r.student_id, r.student_model)
            = (NEW.release_id, NEW.dataset_id, NEW.split, NEW.student_id, NEW.student_model)) THEN
    RAISE EXCEPTION 'pld: a re-evaluation is of a queued run of its release' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.plan_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM evaluation_reevaluationplan p JOIN rules_release l
       ON l.task_id = p.task_id WHERE p.id = NEW.plan_id AND l.id = NEW.release_id) THEN
    RAISE EXCEPTION 'pld: the plan is of another task' USING ERRCODE = 'check_violation';
  END IF;
  NEW.created_at := clock_timestamp();
  RETURN NEW;
"""

# It is over with its run, once; nothing else of it changes.
REEVALUATION_UPDATE = """
  IF OLD.closed_at IS NOT NULL OR NEW.closed_at IS NULL
     OR to_jsonb(NEW) - 'closed_at' IS DISTINCT FROM to_jsonb(OLD) - 'closed_at'
     OR NOT EXISTS (SELECT 1 FROM evaluation_evaluationrun r
                    WHERE r.id = NEW.run_id AND r.state IN ('succeeded', 'failed', 'cancelled')) THEN
    RAISE EXCEPTION 'pld: a re-evaluation is closed by the end of its run' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""
CLOSE = """
  IF NEW.state IN ('succeeded', 'failed', 'cancelled') AND OLD.state <> NEW.state THEN
    UPDATE evaluation_reevaluation SET closed_at = clock_timestamp() WHERE run_id = NEW.id AND closed_at IS NULL;
  END IF;
  RETURN NULL;
"""


class Migration(migrations.Migration):
    dependencies = [("evaluation", "0009_reevaluations")]
    operations = [
        append_only("evaluation_reevaluationplan"),
        no_delete("evaluation_reevaluation"),
        guard("evaluation_reevaluationplan", "BEFORE INSERT", "pld_guard_reevaluation_plan", PLAN),
        guard("evaluation_reevaluation", "BEFORE INSERT", "pld_guard_reevaluation", REEVALUATION),
        guard("evaluation_reevaluation", "BEFORE UPDATE", "pld_guard_reevaluation_update", REEVALUATION_UPDATE),
        guard("evaluation_evaluationrun", "AFTER UPDATE", "pld_reevaluation_close", CLOSE),
        requires_event("evaluation_reevaluationplan", about=("task", "task_id"), actions=["reevaluation.planned"],
                       actor="author_id"),
        requires_event("evaluation_reevaluation", about=("release", "release_id"), actions=["release.reevaluated"],
                       actor="created_by_id"),
    ]
