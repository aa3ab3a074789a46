"""What is always true, held by the database: see docs/security.md for the list and the test of each.

Refusals use SQLSTATE 23514 (check_violation) with a message that begins "pld:", so that code and people can tell them apart.
"""

from django.db import migrations

from pld_app.triggers import append_only, guard, no_delete

# Insert of a decision: by an active reviewer, on the current text, with its own audit event; approval not by the author.
DECISION = """
  SELECT * INTO i FROM rules_instruction WHERE id = NEW.instruction_id FOR UPDATE;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.actor_id FOR SHARE;
  IF NOT u.is_active OR u.role <> 'reviewer' THEN
    RAISE EXCEPTION 'pld: only an active reviewer decides' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.actor_id
                 AND e.object_type = 'instruction' AND e.object_id = NEW.instruction_id::text) THEN
    RAISE EXCEPTION 'pld: a decision needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO r FROM rules_revision WHERE id = NEW.revision_id;
  IF r.instruction_id <> NEW.instruction_id OR NEW.revision_id IS DISTINCT FROM i.current_revision_id THEN
    RAISE EXCEPTION 'pld: a decision names the current text' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.kind = 'approve' AND r.author_id IS NOT DISTINCT FROM NEW.actor_id THEN
    RAISE EXCEPTION 'pld: nobody approves their own edit' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.kind = 'reopen' THEN
    IF i.status NOT IN ('approved', 'rejected') THEN
      RAISE EXCEPTION 'pld: only a decided instruction is reopened' USING ERRCODE = 'check_violation';
    END IF;
  ELSIF i.status NOT IN ('proposed', 'in_review') THEN
    RAISE EXCEPTION 'pld: this instruction is no longer open' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

INSTRUCTION_INSERT = """
  IF NEW.status <> 'proposed' OR NEW.approved_revision_id IS NOT NULL OR NEW.current_revision_id IS NOT NULL THEN
    RAISE EXCEPTION 'pld: an instruction starts as proposed' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# Update of an instruction: identity is fixed, status follows the state machine, approval needs a decision on this text.
INSTRUCTION_UPDATE = """
  IF (NEW.task_id, NEW.number, NEW.label, NEW.is_seeded, NEW.origin)
     IS DISTINCT FROM (OLD.task_id, OLD.number, OLD.label, OLD.is_seeded, OLD.origin) THEN
    RAISE EXCEPTION 'pld: task, number, label, origin and seed mark of an instruction never change' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (
       (OLD.status = 'proposed' AND NEW.status IN ('in_review', 'approved', 'rejected', 'superseded'))
    OR (OLD.status = 'in_review' AND NEW.status IN ('approved', 'rejected', 'superseded'))
    OR (OLD.status = 'approved' AND NEW.status IN ('in_review', 'superseded'))
    OR (OLD.status = 'rejected' AND NEW.status = 'in_review')) THEN
    RAISE EXCEPTION 'pld: an instruction that is % cannot become %', OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.current_revision_id IS DISTINCT FROM OLD.current_revision_id THEN
    IF NEW.status NOT IN ('proposed', 'in_review') THEN
      RAISE EXCEPTION 'pld: the text of a decided instruction does not change' USING ERRCODE = 'check_violation';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM rules_revision r WHERE r.id = NEW.current_revision_id AND r.instruction_id = NEW.id
                   AND r.number = (SELECT max(number) FROM rules_revision WHERE instruction_id = NEW.id)) THEN
      RAISE EXCEPTION 'pld: the current text is the newest revision' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  IF NEW.status IN ('approved', 'rejected') AND NEW.status <> OLD.status AND NOT EXISTS (
       SELECT 1 FROM rules_decision d
       WHERE d.instruction_id = NEW.id AND d.revision_id = NEW.current_revision_id
         AND d.kind = CASE NEW.status WHEN 'approved' THEN 'approve' ELSE 'reject' END
         AND d.id = (SELECT max(id) FROM rules_decision WHERE instruction_id = NEW.id)) THEN
    RAISE EXCEPTION 'pld: % needs a decision on this text', NEW.status USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# A text that is no longer approved voids every ruleset that holds it and is not yet released.
INSTRUCTION_VOIDS = """
  IF OLD.status = 'approved' AND NEW.status <> 'approved' THEN
    UPDATE rules_ruleset s SET status = 'withdrawn', version = s.version + 1,
           withdrawn_reason = 'Instruction #' || NEW.number || ' is no longer approved.'
     WHERE s.status IN ('in_sign_off', 'signed')
       AND EXISTS (SELECT 1 FROM rules_rulesetitem x WHERE x.ruleset_id = s.id AND x.instruction_id = NEW.id)
       AND NOT EXISTS (SELECT 1 FROM rules_release l WHERE l.ruleset_id = s.id);
  END IF;
  RETURN NULL;
