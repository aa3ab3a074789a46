"""Every audit event becomes a leaf: its body in canonical bytes, its place in a chain, and the hash of both.

The database makes them in the event's own INSERT, from the row's columns alone, so that a body that says something else
than the row cannot exist and no path around `audit_record` leaves a leaf out. docs/governance.md describes the record.
Events from before this migration get theirs here, in the order of their ids; their times stay.
"""

from django.db import migrations, models

# Key of the lock that every event holds in share mode until its commit; the sealer takes it alone for one look.
FENCE = 5783748000  # arbitrary, the same in pld_app.transparency.sealing
ORIGIN = r"'\x" + "00" * 32 + "'::bytea"

CANONICAL = r"""
-- RFC 8785 sorts keys by UTF-16 code units: beyond the basic plane (surrogates, D800-DFFF) comes before E000-FFFF.
CREATE FUNCTION pld_utf16_order(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT CASE WHEN octet_length(value) = length(value) THEN value
              ELSE regexp_replace(value, '([\uE000-\uFFFF])', chr(1114111) || '\1', 'g') END
$$;
-- The bytes that pld_app.canonical.canonical_json makes, as text. Integers only, as there.
CREATE FUNCTION pld_canonical_json(value jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  CASE jsonb_typeof(value)
  WHEN 'object' THEN
    RETURN (SELECT '{' || coalesce(string_agg(to_json(name)::text || ':' || CASE
              WHEN jsonb_typeof(inner_) IN ('object', 'array', 'number') THEN pld_canonical_json(inner_)
              ELSE inner_::text END, ',' ORDER BY pld_utf16_order(name) COLLATE "C"), '') || '}'
            FROM jsonb_each(value) AS pairs(name, inner_));
  WHEN 'array' THEN
    RETURN (SELECT '[' || coalesce(string_agg(CASE
              WHEN jsonb_typeof(inner_) IN ('object', 'array', 'number') THEN pld_canonical_json(inner_)
              ELSE inner_::text END, ',' ORDER BY place), '') || ']'
            FROM jsonb_array_elements(value) WITH ORDINALITY AS parts(inner_, place));
  WHEN 'number' THEN
    IF value::text !~ '^-?[0-9]+$' OR abs(value::numeric) > 9007199254740991 THEN
      RAISE EXCEPTION 'pld: the data of an event holds no fractions and no integer beyond 2^53 - 1'
        USING ERRCODE = 'check_violation';
    END IF;
    RETURN value::text;
  ELSE
    RETURN value::text;
  END CASE;
END $$;
"""
DROP_CANONICAL = "DROP FUNCTION pld_canonical_json(jsonb); DROP FUNCTION pld_utf16_order(text);"

