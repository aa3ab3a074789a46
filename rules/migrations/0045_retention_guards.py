"""Retention, legal holds and erasure, held by the database.

- A retention period changes by an administrator's proposal and a second person's proved decision, and is never below six
  months. A hold is placed by one administrator and released by another person's proved act.
- An erasure is carried out by the insert of its confirmed decision and by nothing else: trigger functions that run as the
  tables' owner put tombstones. The triggers that refuse every change of append-only rows let exactly these through: one
  column becomes its tombstone, named by an erasure that another person confirms in this very transaction.
- Pruning is carried out by the insert of its row, of texts older than the period alone, counted.
- Whatever a hold covers is neither erased nor pruned. One lock orders holds, erasures and pruning: of two at one moment
  the second sees the first.
"""

from django.db import migrations
from django.db.migrations.operations.special import RunSQL

from pld_app.triggers import append_only, guard, requires_event

LOCK = 5783748010  # arbitrary: of everything that keeps or removes texts

FUNCTIONS = """
CREATE FUNCTION pld_held(of_task text, kind text, object text, person bigint) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT EXISTS (SELECT 1 FROM rules_legalhold h LEFT JOIN rules_task t ON t.id = h.task_id
    WHERE NOT EXISTS (SELECT 1 FROM rules_holdrelease r WHERE r.hold_id = h.id)
      AND (h.scope = 'all' OR h.scope = 'task' AND t.slug = of_task
           OR h.scope = 'object' AND (h.object_type = kind AND h.object_id = object
                                      OR h.object_type = 'user' AND h.object_id = person::text)))
$$;
-- Whether a hold covers what an item of an erasure names.
CREATE FUNCTION pld_item_held(kind text, object bigint) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT coalesce(CASE kind
    WHEN 'event' THEN (SELECT pld_held(e.task_slug, e.object_type, e.object_id, e.actor_id)
                         FROM pld_app_auditevent e WHERE e.id = object)
    WHEN 'comment' THEN (SELECT pld_held(t.slug, 'instruction', i.id::text, v.author_id) FROM rules_commentversion v
                           JOIN rules_comment c ON c.id = v.comment_id JOIN rules_instruction i ON i.id = c.instruction_id
                           JOIN rules_task t ON t.id = i.task_id WHERE v.id = object)
    WHEN 'trace' THEN (SELECT pld_held(t.slug, 'trace', object::text, NULL) FROM rules_trace x
                         JOIN rules_task t ON t.id = x.task_id WHERE x.id = object)
    WHEN 'account' THEN pld_held('', 'user', object::text, object) END, true)
$$;
-- What stands there, by its SHA-256; NULL for what is not there or cannot be erased.
CREATE FUNCTION pld_item_sha256(kind text, object bigint) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT CASE kind
    -- What says that something was erased, kept or removed is not erased itself.
    WHEN 'event' THEN (SELECT encode(sha256(convert_to(pld_canonical_json(e.data), 'UTF8')), 'hex')
                         FROM pld_app_auditevent e WHERE e.id = object AND NOT e.data ? 'erased'
                          AND e.action !~ '^(erasure|retention|hold)\\.')
    WHEN 'comment' THEN (SELECT encode(sha256(convert_to(body, 'UTF8')), 'hex') FROM rules_commentversion
                          WHERE id = object AND body <> '[erased]')
    WHEN 'trace' THEN (SELECT content_hash FROM rules_trace WHERE id = object AND NOT metadata ?| ARRAY['pld_erased', 'pld_pruned'])
    WHEN 'account' THEN (SELECT '' FROM pld_app_user WHERE id = object AND NOT is_active) END
$$;
-- The erasure, confirmed in this transaction, that names an object; NULL without one.
CREATE FUNCTION pld_erasing(kind_ text, object bigint) RETURNS bigint LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT i.erasure_id FROM rules_erasureitem i JOIN rules_erasuredecision d ON d.erasure_id = i.erasure_id
   WHERE i.kind = kind_ AND i.object_id = object AND d.verdict = 'confirmed' AND pld_written_here(d.xmin)
$$;
CREATE FUNCTION pld_retention_months(task bigint) RETURNS int LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT coalesce((SELECT p.months FROM rules_retentionpolicy p LEFT JOIN rules_retentiondecision d ON d.policy_id = p.id
                    WHERE (p.task_id = task OR p.task_id IS NULL) AND (d.verdict = 'confirmed' OR p.replaces_id IS NULL)
                    ORDER BY p.task_id NULLS LAST, p.id DESC LIMIT 1), 84)::int
$$;
-- Traces of a task that came before a time, and are no evidence of what stands released.
CREATE FUNCTION pld_prunable_traces(task bigint, before timestamptz) RETURNS SETOF bigint LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
  SELECT t.id FROM rules_trace t JOIN rules_traceimport m ON m.id = t.first_import_id
   WHERE t.task_id = task AND m.created_at < before AND NOT t.metadata ?| ARRAY['pld_erased', 'pld_pruned']
     AND NOT pld_item_held('trace', t.id)
     AND NOT EXISTS (SELECT 1 FROM rules_evidence v JOIN rules_rulesetitem x ON x.instruction_id = v.instruction_id
                       JOIN rules_release l ON l.ruleset_id = x.ruleset_id JOIN rules_ruleset s ON s.id = x.ruleset_id
                      WHERE v.trace_id = t.id AND s.status <> 'withdrawn')
   ORDER BY t.id
$$;
CREATE FUNCTION pld_prunable_calls(before timestamptz) RETURNS SETOF bigint LANGUAGE sql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
  -- A call does not name its task, so any hold keeps all of them.
  SELECT c.id FROM pld_app_modelcall c WHERE c.at < before AND c.raw_reply <> ''
     AND NOT EXISTS (SELECT 1 FROM rules_legalhold h WHERE NOT EXISTS (SELECT 1 FROM rules_holdrelease r WHERE r.hold_id = h.id))
   ORDER BY c.id
$$;
-- In place of pld_refuse_change where a column may become a tombstone: arguments are the column, the kind of the item
-- that names it, and the column with that item's object.
CREATE FUNCTION pld_refuse_change_but_erasure() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE old_ jsonb := to_jsonb(OLD); new_ jsonb; erasure bigint;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    new_ := to_jsonb(NEW);
    erasure := pld_erasing(TG_ARGV[1], (old_->>TG_ARGV[2])::bigint);
    IF erasure IS NOT NULL AND new_ - TG_ARGV[0] = old_ - TG_ARGV[0]
       AND new_->TG_ARGV[0] = (CASE TG_ARGV[0] WHEN 'data' THEN jsonb_build_object('erased', erasure) ELSE '"[erased]"' END) THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;
-- The same for raw replies of models, which pruning alone empties.
CREATE FUNCTION pld_refuse_change_but_pruning() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND NEW.raw_reply = '' AND to_jsonb(NEW) - 'raw_reply' = to_jsonb(OLD) - 'raw_reply'
     AND EXISTS (SELECT 1 FROM rules_prunerun p WHERE p.task_id IS NULL AND OLD.at < p.cutoff AND pld_written_here(p.xmin)) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$;
"""
DROP_FUNCTIONS = """
DROP FUNCTION pld_refuse_change_but_pruning(); DROP FUNCTION pld_refuse_change_but_erasure();
DROP FUNCTION pld_prunable_calls(timestamptz); DROP FUNCTION pld_prunable_traces(bigint, timestamptz);
DROP FUNCTION pld_retention_months(bigint); DROP FUNCTION pld_erasing(text, bigint);
DROP FUNCTION pld_item_sha256(text, bigint); DROP FUNCTION pld_item_held(text, bigint);
DROP FUNCTION pld_held(text, text, text, bigint);
"""


