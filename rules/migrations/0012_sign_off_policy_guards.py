"""The sign-off policy as rows that change only by a second person's word, and its points held by the database.

- Every task has version 1 from its own columns; those columns follow the policy in force and nothing else changes them.
- A frozen manifest ("ruleset-manifest/v2") carries the whole policy in force; a later policy voids sign-offs under way.
- Signers: who composed, wrote a text or (unless allowed) started the mining is left out; what was edited or is in conflict
  was opened first; signatories and domains are counted. Publishers: nobody who composed or wrote; a signer only if allowed.
"""

from django.db import migrations

from pld_app.triggers import append_only, guard

FIRST_POLICIES = """
INSERT INTO rules_signoffpolicy (task_id, version, signers_required, signer_roles, signatories_required, domains,
       miners_may_sign, publisher_may_have_signed, read_changed_first, reason, created_at)
SELECT id, 1, signers_required, signer_roles, 0, '{}', false, true, true, '', clock_timestamp() FROM rules_task;
"""

TASK_POLICY = """
  INSERT INTO rules_signoffpolicy (task_id, version, signers_required, signer_roles, signatories_required, domains,
         miners_may_sign, publisher_may_have_signed, read_changed_first, reason, created_at)
  VALUES (NEW.id, 1, NEW.signers_required, NEW.signer_roles, 0, '{}', false, true, true, '', clock_timestamp());
  RETURN NULL;
"""

FUNCTIONS = """
CREATE FUNCTION pld_policy_in_force(task bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT p.id FROM rules_signoffpolicy p LEFT JOIN rules_policydecision d ON d.policy_id = p.id
   WHERE p.task_id = task AND (p.version = 1 OR d.verdict = 'confirmed') ORDER BY p.version DESC LIMIT 1
$$;
CREATE FUNCTION pld_sorted(words text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT coalesce(jsonb_agg(word ORDER BY word COLLATE "C"), '[]') FROM unnest(words) AS t(word)
$$;
CREATE FUNCTION pld_policy_json(policy bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('version', p.version, 'signers_required', p.signers_required,
           'signer_roles', pld_sorted(p.signer_roles::text[]), 'signatories_required', p.signatories_required,
           'domains', pld_sorted(p.domains::text[]), 'miners_may_sign', p.miners_may_sign,
           'publisher_may_have_signed', p.publisher_may_have_signed, 'read_changed_first', p.read_changed_first)
    FROM rules_signoffpolicy p WHERE p.id = policy
$$;
-- A v1 manifest stands for version 1 of the policy: it was frozen before there could be another.
CREATE FUNCTION pld_policy_is_current(task bigint, manifest jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce((manifest->'policy'->>'version')::int, 1)
       = (SELECT version FROM rules_signoffpolicy WHERE id = pld_policy_in_force(task))
$$;
-- Whoever had a hand in a ruleset: composed it, or wrote a text in it.
CREATE FUNCTION pld_worked_on(ruleset bigint, person bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT 1 FROM rules_ruleset WHERE id = ruleset AND composed_by_id = person)
      OR EXISTS (SELECT 1 FROM pld_app_auditevent WHERE object_type = 'ruleset' AND object_id = ruleset::text
                 AND action IN ('ruleset.created', 'ruleset.changed') AND actor_id = person)
      OR EXISTS (SELECT 1 FROM rules_rulesetitem x JOIN rules_revision r ON r.id = x.revision_id
                 WHERE x.ruleset_id = ruleset AND r.author_id = person)
$$;
-- Instructions a signer opens before signing: a person wrote the text, or a run found a conflict with one that stands.
CREATE FUNCTION pld_to_be_read(ruleset bigint) RETURNS TABLE (instruction_id bigint) LANGUAGE sql STABLE AS $$
  SELECT x.instruction_id FROM rules_rulesetitem x JOIN rules_revision r ON r.id = x.revision_id
   WHERE x.ruleset_id = ruleset AND (r.author_id IS NOT NULL OR EXISTS (
     SELECT 1 FROM rules_conflict c JOIN rules_instruction o
       ON o.id = CASE c.first_id WHEN x.instruction_id THEN c.second_id ELSE c.first_id END
      WHERE c.kind = 'conflict' AND x.instruction_id IN (c.first_id, c.second_id)
        AND o.status NOT IN ('rejected', 'superseded')))
$$;
CREATE OR REPLACE FUNCTION pld_signatures_complete(ruleset bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce((
    SELECT count(DISTINCT g.signer_id) >= (p.policy->>'signers_required')::int
       AND count(DISTINCT g.signer_id) >= 2
       AND bool_or(g.meaning = 'approved')
       AND count(DISTINCT g.signer_id) FILTER (WHERE g.signer_role = 'signatory')
           >= coalesce((p.policy->>'signatories_required')::int, 0)
       AND coalesce(p.policy->'domains', '[]') <@ jsonb_agg(to_jsonb(g.signer_domain))
    FROM rules_ruleset s
    JOIN rules_signature g ON g.ruleset_id = s.id AND g.manifest_sha256 = s.manifest_sha256
    CROSS JOIN LATERAL (SELECT convert_from(s.manifest, 'UTF8')::jsonb->'policy' AS policy) p
    WHERE s.id = ruleset GROUP BY p.policy), false)
$$;
"""
DROP_FUNCTIONS = """
DROP FUNCTION pld_to_be_read(bigint); DROP FUNCTION pld_worked_on(bigint, bigint);
DROP FUNCTION pld_policy_is_current(bigint, jsonb); DROP FUNCTION pld_policy_json(bigint);
DROP FUNCTION pld_sorted(text[]); DROP FUNCTION pld_policy_in_force(bigint);
"""