# What a leaf is made of. `pld_ruleset_of` names tables of the app `rules`, looked up only when an event is about one.
PARTS = """
CREATE FUNCTION pld_ruleset_of(object_type text, object_id text) RETURNS bigint LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  RETURN CASE object_type
    WHEN 'ruleset' THEN object_id::bigint
    WHEN 'release' THEN (SELECT ruleset_id FROM rules_release WHERE id = object_id::bigint)
    WHEN 'signature' THEN (SELECT ruleset_id FROM rules_signature WHERE id = object_id::bigint)
    WHEN 'publication' THEN (SELECT r.ruleset_id FROM rules_publication p JOIN rules_release r ON r.id = p.release_id
                              WHERE p.id = object_id::bigint)
  END;
END $$;

CREATE FUNCTION pld_audit_chain(object_type text, object_id text, task_slug text) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE ruleset bigint := pld_ruleset_of(object_type, object_id);
BEGIN
  IF ruleset IS NOT NULL THEN RETURN 'ruleset:' || ruleset; END IF;
  -- A leaf is ASCII without escapes, so that any tool writes the same bytes; what is no slug names no task anyway.
  RETURN CASE WHEN task_slug ~ '^[A-Za-z0-9_-]+$' THEN 'task:' || task_slug ELSE 'platform' END;
END $$;

CREATE FUNCTION pld_audit_body(e pld_app_auditevent) RETURNS bytea LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  RETURN convert_to('{"action":' || to_json(e.action)::text
    || ',"actor":{"id":' || coalesce(e.actor_id::text, 'null') || ',"name":' || to_json(e.actor_name)::text
    || ',"role":' || to_json(e.actor_role)::text || '},"app_version":' || to_json(e.app_version)::text
    || ',"data_sha256":"' || encode(sha256(convert_to(pld_canonical_json(e.data), 'UTF8')), 'hex')
    || '","object":{"id":' || to_json(e.object_id)::text || ',"label":' || to_json(e.object_label)::text
    || ',"type":' || to_json(e.object_type)::text || '},"request_id":' || to_json(e.request_id)::text
    || ',"task":' || to_json(e.task_slug)::text || ',"v":1}', 'UTF8');
END $$;

CREATE FUNCTION pld_audit_leaf(e pld_app_auditevent) RETURNS bytea LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  RETURN convert_to('{"at":"' || to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    || '","body_sha256":"' || encode(sha256(e.body), 'hex') || '","chain":"' || e.chain
    || '","prev":"' || encode(e.prev, 'hex') || '","seq":' || e.seq || ',"v":1}', 'UTF8');
END $$;
"""
DROP_PARTS = """
DROP FUNCTION pld_audit_leaf(pld_app_auditevent); DROP FUNCTION pld_audit_body(pld_app_auditevent);
DROP FUNCTION pld_audit_chain(text, text, text); DROP FUNCTION pld_ruleset_of(text, text);
"""

BACKFILL = f"""
ALTER TABLE pld_app_auditevent DISABLE TRIGGER pld_append_only;
DO $$
DECLARE e pld_app_auditevent; link pld_app_auditchain;
BEGIN
  FOR e IN SELECT * FROM pld_app_auditevent ORDER BY id LOOP
    e.chain := pld_audit_chain(e.object_type, e.object_id, e.task_slug);
    INSERT INTO pld_app_auditchain (name, seq, head) VALUES (e.chain, 0, {ORIGIN}) ON CONFLICT DO NOTHING;
    SELECT * INTO link FROM pld_app_auditchain WHERE name = e.chain;
    e.seq := link.seq + 1;
    e.prev := link.head;
    e.body := pld_audit_body(e);
    e.leaf := pld_audit_leaf(e);
    e.leaf_hash := sha256('\\x00'::bytea || e.leaf);
    UPDATE pld_app_auditevent SET chain = e.chain, seq = e.seq, prev = e.prev, body = e.body, leaf = e.leaf,
           leaf_hash = e.leaf_hash WHERE id = e.id;
    UPDATE pld_app_auditchain SET seq = e.seq, head = e.leaf_hash WHERE name = e.chain;
  END LOOP;
END $$;
ALTER TABLE pld_app_auditevent ENABLE ALWAYS TRIGGER pld_append_only;
"""

