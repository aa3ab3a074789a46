"""Signatures and publications take who, how and when from a re-authentication, not from what the program says.

Each fires after the guard of its table (triggers go by name) and overwrites method and time with the proof's own. A
signature's meaning is the one that was proved; a publication's purpose is its kind.
"""

from django.db import migrations

from pld_app.triggers import guard

SIGNATURE = """
  r := pld_reauthentication_use(NEW.reauthentication_id, NEW.signer_id, 'sign', 'ruleset', NEW.ruleset_id::text,
                                NEW.manifest_sha256);
  IF r.meaning <> NEW.meaning THEN
    RAISE EXCEPTION 'pld: re-authenticate: this proof was for another meaning' USING ERRCODE = 'check_violation';
  END IF;
  NEW.method := r.method;
  NEW.authenticated_at := r.at;
  RETURN NEW;
"""

PUBLICATION = """
  r := pld_reauthentication_use(NEW.reauthentication_id, NEW.actor_id,
         CASE NEW.kind WHEN 'publish' THEN 'publish' ELSE 'roll back' END, 'release', NEW.release_id::text,
         (SELECT manifest_sha256 FROM rules_release WHERE id = NEW.release_id));
  NEW.method := r.method;
  NEW.authenticated_at := r.at;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0015_signature_reauthentication"), ("pld_app", "0007_reauthentication_guards")]
    operations = [
        guard("rules_signature", "BEFORE INSERT", "pld_guard_signature_reauthentication", SIGNATURE,
              "r pld_app_reauthentication;"),
        guard("rules_publication", "BEFORE INSERT", "pld_guard_publication_reauthentication", PUBLICATION,
              "r pld_app_reauthentication;"),
    ]
