"""Another role for an account is another administrator's act, on record: nobody gives themselves a role.

Checked at the end of the transaction, since the event is written last.
"""

from django.db import migrations

GUARD = """
CREATE FUNCTION pld_guard_user_role() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $guard$
BEGIN
  -- Of this transaction: the event is stamped by the database, and the account's row is locked since its change.
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e JOIN pld_app_user a ON a.id = e.actor_id
                  WHERE e.action = 'account.role_changed' AND e.object_type = 'user' AND e.object_id = NEW.id::text
                    AND e.data->>'before' = OLD.role AND e.data->>'after' = NEW.role
                    AND e.at >= transaction_timestamp() AND a.id <> NEW.id AND a.is_active AND a.role = 'admin') THEN
    RAISE EXCEPTION 'pld: a role is given by another administrator, on record' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $guard$;
CREATE CONSTRAINT TRIGGER pld_guard_user_role AFTER UPDATE OF role ON pld_app_user DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.role IS DISTINCT FROM NEW.role) EXECUTE FUNCTION pld_guard_user_role();
ALTER TABLE pld_app_user ENABLE ALWAYS TRIGGER pld_guard_user_role;
"""
DROP = "DROP TRIGGER pld_guard_user_role ON pld_app_user; DROP FUNCTION pld_guard_user_role();"


class Migration(migrations.Migration):
    dependencies = [("pld_app", "0007_reauthentication_guards")]
    operations = [migrations.RunSQL(GUARD, DROP)]
