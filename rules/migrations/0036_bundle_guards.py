"""A bundle goes forward through its states alone, and is ready only with the signature of the log's process.

The request is its person's, on record; what it is of, its statement and the finished file's hash never change.
"""

from django.db import migrations

from pld_app.triggers import append_only, guard, no_delete, requires_event

INSERT = """
  IF NEW.state <> 'requested' THEN
    RAISE EXCEPTION 'pld: a bundle begins as a request' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM 1 FROM rules_ruleset s WHERE s.id = NEW.ruleset_id AND s.status = 'signed' FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'pld: only a signed ruleset has a bundle' USING ERRCODE = 'check_violation';
  END IF;
  NEW.created_at := clock_timestamp();
  RETURN NEW;
"""

UPDATE = """
  IF (NEW.ruleset_id, NEW.requested_by_id, NEW.event_id, NEW.created_at, NEW.folder)
     IS DISTINCT FROM (OLD.ruleset_id, OLD.requested_by_id, OLD.event_id, OLD.created_at, OLD.folder) THEN
    RAISE EXCEPTION 'pld: whose request a bundle is never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.state <> OLD.state AND NOT (OLD.state || '>' || NEW.state) = ANY (ARRAY['requested>building', 'building>signing',
       'signing>ready', 'ready>expired', 'requested>failed', 'building>failed', 'signing>failed']) THEN
    RAISE EXCEPTION 'pld: a bundle that is % does not become %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.state NOT IN ('requested', 'building') AND (NEW.statement, NEW.checkpoint_id, NEW.events_total)
       IS DISTINCT FROM (OLD.statement, OLD.checkpoint_id, OLD.events_total) THEN
    RAISE EXCEPTION 'pld: what was handed to the log''s key never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.state IN ('ready', 'expired', 'failed') AND (NEW.sha256, NEW.size, NEW.error, NEW.expires_at)
       IS DISTINCT FROM (OLD.sha256, OLD.size, OLD.error, OLD.expires_at) THEN
    RAISE EXCEPTION 'pld: a finished bundle never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.state = 'ready' AND OLD.state = 'signing' THEN
    PERFORM 1 FROM rules_bundlesignature g WHERE g.request_id = NEW.id AND g.envelope IS NOT NULL;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'pld: a bundle without the log''s signature is not ready' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN NEW;
"""

SIGNATURE = """
  PERFORM 1 FROM rules_bundlerequest r WHERE r.id = NEW.request_id AND r.state = 'signing';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'pld: this bundle does not wait for a signature' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0035_bundle_requests")]

    operations = [
        guard("rules_bundlerequest", "BEFORE INSERT", "pld_guard_bundle_insert", INSERT, as_owner=True),
        guard("rules_bundlerequest", "BEFORE UPDATE", "pld_guard_bundle_update", UPDATE),
        no_delete("rules_bundlerequest"),
        requires_event(
            "rules_bundlerequest",
            about=("ruleset", "ruleset_id"),
            actions=["bundle.requested"],
            actor="requested_by_id",
        ),
        guard("rules_bundlesignature", "BEFORE INSERT", "pld_guard_bundle_signature", SIGNATURE),
        append_only("rules_bundlesignature"),
    ]
