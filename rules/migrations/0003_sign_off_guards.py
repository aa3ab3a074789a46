"""Four guards that 0002 lacked, each found by a test that broke it: see tests/publishing/test_database.py.

- A ruleset without any signature counted as complete, since "no rows" is NULL and NOT NULL raises nothing.
- A manifest without signer roles let every role sign, for the same reason; its frame could differ from the task's.
- The prompt only had to match its own hash. It must be what the manifest compiles to (rules.manifest.prompt_compile).
- A publication did not wait for a withdrawal under way, and the items of a frozen ruleset could be truncated.
"""

from django.db import migrations

from pld_app.triggers import guard

SIGNATURES_COMPLETE = """
CREATE OR REPLACE FUNCTION pld_signatures_complete(ruleset bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT coalesce((
    SELECT count(DISTINCT g.signer_id) >= (convert_from(s.manifest, 'UTF8')::jsonb->'policy'->>'signers_required')::int
       AND count(DISTINCT g.signer_id) >= 2
       AND bool_or(g.meaning = 'approved')
    FROM rules_ruleset s JOIN rules_signature g ON g.ruleset_id = s.id AND g.manifest_sha256 = s.manifest_sha256
    WHERE s.id = ruleset GROUP BY s.manifest), false)
$$;
"""

# The same folding and the same sections as rules.manifest: line breaks of str.splitlines, blanks of str.strip.
PROMPT_COMPILE = r"""
CREATE FUNCTION pld_blanks() RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT E'\t\n\u000b\f\r\u001c\u001d\u001e\u001f\u0020\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007'
      || E'\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000'
$$;
CREATE FUNCTION pld_one_line(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT coalesce(string_agg(btrim(part, pld_blanks()), ' ' ORDER BY place), '')
    FROM regexp_split_to_table(value, E'[\n\u000b\f\r\u001c\u001d\u001e\u0085\u2028\u2029]') WITH ORDINALITY AS t(part, place)
   WHERE btrim(part, pld_blanks()) <> ''
$$;
CREATE FUNCTION pld_block(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT btrim(replace(replace(value, E'\r\n', E'\n'), E'\r', E'\n'), pld_blanks())
$$;
CREATE FUNCTION pld_prompt_compile(preamble text, labels jsonb, instructions jsonb, output_contract text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN pld_block(preamble) = '' THEN '' ELSE pld_block(preamble) || E'\n\n' END
      || E'## Labels\n'
      || (SELECT string_agg('- ' || pld_one_line(label), E'\n' ORDER BY place)
            FROM jsonb_array_elements_text(labels) WITH ORDINALITY AS t(label, place))
      || E'\n\n## Instructions\n'
      || (SELECT string_agg(place || '. ' || pld_one_line(one->>'text'), E'\n' ORDER BY place)
            FROM jsonb_array_elements(instructions) WITH ORDINALITY AS t(one, place))
      || E'\n\n## Answer\n' || pld_block(output_contract) || E'\n'
$$;
"""
DROP_COMPILE = """
DROP FUNCTION pld_prompt_compile(text, jsonb, jsonb, text); DROP FUNCTION pld_block(text);
DROP FUNCTION pld_one_line(text); DROP FUNCTION pld_blanks();
"""

# Fires after pld_guard_ruleset_update (triggers go by name), which has compared the instructions with the approved rows.
RULESET_FREEZE = """
  IF NEW.status <> 'in_sign_off' OR OLD.status <> 'draft' THEN RETURN NEW; END IF;
  m := convert_from(NEW.manifest, 'UTF8')::jsonb;
  SELECT * INTO t_ FROM rules_task WHERE id = NEW.task_id;
  IF jsonb_typeof(m->'policy'->'signer_roles') IS DISTINCT FROM 'array' THEN
    RAISE EXCEPTION 'pld: the manifest must carry the sign-off policy of its task' USING ERRCODE = 'check_violation';
  END IF;
  IF (m->>'schema', m->>'task', m->'ruleset', m->>'name', m->'labels', m->>'preamble', m->>'output_contract')
     IS DISTINCT FROM ('ruleset-manifest/v1', t_.slug::text, to_jsonb(NEW.number), NEW.name::text, to_jsonb(t_.labels),
                       t_.preamble, t_.output_contract) THEN
    RAISE EXCEPTION 'pld: the manifest must carry the frame of its task' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.prompt IS DISTINCT FROM
     pld_prompt_compile(m->>'preamble', m->'labels', m->'instructions', m->>'output_contract') THEN
    RAISE EXCEPTION 'pld: the prompt must be what the manifest compiles to' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

PUBLICATION_LOCK = """
  SELECT s.status INTO state FROM rules_ruleset s JOIN rules_release l ON l.ruleset_id = s.id
   WHERE l.id = NEW.release_id FOR SHARE OF s;
  IF state IS DISTINCT FROM 'signed' THEN
    RAISE EXCEPTION 'pld: the ruleset of this release was withdrawn' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

NO_TRUNCATE = """
CREATE TRIGGER pld_no_truncate BEFORE TRUNCATE ON rules_rulesetitem
  FOR EACH STATEMENT EXECUTE FUNCTION pld_refuse_change();
ALTER TABLE rules_rulesetitem ENABLE ALWAYS TRIGGER pld_no_truncate;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0002_invariants")]
    operations = [
        # The reverse keeps the repaired function: 0002 drops it by name.
        migrations.RunSQL(SIGNATURES_COMPLETE, migrations.RunSQL.noop),
        migrations.RunSQL(PROMPT_COMPILE, DROP_COMPILE),
        guard("rules_ruleset", "BEFORE UPDATE", "pld_guard_ruleset_update_prompt", RULESET_FREEZE,
              "m jsonb; t_ rules_task;"),
        guard("rules_publication", "BEFORE INSERT", "pld_guard_publication_lock", PUBLICATION_LOCK, "state text;"),
        migrations.RunSQL(NO_TRUNCATE, "DROP TRIGGER pld_no_truncate ON rules_rulesetitem;"),
    ]
