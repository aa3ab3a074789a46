"""A role takes two administrators and a day, or a waiver on record; an account exists only beside its event.

- asked for by an active administrator for somebody else, confirmed by a second one, in effect 24 hours later by this
  server's clock, or at once where one who did not ask waives the wait with a reason; until then anybody of them refuses;
- the account's columns follow the step that puts a grant into effect, in its transaction; a closed account stays closed;
- an account of an administrator's making starts closed; only the command line makes an open one, as the system.

Refusals use SQLSTATE 23514 (check_violation) with a message that begins "pld:".
"""

from django.db import migrations

from pld_app.triggers import append_only, guard, requires_event

GRANT = """
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.user_id FOR NO KEY UPDATE;
  PERFORM 1 FROM pld_app_user a WHERE a.id = NEW.requested_by_id AND a.is_active AND a.role = 'admin' FOR SHARE;
  IF NOT FOUND OR NEW.requested_by_id = NEW.user_id THEN
    RAISE EXCEPTION 'pld: an administrator asks for the role of somebody else' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.role_before = '' AND (u.is_active OR (u.role, u.domain) IS DISTINCT FROM (NEW.role, NEW.domain)
       OR EXISTS (SELECT 1 FROM pld_app_rolegrant g WHERE g.user_id = NEW.user_id)
       OR NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.action = 'account.created' AND e.object_type = 'user'
                        AND e.object_id = NEW.user_id::text AND e.actor_id = NEW.requested_by_id
                        AND e.at >= transaction_timestamp())) THEN
    RAISE EXCEPTION 'pld: a closed account is not opened again' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.role_before <> '' AND (NOT u.is_active OR u.role <> NEW.role_before) THEN
    RAISE EXCEPTION 'pld: a role is asked for an open account as it stands' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM pld_app_rolegrant g WHERE g.user_id = NEW.user_id AND NOT EXISTS (
               SELECT 1 FROM pld_app_rolegrantstep s WHERE s.grant_id = g.id AND s.kind IN ('refused', 'applied'))) THEN
    RAISE EXCEPTION 'pld: a role of this account waits already' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

STEP = """
  SELECT * INTO g FROM pld_app_rolegrant WHERE id = NEW.grant_id;
  SELECT * INTO u FROM pld_app_user WHERE id = g.user_id FOR NO KEY UPDATE;
  IF NEW.user_id IS DISTINCT FROM g.user_id OR NOT EXISTS (
       SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id
          AND e.action = CASE NEW.kind WHEN 'applied' THEN 'account.role_changed' ELSE 'role.' || NEW.kind END) THEN
    RAISE EXCEPTION 'pld: a step of a grant needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM pld_app_rolegrantstep s WHERE s.grant_id = g.id AND s.kind IN ('refused', 'applied')) THEN
    RAISE EXCEPTION 'pld: this role was decided already' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.kind <> 'applied' THEN
    PERFORM 1 FROM pld_app_user a WHERE a.id = NEW.actor_id AND a.is_active AND a.role = 'admin' FOR SHARE;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'pld: only an active administrator decides on a role' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  IF NEW.kind IN ('confirmed', 'overridden') AND NEW.actor_id IN (g.requested_by_id, g.user_id) THEN
    RAISE EXCEPTION 'pld: a second administrator confirms a role' USING ERRCODE = 'check_violation';
  END IF;
  SELECT s.at INTO confirmed FROM pld_app_rolegrantstep s WHERE s.grant_id = g.id AND s.kind = 'confirmed';
  IF NEW.kind IN ('overridden', 'applied') AND confirmed IS NULL THEN
    RAISE EXCEPTION 'pld: a second administrator confirms a role' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.kind = 'applied' THEN
    IF confirmed > clock_timestamp() - interval '24 hours' AND NOT EXISTS (
         SELECT 1 FROM pld_app_rolegrantstep s WHERE s.grant_id = g.id AND s.kind = 'overridden') THEN
      RAISE EXCEPTION 'pld: a role takes effect a day after it was confirmed' USING ERRCODE = 'check_violation';
    END IF;
    IF g.role_before <> '' AND NOT u.is_active THEN
      RAISE EXCEPTION 'pld: a closed account is not opened again' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

# At commit: the step was written by this transaction, which has held the account's row since.
USER_ROLE = """
CREATE OR REPLACE FUNCTION pld_guard_user_role() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $guard$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pld_app_rolegrant g JOIN pld_app_rolegrantstep s ON s.grant_id = g.id
                  WHERE g.user_id = NEW.id AND s.kind = 'applied' AND s.at >= transaction_timestamp()
                    AND (g.role, g.domain) = (NEW.role, NEW.domain)
                    AND (OLD.is_active OR NOT NEW.is_active OR g.role_before = '')) THEN
    RAISE EXCEPTION 'pld: a role is given by two administrators, on record' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $guard$;
DROP TRIGGER pld_guard_user_role ON pld_app_user;
CREATE CONSTRAINT TRIGGER pld_guard_user_role AFTER UPDATE ON pld_app_user DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (OLD.role IS DISTINCT FROM NEW.role OR OLD.domain IS DISTINCT FROM NEW.domain OR (NEW.is_active AND NOT OLD.is_active))
  EXECUTE FUNCTION pld_guard_user_role();
ALTER TABLE pld_app_user ENABLE ALWAYS TRIGGER pld_guard_user_role;

CREATE FUNCTION pld_guard_user_created() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $guard$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.action = 'account.created' AND e.object_type = 'user'
                   AND e.object_id = NEW.id::text AND e.at >= transaction_timestamp()
                   AND (e.actor_id IS NULL OR NOT NEW.is_active)) THEN
    RAISE EXCEPTION 'pld: an account is made beside its event, and by an administrator closed' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $guard$;
CREATE CONSTRAINT TRIGGER pld_guard_user_created AFTER INSERT ON pld_app_user DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION pld_guard_user_created();
ALTER TABLE pld_app_user ENABLE ALWAYS TRIGGER pld_guard_user_created;
"""
# The reverse keeps the stricter guard of roles: without grants no role changes, which is safe and visible.
DROP = "DROP TRIGGER pld_guard_user_created ON pld_app_user; DROP FUNCTION pld_guard_user_created();"


class Migration(migrations.Migration):
    dependencies = [("pld_app", "0013_role_grants")]
    operations = [
        append_only("pld_app_rolegrant"),
        append_only("pld_app_rolegrantstep"),
        guard("pld_app_rolegrant", "BEFORE INSERT", "pld_guard_role_grant", GRANT, "u pld_app_user;"),
        guard("pld_app_rolegrantstep", "BEFORE INSERT", "pld_guard_role_grant_step", STEP,
              "g pld_app_rolegrant; u pld_app_user; confirmed timestamptz;"),
        requires_event("pld_app_rolegrant", about=("user", "user_id"), actions=["role.requested"],
                       actor="requested_by_id"),
        requires_event("pld_app_rolegrantstep", about=("user", "user_id"),
                       actions=["role.confirmed", "role.overridden", "role.refused", "account.role_changed"]),
        migrations.RunSQL(USER_ROLE, DROP),
    ]