def _append_only_but(table: str, function: str, plain: str = "pld_refuse_change()") -> RunSQL:
    """Another function behind the table's `pld_append_only`; its name stays, so rights and checks stay as they are."""

    def trigger(calls: str) -> str:
        return f"""
        DROP TRIGGER pld_append_only ON {table};
        CREATE TRIGGER pld_append_only BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {calls};
        ALTER TABLE {table} ENABLE ALWAYS TRIGGER pld_append_only;
        """

    return RunSQL(trigger(function), trigger(plain))


ACTIVE = """
  PERFORM 1 FROM pld_app_user u WHERE u.id = {person} AND u.is_active AND u.role = 'admin' FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'pld: only an active administrator does this' USING ERRCODE = 'check_violation';
  END IF;
"""
POLICY = f"""
  PERFORM pg_advisory_xact_lock({LOCK});
  NEW.at := clock_timestamp();
  IF NEW.replaces_id IS NULL THEN
    IF NEW.months <> 84 OR EXISTS (SELECT 1 FROM rules_retentionpolicy WHERE replaces_id IS NULL) THEN
      RAISE EXCEPTION 'pld: a retention period is proposed by an administrator' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
  END IF;
  {ACTIVE.format(person="NEW.proposed_by_id")}
  IF EXISTS (SELECT 1 FROM rules_retentionpolicy p WHERE p.task_id IS NOT DISTINCT FROM NEW.task_id
               AND p.replaces_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM rules_retentiondecision d WHERE d.policy_id = p.id)) THEN
    RAISE EXCEPTION 'pld: a proposed retention waits for its decision' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""
_SECOND = """
  IF NEW.actor_role NOT IN ('admin', 'signatory') THEN
    RAISE EXCEPTION 'pld: an administrator or a signatory decides this' USING ERRCODE = 'check_violation';
  END IF;