"""

REVISION = """
  -- The instruction is locked so that an approval and a new text cannot pass each other.
  SELECT * INTO i FROM rules_instruction WHERE id = NEW.instruction_id FOR UPDATE;
  IF i.status NOT IN ('proposed', 'in_review') THEN
    RAISE EXCEPTION 'pld: reopen the instruction before editing it' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.text_sha256 <> encode(sha256(convert_to(NEW.text, 'UTF8')), 'hex') THEN
    RAISE EXCEPTION 'pld: the hash is not that of the text' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.number <> 1 + (SELECT count(*) FROM rules_revision WHERE instruction_id = NEW.instruction_id) THEN
    RAISE EXCEPTION 'pld: revisions are numbered without gaps' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

RULESET_INSERT = """
  IF NEW.status <> 'draft' OR NEW.manifest IS NOT NULL THEN
    RAISE EXCEPTION 'pld: a ruleset starts as a draft' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# Freezing compares the manifest with the approved rows, text by text; a frozen ruleset never changes again.
RULESET_UPDATE = """
  IF (NEW.task_id, NEW.number) IS DISTINCT FROM (OLD.task_id, OLD.number) THEN
    RAISE EXCEPTION 'pld: task and number of a ruleset never change' USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.status <> 'draft' AND (NEW.manifest, NEW.manifest_sha256, NEW.prompt, NEW.prompt_sha256, NEW.frozen_at,
       NEW.composed_by_id, NEW.name) IS DISTINCT FROM (OLD.manifest, OLD.manifest_sha256, OLD.prompt, OLD.prompt_sha256,
       OLD.frozen_at, OLD.composed_by_id, OLD.name) THEN
    RAISE EXCEPTION 'pld: a frozen ruleset never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (
       (OLD.status = 'draft' AND NEW.status IN ('in_sign_off', 'withdrawn'))
    OR (OLD.status = 'in_sign_off' AND NEW.status IN ('signed', 'withdrawn'))
    OR (OLD.status = 'signed' AND NEW.status = 'withdrawn')) THEN
    RAISE EXCEPTION 'pld: a ruleset that is % cannot become %', OLD.status, NEW.status USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.status = 'in_sign_off' AND OLD.status = 'draft' THEN
    IF NEW.manifest_sha256 <> encode(sha256(NEW.manifest), 'hex')
       OR NEW.prompt_sha256 <> encode(sha256(convert_to(NEW.prompt, 'UTF8')), 'hex') THEN
      RAISE EXCEPTION 'pld: the hash is not that of the manifest or prompt' USING ERRCODE = 'check_violation';
    END IF;
    m := convert_from(NEW.manifest, 'UTF8')::jsonb;
    PERFORM 1 FROM rules_instruction i JOIN rules_rulesetitem x ON x.instruction_id = i.id
      WHERE x.ruleset_id = NEW.id ORDER BY i.id FOR SHARE OF i;
    IF EXISTS (SELECT 1 FROM rules_rulesetitem x JOIN rules_instruction i ON i.id = x.instruction_id
               WHERE x.ruleset_id = NEW.id AND (i.status <> 'approved' OR i.is_seeded
                 OR i.task_id <> NEW.task_id OR x.revision_id IS DISTINCT FROM i.approved_revision_id)) THEN
      RAISE EXCEPTION 'pld: every text in a manifest is an approved one' USING ERRCODE = 'check_violation';
    END IF;
    SELECT jsonb_agg(jsonb_build_array(i.number, r.number, i.label, r.text) ORDER BY x.position) INTO rows_
      FROM rules_rulesetitem x JOIN rules_instruction i ON i.id = x.instruction_id JOIN rules_revision r ON r.id = x.revision_id
     WHERE x.ruleset_id = NEW.id;
    SELECT jsonb_agg(jsonb_build_array(e->'number', e->'revision', e->'label', e->'text') ORDER BY ord) INTO said
      FROM jsonb_array_elements(m->'instructions') WITH ORDINALITY AS t(e, ord);
    IF rows_ IS NULL OR rows_ IS DISTINCT FROM said THEN
      RAISE EXCEPTION 'pld: the manifest must list exactly the approved instructions' USING ERRCODE = 'check_violation';
    END IF;
    IF (m->>'prompt_sha256') IS DISTINCT FROM NEW.prompt_sha256 THEN
      RAISE EXCEPTION 'pld: the manifest must carry the hash of the prompt' USING ERRCODE = 'check_violation';
    END IF;
    SELECT * INTO t_ FROM rules_task WHERE id = NEW.task_id;
    IF (m->'policy'->>'signers_required')::int IS DISTINCT FROM t_.signers_required::int
       OR NOT ((m->'policy'->'signer_roles') @> to_jsonb(t_.signer_roles) AND (m->'policy'->'signer_roles') <@ to_jsonb(t_.signer_roles)) THEN
      RAISE EXCEPTION 'pld: the manifest must carry the sign-off policy of its task' USING ERRCODE = 'check_violation';
    END IF;
    NEW.frozen_at := clock_timestamp();
  END IF;
  IF NEW.status = 'signed' AND OLD.status = 'in_sign_off' AND NOT pld_signatures_complete(NEW.id) THEN
    RAISE EXCEPTION 'pld: signatures are missing' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# Enough distinct signers by the policy in the signed bytes, one of them approving, all over this very hash.
