"""What makes a re-authentication worth something: its row is made and used only as the database allows.

- made: by an active account of one person, in a session that lives, after the consent, with two factors where they are
  asked (the first of a session, when a second is enrolled or the installation asks signatories for one); a passkey's
  evidence is over exactly this act and was never kept before; time and order are the database's;
- used: by `pld_reauthentication_use` alone, once, within 5 minutes, for its own person, purpose, object and content;
- sessions of an account end when its role, password or state changes.

Refusals use SQLSTATE 23514 (check_violation) with a message that begins "pld:".
"""

from django.db import migrations

from pld_app.triggers import append_only, guard, no_delete

REAUTHENTICATION = """
  SELECT * INTO u FROM pld_app_user WHERE id = NEW.user_id FOR SHARE;
  IF NOT u.is_active OR u.is_shared THEN
    RAISE EXCEPTION 'pld: this account may not sign' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT pld_session_lives(NEW.user_id, NEW.session_sha256) THEN
    RAISE EXCEPTION 'pld: re-authenticate: the session has ended' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_signingconsent c WHERE c.user_id = NEW.user_id) THEN
    RAISE EXCEPTION 'pld: accept once what an electronic signature means' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.user_id
                 AND e.action = 'account.reauthenticated' AND e.object_type = 'user'
                 AND e.object_id = NEW.user_id::text) THEN
    RAISE EXCEPTION 'pld: a re-authentication needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.method NOT LIKE '%+%' AND (
       EXISTS (SELECT 1 FROM pld_app_totpdevice d WHERE d.user_id = NEW.user_id AND d.confirmed_at IS NOT NULL
               AND d.removed_at IS NULL)
    OR EXISTS (SELECT 1 FROM pld_app_passkey k WHERE k.user_id = NEW.user_id AND k.removed_at IS NULL)
    OR (u.role = 'signatory' AND coalesce(
          (SELECT p.second_factor_for_signatories FROM pld_app_securitypolicy p ORDER BY p.id DESC LIMIT 1), false)))
     AND NOT (
       EXISTS (SELECT 1 FROM pld_app_reauthentication r WHERE r.user_id = NEW.user_id
               AND r.session_sha256 = NEW.session_sha256 AND r.method LIKE '%+%')
   AND EXISTS (SELECT 1 FROM pld_app_reauthentication r WHERE r.user_id = NEW.user_id
               AND r.session_sha256 = NEW.session_sha256 AND r.at > clock_timestamp() - interval '15 minutes')) THEN
    RAISE EXCEPTION 'pld: re-authenticate: the first signature of a session needs both factors' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.evidence IS NOT NULL THEN
    said := (NEW.evidence->>'statement')::jsonb;
    client := convert_from(decode(translate(NEW.evidence->>'client_data', '-_', '+/')
              || repeat('=', (4 - length(NEW.evidence->>'client_data') % 4) % 4), 'base64'), 'UTF8')::jsonb;
    IF (said->>'purpose', said->'subject'->>'type', said->'subject'->>'id', said->>'content_sha256', said->>'meaning',
        said->'signer'->>'id') IS DISTINCT FROM
       (NEW.purpose::text, NEW.subject_type::text, NEW.subject_id::text, NEW.content_sha256::text, NEW.meaning::text,
        NEW.user_id::text)
       OR client->>'challenge' IS DISTINCT FROM rtrim(translate(
            encode(sha256(convert_to(NEW.evidence->>'statement', 'UTF8')), 'base64'), '+/', '-_'), '=') THEN
      RAISE EXCEPTION 'pld: re-authenticate: the passkey confirmed something else' USING ERRCODE = 'check_violation';
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pld_app_passkey k WHERE k.user_id = NEW.user_id AND k.removed_at IS NULL
                   AND k.public_key = decode(translate(NEW.evidence->>'public_key', '-_', '+/')
                   || repeat('=', (4 - length(NEW.evidence->>'public_key') % 4) % 4), 'base64')) THEN
      RAISE EXCEPTION 'pld: re-authenticate: this is no passkey of the account' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

FUNCTIONS = """
CREATE FUNCTION pld_session_lives(person bigint, key_sha256 text) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT 1 FROM pld_app_usersession s WHERE s.user_id = person AND s.expire_date > clock_timestamp()
                 AND encode(sha256(convert_to(s.session_key, 'UTF8')), 'hex') = key_sha256)