"""
POLICY_DECISION = f"""
  PERFORM pg_advisory_xact_lock({LOCK});
  {_SECOND}
  IF NEW.verdict = 'confirmed' AND EXISTS (SELECT 1 FROM rules_retentionpolicy p WHERE p.id = NEW.policy_id
       AND p.proposed_by_id IS NOT DISTINCT FROM NEW.actor_id) THEN
    RAISE EXCEPTION 'pld: a second person decides this' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pld_signed_act(NEW.reauthentication_id, NEW.actor_id, NEW.actor_role, 'retention', 'retentionpolicy',
    NEW.policy_id::text, '', NEW.event_id, 'retention.' || NEW.verdict, 'retentionpolicy', NEW.policy_id::text);
  NEW.at := clock_timestamp();
  RETURN NEW;
"""
HOLD = f"""
  PERFORM pg_advisory_xact_lock({LOCK});
  {ACTIVE.format(person="NEW.actor_id")}
  NEW.at := clock_timestamp();
  RETURN NEW;
"""
HOLD_RELEASE = f"""
  {_SECOND}
  IF EXISTS (SELECT 1 FROM rules_legalhold h WHERE h.id = NEW.hold_id AND h.actor_id = NEW.actor_id) THEN
    RAISE EXCEPTION 'pld: a second person decides this' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pld_signed_act(NEW.reauthentication_id, NEW.actor_id, NEW.actor_role, 'hold', 'legalhold', NEW.hold_id::text,
    '', NEW.event_id, 'hold.released', 'legalhold', NEW.hold_id::text);
  NEW.at := clock_timestamp();
  RETURN NEW;
"""
ERASURE = f"""
  {ACTIVE.format(person="NEW.actor_id")}
  NEW.at := clock_timestamp();
  RETURN NEW;
"""
ITEM = """
  IF NOT EXISTS (SELECT 1 FROM rules_erasure e WHERE e.id = NEW.erasure_id AND pld_written_here(e.xmin))
     OR EXISTS (SELECT 1 FROM rules_erasuredecision d WHERE d.erasure_id = NEW.erasure_id) THEN
    RAISE EXCEPTION 'pld: an erasure names everything when it is requested' USING ERRCODE = 'check_violation';
  END IF;
  IF pld_item_sha256(NEW.kind, NEW.object_id) IS DISTINCT FROM NEW.sha256 THEN
    RAISE EXCEPTION 'pld: there is no such text to erase' USING ERRCODE = 'check_violation';
  END IF;
  IF pld_item_held(NEW.kind, NEW.object_id) THEN
    RAISE EXCEPTION 'pld: a legal hold covers this' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""