# As 0003 has it, for the schema that carries the whole policy.
RULESET_FREEZE = """
CREATE OR REPLACE FUNCTION pld_guard_ruleset_update_prompt() RETURNS trigger LANGUAGE plpgsql AS $guard$
DECLARE m jsonb; t_ rules_task;
BEGIN
  IF NEW.status <> 'in_sign_off' OR OLD.status <> 'draft' THEN RETURN NEW; END IF;
  m := convert_from(NEW.manifest, 'UTF8')::jsonb;
  SELECT * INTO t_ FROM rules_task WHERE id = NEW.task_id;
  IF m->'policy' IS DISTINCT FROM pld_policy_json(pld_policy_in_force(NEW.task_id)) THEN
    RAISE EXCEPTION 'pld: the manifest must carry the sign-off policy of its task' USING ERRCODE = 'check_violation';
  END IF;
  IF (m->>'schema', m->>'task', m->'ruleset', m->>'name', m->'labels', m->>'preamble', m->>'output_contract')
     IS DISTINCT FROM ('ruleset-manifest/v2', t_.slug::text, to_jsonb(NEW.number), NEW.name::text, to_jsonb(t_.labels),
                       t_.preamble, t_.output_contract) THEN
    RAISE EXCEPTION 'pld: the manifest must carry the frame of its task' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.prompt IS DISTINCT FROM
     pld_prompt_compile(m->>'preamble', m->'labels', m->'instructions', m->>'output_contract') THEN
    RAISE EXCEPTION 'pld: the prompt must be what the manifest compiles to' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $guard$;
"""