# Locks come first and the id after them: ids then go up along each chain, and once the sealer has held the fence alone,
# every id it saw is committed and every later one is higher. Writing the event last keeps the chain's lock short.
TRIGGER = f"""
ALTER TABLE pld_app_auditchain SET (fillfactor = 50);
CREATE FUNCTION pld_audit_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE link pld_app_auditchain;
BEGIN
  -- The default has just drawn this id in this session; any other was chosen, say to meet another row.
  IF NEW.id IS DISTINCT FROM currval('public.pld_app_auditevent_id_seq')
     OR EXISTS (SELECT 1 FROM pld_app_auditevent WHERE id = NEW.id) THEN
    RAISE EXCEPTION 'pld: the database numbers the events' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pg_advisory_xact_lock_shared({FENCE});
  NEW.chain := pld_audit_chain(NEW.object_type, NEW.object_id, NEW.task_slug);
  SELECT * INTO link FROM pld_app_auditchain WHERE name = NEW.chain FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    INSERT INTO pld_app_auditchain (name, seq, head) VALUES (NEW.chain, 0, {ORIGIN}) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT link FROM pld_app_auditchain WHERE name = NEW.chain FOR NO KEY UPDATE;
  END IF;
  NEW.id := nextval('public.pld_app_auditevent_id_seq');
  NEW.at := clock_timestamp();
  NEW.seq := link.seq + 1;
  NEW.prev := link.head;
  NEW.body := pld_audit_body(NEW);
  NEW.leaf := pld_audit_leaf(NEW);
  NEW.leaf_hash := sha256('\\x00'::bytea || NEW.leaf);
  UPDATE pld_app_auditchain SET seq = NEW.seq, head = NEW.leaf_hash WHERE name = NEW.chain;
  -- What leaves the house is sealed at once; all else waits for the sealer's next round.
  IF NEW.action ~ '^release\\.|\\.exported$' THEN
    PERFORM pg_notify('pld_audit_seal', '');
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER pld_audit_insert BEFORE INSERT ON pld_app_auditevent FOR EACH ROW EXECUTE FUNCTION pld_audit_insert();
ALTER TABLE pld_app_auditevent ENABLE ALWAYS TRIGGER pld_audit_insert;
CREATE TRIGGER pld_no_delete BEFORE DELETE ON pld_app_auditchain FOR EACH ROW EXECUTE FUNCTION pld_refuse_change();
CREATE TRIGGER pld_no_truncate BEFORE TRUNCATE ON pld_app_auditchain FOR EACH STATEMENT EXECUTE FUNCTION pld_refuse_change();
ALTER TABLE pld_app_auditchain ENABLE ALWAYS TRIGGER pld_no_delete;
ALTER TABLE pld_app_auditchain ENABLE ALWAYS TRIGGER pld_no_truncate;
"""
DROP_TRIGGER = """
DROP TRIGGER pld_no_truncate ON pld_app_auditchain; DROP TRIGGER pld_no_delete ON pld_app_auditchain;
DROP TRIGGER pld_audit_insert ON pld_app_auditevent; DROP FUNCTION pld_audit_insert();
"""


def _bytes(name: str) -> migrations.AddField:
    return migrations.AddField("auditevent", name, models.BinaryField(db_default=b"", editable=False))


class Migration(migrations.Migration):
    dependencies = [("pld_app", "0003_call_run_and_endpoint_api")]
    operations = [
        migrations.CreateModel(
            "AuditChain",
            fields=[
                ("name", models.CharField(max_length=80, primary_key=True, serialize=False)),
                ("seq", models.BigIntegerField()),
                ("head", models.BinaryField()),
            ],
        ),
        migrations.AddField("auditevent", "app_version", models.CharField(blank=True, db_default="", max_length=20)),
        migrations.AddField("auditevent", "chain", models.CharField(db_default="", editable=False, max_length=80)),
        migrations.AddField("auditevent", "seq", models.BigIntegerField(db_default=0, editable=False)),
        _bytes("prev"),
        _bytes("body"),
        _bytes("leaf"),
        _bytes("leaf_hash"),
        migrations.RunSQL(CANONICAL, DROP_CANONICAL),
        migrations.RunSQL(PARTS, DROP_PARTS),
        migrations.RunSQL(BACKFILL, migrations.RunSQL.noop),
        migrations.AddConstraint(
            "auditevent", models.UniqueConstraint(fields=["chain", "seq"], name="audit_chain_without_gaps")
        ),
        migrations.AddConstraint(
            "auditevent", models.UniqueConstraint(fields=["chain", "prev"], name="audit_chain_without_forks")
        ),
        migrations.RunSQL(TRIGGER, DROP_TRIGGER),
    ]