SIGNATURES_COMPLETE = """
CREATE FUNCTION pld_signatures_complete(ruleset bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT count(DISTINCT g.signer_id) >= (convert_from(s.manifest, 'UTF8')::jsonb->'policy'->>'signers_required')::int
     AND count(DISTINCT g.signer_id) >= 2
     AND bool_or(g.meaning = 'approved')
  FROM rules_ruleset s JOIN rules_signature g ON g.ruleset_id = s.id AND g.manifest_sha256 = s.manifest_sha256
  WHERE s.id = ruleset GROUP BY s.manifest
$$;
"""

ITEM_INSERT = """
  SELECT * INTO s FROM rules_ruleset WHERE id = NEW.ruleset_id FOR UPDATE;
  IF s.status <> 'draft' THEN
    RAISE EXCEPTION 'pld: only a draft ruleset takes instructions' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO i FROM rules_instruction WHERE id = NEW.instruction_id FOR SHARE;
  IF i.status <> 'approved' OR i.is_seeded OR i.task_id <> s.task_id OR NEW.revision_id IS DISTINCT FROM i.approved_revision_id THEN
    RAISE EXCEPTION 'pld: only the approved text of an approved instruction enters a ruleset' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

ITEM_UPDATE = """
  SELECT * INTO s FROM rules_ruleset WHERE id = OLD.ruleset_id FOR UPDATE;
  IF s.status <> 'draft' THEN
    RAISE EXCEPTION 'pld: a frozen ruleset never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
  IF (NEW.ruleset_id, NEW.instruction_id, NEW.revision_id) IS DISTINCT FROM (OLD.ruleset_id, OLD.instruction_id, OLD.revision_id) THEN
    RAISE EXCEPTION 'pld: an item keeps its text; only its place changes' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

SIGNATURE = """
  SELECT * INTO s FROM rules_ruleset WHERE id = NEW.ruleset_id FOR UPDATE;
  IF s.status <> 'in_sign_off' THEN
    RAISE EXCEPTION 'pld: this ruleset is not in sign-off' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.manifest_sha256 <> s.manifest_sha256 THEN
    RAISE EXCEPTION 'pld: the signature is over another manifest' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.signer_id FOR SHARE;
  IF NOT u.is_active OR u.role <> NEW.signer_role
     OR NOT (convert_from(s.manifest, 'UTF8')::jsonb->'policy'->'signer_roles') ? u.role THEN
    RAISE EXCEPTION 'pld: this account may not sign' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.signer_id = s.composed_by_id OR EXISTS (
       SELECT 1 FROM rules_rulesetitem x JOIN rules_revision r ON r.id = x.revision_id
       WHERE x.ruleset_id = s.id AND r.author_id = NEW.signer_id) THEN
    RAISE EXCEPTION 'pld: who composed or edited a ruleset does not sign it' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.authenticated_at NOT BETWEEN clock_timestamp() - interval '5 minutes' AND clock_timestamp() + interval '5 seconds' THEN
    RAISE EXCEPTION 'pld: re-authenticate to sign' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.signer_id
                 AND e.object_type = 'ruleset' AND e.object_id = NEW.ruleset_id::text) THEN
    RAISE EXCEPTION 'pld: a signature needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

RELEASE = """
  -- One release at a time per task: versions have no gaps.
  PERFORM 1 FROM rules_task WHERE id = NEW.task_id FOR UPDATE;
  SELECT * INTO s FROM rules_ruleset WHERE id = NEW.ruleset_id FOR UPDATE;
  IF s.status <> 'signed' OR NOT pld_signatures_complete(s.id) THEN
    RAISE EXCEPTION 'pld: only a signed ruleset is released' USING ERRCODE = 'check_violation';
  END IF;
  IF (NEW.task_id, NEW.manifest_sha256, NEW.prompt, NEW.prompt_sha256) IS DISTINCT FROM (s.task_id, s.manifest_sha256, s.prompt, s.prompt_sha256) THEN
    RAISE EXCEPTION 'pld: a release carries the signed bytes' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM rules_rulesetitem x JOIN rules_instruction i ON i.id = x.instruction_id
             WHERE x.ruleset_id = s.id AND (i.status <> 'approved' OR x.revision_id IS DISTINCT FROM i.approved_revision_id)) THEN
    RAISE EXCEPTION 'pld: an instruction of this ruleset is no longer approved' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.version <> 1 + (SELECT count(*) FROM rules_release WHERE task_id = NEW.task_id) THEN
    RAISE EXCEPTION 'pld: release versions have no gaps' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.created_by_id FOR SHARE;
  IF NOT u.is_active OR u.role <> 'signatory' THEN
    RAISE EXCEPTION 'pld: only an active signatory releases' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.created_by_id
                 AND e.object_type = 'ruleset' AND e.object_id = NEW.ruleset_id::text) THEN
    RAISE EXCEPTION 'pld: a release needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