# The sealed event names each erased event with the hash that its own sealed body has: who verifies needs no table of ours.
ERASURE_DECISION = f"""
  PERFORM pg_advisory_xact_lock({LOCK});
  {_SECOND}
  IF NEW.verdict = 'confirmed' THEN
    IF EXISTS (SELECT 1 FROM rules_erasure e WHERE e.id = NEW.erasure_id AND e.actor_id = NEW.actor_id) THEN
      RAISE EXCEPTION 'pld: a second person decides this' USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (SELECT 1 FROM rules_erasureitem i WHERE i.erasure_id = NEW.erasure_id AND pld_item_held(i.kind, i.object_id)) THEN
      RAISE EXCEPTION 'pld: a legal hold covers this' USING ERRCODE = 'check_violation';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM rules_erasureitem i WHERE i.erasure_id = NEW.erasure_id)
       OR EXISTS (SELECT 1 FROM rules_erasureitem i WHERE i.erasure_id = NEW.erasure_id
                   AND pld_item_sha256(i.kind, i.object_id) IS DISTINCT FROM i.sha256) THEN
      RAISE EXCEPTION 'pld: what this erasure names has changed since' USING ERRCODE = 'check_violation';
    END IF;
    IF (SELECT e.data->'events' FROM pld_app_auditevent e WHERE e.id = NEW.event_id) IS DISTINCT FROM
       (SELECT coalesce(jsonb_agg(jsonb_build_array(i.object_id, i.sha256) ORDER BY i.object_id), '[]')
          FROM rules_erasureitem i WHERE i.erasure_id = NEW.erasure_id AND i.kind = 'event')
       OR (SELECT (e.data->'erasure', e.data->'request') FROM pld_app_auditevent e WHERE e.id = NEW.event_id) IS DISTINCT FROM
          (SELECT (to_jsonb(r.id), to_jsonb(r.event_id)) FROM rules_erasure r WHERE r.id = NEW.erasure_id) THEN
      RAISE EXCEPTION 'pld: the event of an erasure names what it erases' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  PERFORM pld_signed_act(NEW.reauthentication_id, NEW.actor_id, NEW.actor_role, 'erasure', 'erasure', NEW.erasure_id::text,
    '', NEW.event_id, 'erasure.' || NEW.verdict, 'erasure', NEW.erasure_id::text);
  NEW.at := clock_timestamp();
  RETURN NEW;
"""
ERASED = """
  IF NEW.verdict <> 'confirmed' THEN RETURN NULL; END IF;
  UPDATE pld_app_auditevent SET data = jsonb_build_object('erased', NEW.erasure_id) WHERE id IN (
    SELECT object_id FROM rules_erasureitem WHERE erasure_id = NEW.erasure_id AND kind = 'event');
  -- Notes stand beside the event of the decision too.
  UPDATE rules_decision SET note = '[erased]' WHERE note <> '' AND event_id IN (
    SELECT object_id FROM rules_erasureitem WHERE erasure_id = NEW.erasure_id AND kind = 'event');
  UPDATE rules_opinion SET note = '[erased]' WHERE note <> '' AND event_id IN (
    SELECT object_id FROM rules_erasureitem WHERE erasure_id = NEW.erasure_id AND kind = 'event');
  UPDATE rules_commentversion SET body = '[erased]' WHERE id IN (
    SELECT object_id FROM rules_erasureitem WHERE erasure_id = NEW.erasure_id AND kind = 'comment');
  UPDATE rules_trace SET input = (SELECT jsonb_object_agg(key, '[erased]') FROM jsonb_object_keys(input) key), rationale = '',
         instruction = '', metadata = jsonb_build_object('pld_erased', NEW.erasure_id) WHERE id IN (
    SELECT object_id FROM rules_erasureitem WHERE erasure_id = NEW.erasure_id AND kind = 'trace');
  UPDATE pld_app_user SET display_name = 'Former account ' || id, email = '' WHERE id IN (
    SELECT object_id FROM rules_erasureitem WHERE erasure_id = NEW.erasure_id AND kind = 'account');
  RETURN NULL;
"""
TRACE = """
  IF TG_OP = 'UPDATE' THEN
    IF (NEW.input, NEW.rationale, NEW.instruction, NEW.metadata, NEW.content_hash)
       IS NOT DISTINCT FROM (OLD.input, OLD.rationale, OLD.instruction, OLD.metadata, OLD.content_hash) THEN
      RETURN NEW;
    END IF;
    IF NOT OLD.metadata ?| ARRAY['pld_erased', 'pld_pruned'] AND NOT NEW.metadata ?| ARRAY['pld_erased', 'pld_pruned']
       AND NOT pld_item_held('trace', OLD.id) THEN
      RETURN NEW;
    END IF;
    IF NOT pld_item_held('trace', OLD.id) AND NEW.content_hash = OLD.content_hash AND NEW.rationale = '' AND NEW.instruction = ''
       AND (NEW.metadata = jsonb_build_object('pld_erased', pld_erasing('trace', OLD.id))
            OR EXISTS (SELECT 1 FROM rules_prunerun p WHERE p.task_id = OLD.task_id AND pld_written_here(p.xmin)
                        AND NEW.metadata = jsonb_build_object('pld_pruned', p.id))) THEN
      RETURN NEW;
    END IF;
    RAISE EXCEPTION 'pld: a text is erased or pruned by its own act, and not under a hold' USING ERRCODE = 'check_violation';
  END IF;
  IF pld_item_held('trace', OLD.id) THEN
    RAISE EXCEPTION 'pld: a legal hold covers this' USING ERRCODE = 'check_violation';
  END IF;
  RETURN OLD;
"""
PRUNE = f"""
  PERFORM pg_advisory_xact_lock({LOCK});
  NEW.at := clock_timestamp();
  IF NEW.cutoff > clock_timestamp() - make_interval(months => pld_retention_months(NEW.task_id)) THEN
    RAISE EXCEPTION 'pld: texts are kept for their whole period' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.actor_id IS NOT NULL THEN
    {ACTIVE.format(person="NEW.actor_id")}
  END IF;
  RETURN NEW;
"""
PRUNED = """
  IF NEW.task_id IS NULL THEN
    UPDATE pld_app_modelcall SET raw_reply = '' WHERE id IN (SELECT pld_prunable_calls(NEW.cutoff));
  ELSE
    UPDATE rules_trace SET input = (SELECT jsonb_object_agg(key, '[erased]') FROM jsonb_object_keys(input) key), rationale = '',
           instruction = '', metadata = jsonb_build_object('pld_pruned', NEW.id)
     WHERE id IN (SELECT pld_prunable_traces(NEW.task_id, NEW.cutoff));
  END IF;
  GET DIAGNOSTICS count_ = ROW_COUNT;
  IF count_ <> NEW.removed THEN
    RAISE EXCEPTION 'pld: what is to be pruned changed meanwhile' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
"""
TABLES = (
    "retentionpolicy", "retentiondecision", "legalhold", "holdrelease", "erasure", "erasureitem", "erasuredecision", "prunerun",
)  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [("rules", "0044_retention"), ("pld_app", "0014_role_grant_guards")]
    operations = [
        RunSQL(FUNCTIONS, DROP_FUNCTIONS),
        *(append_only(f"rules_{table}") for table in TABLES),
        _append_only_but("pld_app_auditevent", "pld_refuse_change_but_erasure('data', 'event', 'id')"),
        _append_only_but("rules_decision", "pld_refuse_change_but_erasure('note', 'event', 'event_id')"),
        _append_only_but("rules_opinion", "pld_refuse_change_but_erasure('note', 'event', 'event_id')"),
        _append_only_but("rules_commentversion", "pld_refuse_change_but_erasure('body', 'comment', 'id')"),
        _append_only_but("pld_app_modelcall", "pld_refuse_change_but_pruning()"),
        guard("rules_retentionpolicy", "BEFORE INSERT", "pld_guard_retention", POLICY),
        guard("rules_retentiondecision", "BEFORE INSERT", "pld_guard_retention_decision", POLICY_DECISION),
        guard("rules_legalhold", "BEFORE INSERT", "pld_guard_hold", HOLD),
        guard("rules_holdrelease", "BEFORE INSERT", "pld_guard_hold_release", HOLD_RELEASE),
        guard("rules_erasure", "BEFORE INSERT", "pld_guard_erasure", ERASURE),
        guard("rules_erasureitem", "BEFORE INSERT", "pld_guard_erasure_item", ITEM),
        guard("rules_erasuredecision", "BEFORE INSERT", "pld_guard_erasure_decision", ERASURE_DECISION),
        guard("rules_erasuredecision", "AFTER INSERT", "pld_erasure_takes_effect", ERASED, as_owner=True),
        guard("rules_trace", "BEFORE UPDATE OR DELETE", "pld_guard_trace_texts", TRACE),
        guard("rules_prunerun", "BEFORE INSERT", "pld_guard_prune_run", PRUNE),
        guard("rules_prunerun", "AFTER INSERT", "pld_prune_takes_effect", PRUNED, "count_ bigint;", as_owner=True),
        requires_event(
            "rules_retentionpolicy", about=("retentionpolicy", "replaces_id"), actions=["retention.proposed"],
            actor="proposed_by_id", when="NEW.replaces_id IS NOT NULL",
        ),
        requires_event(
            "rules_retentiondecision", about=("retentionpolicy", "policy_id"),
            actions=["retention.confirmed", "retention.refused"],
        ),
        requires_event("rules_legalhold", about=("user", "actor_id"), actions=["hold.placed"]),
        requires_event("rules_holdrelease", about=("legalhold", "hold_id"), actions=["hold.released"]),
        requires_event("rules_erasure", about=("user", "actor_id"), actions=["erasure.requested"]),
        requires_event(
            "rules_erasuredecision", about=("erasure", "erasure_id"), actions=["erasure.confirmed", "erasure.refused"]
        ),
        requires_event("rules_prunerun", about=("retentionpolicy", "policy_id"), actions=["retention.pruned"]),
    ]