# Fires after the other guards of a task's update: the two columns follow the policy, whoever writes them.
TASK_UPDATE = """
  IF (NEW.signers_required, NEW.signer_roles) IS DISTINCT FROM (OLD.signers_required, OLD.signer_roles)
     AND NOT EXISTS (SELECT 1 FROM rules_signoffpolicy p WHERE p.id = pld_policy_in_force(NEW.id)
                     AND p.signers_required = NEW.signers_required AND p.signer_roles = NEW.signer_roles) THEN
    RAISE EXCEPTION 'pld: the sign-off policy changes by a proposal that a second person confirms' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

POLICY_INSERT = """
  PERFORM 1 FROM rules_task WHERE id = NEW.task_id FOR UPDATE;
  IF NEW.version <> 1 + (SELECT count(*) FROM rules_signoffpolicy WHERE task_id = NEW.task_id) THEN
    RAISE EXCEPTION 'pld: versions of a policy have no gaps' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.version = 1 THEN
    IF NOT EXISTS (SELECT 1 FROM rules_task t WHERE t.id = NEW.task_id AND t.signers_required = NEW.signers_required
                   AND t.signer_roles = NEW.signer_roles) THEN
      RAISE EXCEPTION 'pld: the first policy is the one the task was made with' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
  END IF;
  IF EXISTS (SELECT 1 FROM rules_signoffpolicy p WHERE p.task_id = NEW.task_id AND p.version > 1
             AND NOT EXISTS (SELECT 1 FROM rules_policydecision d WHERE d.policy_id = p.id)) THEN
    RAISE EXCEPTION 'pld: a proposed policy waits for its decision' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.proposed_by_id FOR SHARE;
  IF (u.is_active AND u.role = 'admin') IS NOT TRUE THEN
    RAISE EXCEPTION 'pld: only an active administrator proposes a policy' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.authenticated_at NOT BETWEEN clock_timestamp() - interval '5 minutes' AND clock_timestamp() + interval '5 seconds' THEN
    RAISE EXCEPTION 'pld: re-authenticate to propose a policy' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.proposed_by_id
                 AND e.action = 'policy.proposed' AND e.object_type = 'task' AND e.object_id = NEW.task_id::text) THEN
    RAISE EXCEPTION 'pld: a proposed policy needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  NEW.created_at := clock_timestamp();
  RETURN NEW;
"""

POLICY_DECISION = """
  SELECT * INTO p FROM rules_signoffpolicy WHERE id = NEW.policy_id;
  PERFORM 1 FROM rules_task WHERE id = p.task_id FOR UPDATE;
  IF p.version = 1 THEN
    RAISE EXCEPTION 'pld: the first policy is in force already' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.actor_id FOR SHARE;
  IF (u.is_active AND u.role IN ('admin', 'signatory') AND u.role = NEW.actor_role) IS NOT TRUE THEN
    RAISE EXCEPTION 'pld: only an active administrator or signatory decides on a policy' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.verdict = 'confirmed' AND NEW.actor_id = p.proposed_by_id THEN
    RAISE EXCEPTION 'pld: nobody confirms their own proposal' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.authenticated_at NOT BETWEEN clock_timestamp() - interval '5 minutes' AND clock_timestamp() + interval '5 seconds' THEN
    RAISE EXCEPTION 'pld: re-authenticate to decide on a policy' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.actor_id
                 AND e.action = 'policy.' || NEW.verdict AND e.object_type = 'task' AND e.object_id = p.task_id::text) THEN
    RAISE EXCEPTION 'pld: a decision on a policy needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

POLICY_TAKES_EFFECT = """
  IF NEW.verdict = 'confirmed' THEN
    UPDATE rules_task t SET signers_required = p.signers_required, signer_roles = p.signer_roles
      FROM rules_signoffpolicy p WHERE p.id = NEW.policy_id AND t.id = p.task_id;
  END IF;
  RETURN NULL;
"""

RULE_READ = """
  SELECT * INTO s FROM rules_ruleset WHERE id = NEW.ruleset_id;
  IF s.status <> 'in_sign_off' OR NOT EXISTS (SELECT 1 FROM rules_rulesetitem x WHERE x.ruleset_id = s.id
                                              AND x.instruction_id = NEW.instruction_id) THEN
    RAISE EXCEPTION 'pld: this instruction is not in sign-off' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.reader_id
                 AND e.action = 'ruleset.rule_read' AND e.object_type = 'ruleset' AND e.object_id = NEW.ruleset_id::text) THEN
    RAISE EXCEPTION 'pld: a reading needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

# Fires after pld_guard_signature, which holds the lock on the ruleset.
SIGNATURE_POLICY = """
  SELECT * INTO s FROM rules_ruleset WHERE id = NEW.ruleset_id;
  p := convert_from(s.manifest, 'UTF8')::jsonb;
  -- Not locked: a policy confirmed at this moment is met by the release, which locks the task.
  IF NOT pld_policy_is_current(s.task_id, p) THEN
    RAISE EXCEPTION 'pld: the sign-off policy changed since this was frozen' USING ERRCODE = 'check_violation';
  END IF;
  p := p->'policy';
  IF pld_worked_on(s.id, NEW.signer_id) THEN
    RAISE EXCEPTION 'pld: who composed or edited a ruleset does not sign it' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT coalesce((p->>'miners_may_sign')::boolean, true) AND EXISTS (
       SELECT 1 FROM rules_rulesetitem x JOIN rules_instruction i ON i.id = x.instruction_id
         JOIN rules_miningrun r ON r.id = i.run_id WHERE x.ruleset_id = s.id AND r.created_by_id = NEW.signer_id) THEN
    RAISE EXCEPTION 'pld: who started the mining does not sign its instructions' USING ERRCODE = 'check_violation';
  END IF;
  IF coalesce((p->>'read_changed_first')::boolean, false) AND EXISTS (
       SELECT 1 FROM pld_to_be_read(s.id) r WHERE NOT EXISTS (SELECT 1 FROM rules_ruleread o
         WHERE o.ruleset_id = s.id AND o.instruction_id = r.instruction_id AND o.reader_id = NEW.signer_id)) THEN
    RAISE EXCEPTION 'pld: open every edited or conflicting instruction before signing' USING ERRCODE = 'check_violation';
  END IF;
  SELECT domain INTO NEW.signer_domain FROM pld_app_user WHERE id = NEW.signer_id;
  RETURN NEW;