PUBLICATION = """
  PERFORM 1 FROM rules_task WHERE id = NEW.task_id FOR UPDATE;
  SELECT * INTO l FROM rules_release WHERE id = NEW.release_id;
  IF l.task_id <> NEW.task_id THEN
    RAISE EXCEPTION 'pld: the release belongs to another task' USING ERRCODE = 'check_violation';
  END IF;
  IF (SELECT status FROM rules_ruleset WHERE id = l.ruleset_id) <> 'signed' THEN
    RAISE EXCEPTION 'pld: the ruleset of this release was withdrawn' USING ERRCODE = 'check_violation';
  END IF;
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.actor_id FOR SHARE;
  IF NOT u.is_active OR u.role <> 'signatory' THEN
    RAISE EXCEPTION 'pld: only an active signatory publishes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.kind = 'publish' AND NEW.channel = 'production' AND NOT EXISTS (
       SELECT 1 FROM rules_publication p WHERE p.release_id = NEW.release_id AND p.channel = 'staging') THEN
    RAISE EXCEPTION 'pld: a release goes to staging before production' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.kind = 'rollback' AND NOT EXISTS (
       SELECT 1 FROM rules_publication p WHERE p.release_id = NEW.release_id AND p.channel = NEW.channel) THEN
    RAISE EXCEPTION 'pld: a rollback goes to a release that was in this channel' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.authenticated_at NOT BETWEEN clock_timestamp() - interval '5 minutes' AND clock_timestamp() + interval '5 seconds' THEN
    RAISE EXCEPTION 'pld: re-authenticate to publish' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.actor_id
                 AND e.object_type = 'release' AND e.object_id = NEW.release_id::text) THEN
    RAISE EXCEPTION 'pld: a publication needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0001_initial"), ("pld_app", "0002_append_only")]
    operations = [
        append_only("rules_decision"),
        append_only("rules_revision"),
        append_only("rules_signature"),
        append_only("rules_release"),
        append_only("rules_publication"),
        no_delete("rules_instruction"),
        no_delete("rules_ruleset"),
        migrations.RunSQL(SIGNATURES_COMPLETE, "DROP FUNCTION pld_signatures_complete(bigint);"),
        guard("rules_decision", "BEFORE INSERT", "pld_guard_decision", DECISION,
              "i rules_instruction; u pld_app_user; r rules_revision;"),
        guard("rules_revision", "BEFORE INSERT", "pld_guard_revision", REVISION, "i rules_instruction;"),
        guard("rules_instruction", "BEFORE INSERT", "pld_guard_instruction_insert", INSTRUCTION_INSERT),
        guard("rules_instruction", "BEFORE UPDATE", "pld_guard_instruction_update", INSTRUCTION_UPDATE),
        guard("rules_instruction", "AFTER UPDATE", "pld_void_rulesets", INSTRUCTION_VOIDS),
        guard("rules_ruleset", "BEFORE INSERT", "pld_guard_ruleset_insert", RULESET_INSERT),
        guard("rules_ruleset", "BEFORE UPDATE", "pld_guard_ruleset_update", RULESET_UPDATE,
              "m jsonb; rows_ jsonb; said jsonb; t_ rules_task;"),
        guard("rules_rulesetitem", "BEFORE INSERT", "pld_guard_item_insert", ITEM_INSERT,
              "s rules_ruleset; i rules_instruction;"),
        guard("rules_rulesetitem", "BEFORE UPDATE OR DELETE", "pld_guard_item_update", ITEM_UPDATE, "s rules_ruleset;"),
        guard("rules_signature", "BEFORE INSERT", "pld_guard_signature", SIGNATURE,
              "s rules_ruleset; u pld_app_user;"),
        guard("rules_release", "BEFORE INSERT", "pld_guard_release", RELEASE, "s rules_ruleset; u pld_app_user;"),
        guard("rules_publication", "BEFORE INSERT", "pld_guard_publication", PUBLICATION,
              "l rules_release; u pld_app_user;"),
    ]