$$;
CREATE FUNCTION pld_reauthentication_use(reauth bigint, person bigint, why text, kind text, object text, hash text)
RETURNS pld_app_reauthentication LANGUAGE plpgsql AS $$
DECLARE r pld_app_reauthentication;
BEGIN
  SELECT * INTO r FROM pld_app_reauthentication WHERE id = reauth;
  IF NOT FOUND OR (r.user_id, r.purpose::text, r.subject_type::text, r.subject_id::text, r.content_sha256::text)
     IS DISTINCT FROM (person, why, kind, object, hash) THEN
    RAISE EXCEPTION 'pld: re-authenticate: this proof was for something else' USING ERRCODE = 'check_violation';
  END IF;
  IF r.at < clock_timestamp() - interval '5 minutes' THEN
    RAISE EXCEPTION 'pld: re-authenticate: this proof is too old' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT pld_session_lives(r.user_id, r.session_sha256) THEN
    RAISE EXCEPTION 'pld: re-authenticate: the session has ended' USING ERRCODE = 'check_violation';
  END IF;
  INSERT INTO pld_app_reauthenticationuse (reauthentication_id, at) VALUES (r.id, clock_timestamp())
    ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'pld: re-authenticate: this proof was used already' USING ERRCODE = 'check_violation';
  END IF;
  RETURN r;
END $$;
CREATE UNIQUE INDEX reauthentication_evidence_once
  ON pld_app_reauthentication ((evidence->>'statement'));
"""
DROP_FUNCTIONS = """
DROP INDEX reauthentication_evidence_once;
DROP FUNCTION pld_reauthentication_use(bigint, bigint, text, text, text, text);
DROP FUNCTION pld_session_lives(bigint, text);
"""

# A new password, role or state: whoever else is signed in as this person is so no more.
SESSIONS_END = """
  IF (NEW.role, NEW.password, NEW.is_active) IS DISTINCT FROM (OLD.role, OLD.password, OLD.is_active) THEN
    DELETE FROM pld_app_usersession WHERE user_id = NEW.id;
  END IF;
  RETURN NULL;
"""

TOTP = """
  IF (NEW.user_id, NEW.created_at) IS DISTINCT FROM (OLD.user_id, OLD.created_at) OR NEW.last_step < OLD.last_step
     OR OLD.removed_at IS NOT NULL THEN
    RAISE EXCEPTION 'pld: an authenticator app keeps its person, and no code counts again' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

PASSKEY = """
  IF (NEW.user_id, NEW.credential_id, NEW.public_key, NEW.created_at)
     IS DISTINCT FROM (OLD.user_id, OLD.credential_id, OLD.public_key, OLD.created_at)
     OR NEW.sign_count < OLD.sign_count OR OLD.removed_at IS NOT NULL THEN
    RAISE EXCEPTION 'pld: a passkey keeps its person and key, and its counter only grows' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

IDENTITY = """
  IF (NEW.user_id, NEW.issuer, NEW.subject, NEW.bound_at) IS DISTINCT FROM (OLD.user_id, OLD.issuer, OLD.subject, OLD.bound_at)
     OR OLD.removed_at IS NOT NULL THEN
    RAISE EXCEPTION 'pld: a sign-in account stays bound to its person' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# A question is answered once and used once, and never becomes another question.
CEREMONY = """
  IF (NEW.token, NEW.kind, NEW.user_id, NEW.session_sha256, NEW.purpose, NEW.subject_type, NEW.subject_id,
      NEW.content_sha256, NEW.meaning, NEW.statement, NEW.at)
     IS DISTINCT FROM (OLD.token, OLD.kind, OLD.user_id, OLD.session_sha256, OLD.purpose, OLD.subject_type, OLD.subject_id,
      OLD.content_sha256, OLD.meaning, OLD.statement, OLD.at)
     OR OLD.used_at IS NOT NULL OR (OLD.answered_at IS NOT NULL AND NEW.answered_at IS DISTINCT FROM OLD.answered_at) THEN
    RAISE EXCEPTION 'pld: a question of a ceremony is answered and used once' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("pld_app", "0006_factors_and_reauthentication")]
    operations = [
        migrations.RunSQL(FUNCTIONS, DROP_FUNCTIONS),
        append_only("pld_app_reauthentication"),
        append_only("pld_app_reauthenticationuse"),
        append_only("pld_app_signingconsent"),
        append_only("pld_app_securitypolicy"),
        no_delete("pld_app_totpdevice"),
        no_delete("pld_app_recoverycode"),
        no_delete("pld_app_passkey"),
        no_delete("pld_app_ssoidentity"),
        no_delete("pld_app_ceremony"),
        guard("pld_app_reauthentication", "BEFORE INSERT", "pld_guard_reauthentication", REAUTHENTICATION,
              "u pld_app_user; said jsonb; client jsonb;"),
        guard("pld_app_user", "AFTER UPDATE", "pld_sessions_end", SESSIONS_END),
        guard("pld_app_totpdevice", "BEFORE UPDATE", "pld_guard_totp", TOTP),
        guard("pld_app_passkey", "BEFORE UPDATE", "pld_guard_passkey", PASSKEY),
        guard("pld_app_ssoidentity", "BEFORE UPDATE", "pld_guard_identity", IDENTITY),
        guard("pld_app_ceremony", "BEFORE UPDATE", "pld_guard_ceremony", CEREMONY),
    ]