"""

RELEASE_POLICY = """
  IF NOT pld_policy_is_current(NEW.task_id, (SELECT convert_from(manifest, 'UTF8')::jsonb FROM rules_ruleset WHERE id = NEW.ruleset_id)) THEN
    RAISE EXCEPTION 'pld: the sign-off policy changed since this was frozen' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# The stricter of the two policies counts: the one that was signed and the one in force.
PUBLICATION_DUTIES = """
  SELECT * INTO s FROM rules_ruleset WHERE id = (SELECT ruleset_id FROM rules_release WHERE id = NEW.release_id);
  IF pld_worked_on(s.id, NEW.actor_id) THEN
    RAISE EXCEPTION 'pld: who composed or edited a ruleset does not publish it' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.kind = 'publish'
     AND EXISTS (SELECT 1 FROM rules_signature g WHERE g.ruleset_id = s.id AND g.signer_id = NEW.actor_id)
     AND NOT (coalesce((convert_from(s.manifest, 'UTF8')::jsonb->'policy'->>'publisher_may_have_signed')::boolean, true)
              AND (SELECT publisher_may_have_signed FROM rules_signoffpolicy WHERE id = pld_policy_in_force(NEW.task_id))) THEN
    RAISE EXCEPTION 'pld: who signed a ruleset does not publish it' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0011_sign_off_policy")]
    operations = [
        migrations.RunSQL(FIRST_POLICIES, migrations.RunSQL.noop),
        # The reverses keep the replaced functions: what they drop is used by nothing older.
        migrations.RunSQL(FUNCTIONS, DROP_FUNCTIONS),
        migrations.RunSQL(RULESET_FREEZE, migrations.RunSQL.noop),
        append_only("rules_signoffpolicy"),
        append_only("rules_policydecision"),
        append_only("rules_ruleread"),
        guard("rules_task", "AFTER INSERT", "pld_task_policy", TASK_POLICY),
        guard("rules_task", "BEFORE UPDATE", "pld_guard_task_policy", TASK_UPDATE),
        guard("rules_signoffpolicy", "BEFORE INSERT", "pld_guard_policy", POLICY_INSERT, "u pld_app_user;"),
        guard("rules_policydecision", "BEFORE INSERT", "pld_guard_policy_decision", POLICY_DECISION,
              "p rules_signoffpolicy; u pld_app_user;"),
        guard("rules_policydecision", "AFTER INSERT", "pld_policy_takes_effect", POLICY_TAKES_EFFECT),
        guard("rules_ruleread", "BEFORE INSERT", "pld_guard_rule_read", RULE_READ, "s rules_ruleset;"),
        guard("rules_signature", "BEFORE INSERT", "pld_guard_signature_policy", SIGNATURE_POLICY,
              "s rules_ruleset; p jsonb;"),
        guard("rules_release", "BEFORE INSERT", "pld_guard_release_policy", RELEASE_POLICY),
        guard("rules_publication", "BEFORE INSERT", "pld_guard_publication_duties", PUBLICATION_DUTIES,
              "s rules_ruleset;"),
    ]
