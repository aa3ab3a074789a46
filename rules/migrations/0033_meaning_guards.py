"""What each meaning of a signature counts for, held by the database.

- "authored" is for a reviewer who composed or worded the ruleset, and counts for no approval;
- reviewed, approved and approved with conditions count; at least one of the two approvals is asked for;
- a rejection keeps the ruleset from ever being signed; its words, and those of conditions, stand in the audit event too.

The functions are those of 0002, 0012 and 0023 with these sentences added.
"""

from django.db import migrations

SIGNATURES_COMPLETE = """
CREATE OR REPLACE FUNCTION pld_signatures_complete(ruleset bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce((
    SELECT count(DISTINCT g.signer_id) >= (p.policy->>'signers_required')::int
       AND count(DISTINCT g.signer_id) >= 2
       AND bool_or(g.meaning IN ('approved', 'approved_with_conditions'))
       AND count(DISTINCT g.signer_id) FILTER (WHERE g.signer_role = 'signatory')
           >= coalesce((p.policy->>'signatories_required')::int, 0)
       AND coalesce(p.policy->'domains', '[]') <@ jsonb_agg(to_jsonb(g.signer_domain))
       AND NOT EXISTS (SELECT 1 FROM rules_signature x WHERE x.ruleset_id = ruleset AND x.meaning = 'rejected')
    FROM rules_ruleset s
    JOIN rules_signature g ON g.ruleset_id = s.id AND g.manifest_sha256 = s.manifest_sha256
         AND g.meaning IN ('reviewed', 'approved', 'approved_with_conditions')
    CROSS JOIN LATERAL (SELECT convert_from(s.manifest, 'UTF8')::jsonb->'policy' AS policy) p
    WHERE s.id = ruleset GROUP BY p.policy), false)
$$;
CREATE OR REPLACE FUNCTION pld_signers_stand(ruleset bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT NOT EXISTS (SELECT 1 FROM rules_signature g JOIN pld_app_user u ON u.id = g.signer_id
    WHERE g.ruleset_id = ruleset AND g.meaning <> 'authored' AND (NOT u.is_active OR u.role <> g.signer_role))
$$;
"""

SIGNATURE = """
CREATE OR REPLACE FUNCTION pld_guard_signature() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $guard$
DECLARE s rules_ruleset; u pld_app_user;
BEGIN
  SELECT * INTO s FROM rules_ruleset WHERE id = NEW.ruleset_id FOR UPDATE;
  IF s.status <> 'in_sign_off' THEN
    RAISE EXCEPTION 'pld: this ruleset is not in sign-off' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.manifest_sha256 <> s.manifest_sha256 THEN
    RAISE EXCEPTION 'pld: the signature is over another manifest' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.signer_id FOR SHARE;
  IF NOT u.is_active OR u.role <> NEW.signer_role OR NOT (CASE NEW.meaning WHEN 'authored' THEN u.role = 'reviewer'
       ELSE (convert_from(s.manifest, 'UTF8')::jsonb->'policy'->'signer_roles') ? u.role END) THEN
    RAISE EXCEPTION 'pld: this account may not sign' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.meaning = 'authored' AND NOT pld_worked_on(s.id, NEW.signer_id) THEN
    RAISE EXCEPTION 'pld: only who worked on a ruleset signs as its author' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.meaning <> 'authored' AND (NEW.signer_id = s.composed_by_id OR EXISTS (
       SELECT 1 FROM rules_rulesetitem x JOIN rules_revision r ON r.id = x.revision_id
       WHERE x.ruleset_id = s.id AND r.author_id = NEW.signer_id)) THEN
    RAISE EXCEPTION 'pld: who composed or edited a ruleset does not sign it' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.authenticated_at NOT BETWEEN clock_timestamp() - interval '5 minutes' AND clock_timestamp() + interval '5 seconds' THEN
    RAISE EXCEPTION 'pld: re-authenticate to sign' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.signer_id
                 AND e.object_type = 'ruleset' AND e.object_id = NEW.ruleset_id::text
                 AND coalesce(e.data->>'conditions', '') = NEW.conditions) THEN
    RAISE EXCEPTION 'pld: a signature needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
END $guard$;
"""

SIGNATURE_POLICY = """
CREATE OR REPLACE FUNCTION pld_guard_signature_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $guard$
DECLARE s rules_ruleset; p jsonb;
BEGIN
  SELECT domain INTO NEW.signer_domain FROM pld_app_user WHERE id = NEW.signer_id;
  IF NEW.meaning = 'authored' THEN RETURN NEW; END IF;
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
  IF NEW.meaning <> 'rejected' AND coalesce((p->>'read_changed_first')::boolean, false) AND EXISTS (
       SELECT 1 FROM pld_to_be_read(s.id) r WHERE NOT EXISTS (SELECT 1 FROM rules_ruleread o
         WHERE o.ruleset_id = s.id AND o.instruction_id = r.instruction_id AND o.reader_id = NEW.signer_id)) THEN
    RAISE EXCEPTION 'pld: open every edited or conflicting instruction before signing' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $guard$;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0032_meanings")]
    operations = [
        # The reverses keep the replaced functions: for the two meanings of before they do what those did.
        migrations.RunSQL(SIGNATURES_COMPLETE, migrations.RunSQL.noop),
        migrations.RunSQL(SIGNATURE, migrations.RunSQL.noop),
        migrations.RunSQL(SIGNATURE_POLICY, migrations.RunSQL.noop),
    ]
