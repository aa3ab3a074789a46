"""What takes a release out of use or plans it, held by the database.

- A frozen ruleset is withdrawn by a proved row with a reason alone (or voided when an instruction of it is reopened).
- An emergency stop is one person's; only somebody else, a signatory, signs under it or lifts it. While it stands, nothing
  that holds what it stops is published.
- A schedule publishes once, not before its time by this server's clock, exactly what was proved, while all its signers
  still stand; a cancelled or failed one never. A policy's proposal and decision name their proof.
"""

from django.db import migrations

from pld_app.triggers import append_only, guard, no_delete, requires_event

FUNCTIONS = """
-- An act by an active account in this role, with its own event, proved for this object.
CREATE FUNCTION pld_signed_act(reauth bigint, person bigint, as_role text, why text, kind text, object text, hash text,
                               event bigint, named text, about text, about_id text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM pld_app_user u WHERE u.id = person AND u.is_active AND u.role = as_role FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'pld: this account may not do this' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = event AND e.actor_id = person AND e.action = named
                 AND e.object_type = about AND e.object_id = about_id) THEN
    RAISE EXCEPTION 'pld: this act needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pld_reauthentication_use(reauth, person, why, kind, object, hash);
END $$;
CREATE FUNCTION pld_is_stopped(ruleset bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT 1 FROM rules_emergencystop s
    WHERE (s.ruleset_id = ruleset OR s.instruction_id IN (SELECT instruction_id FROM rules_rulesetitem WHERE ruleset_id = ruleset))
      AND NOT EXISTS (SELECT 1 FROM rules_stopsignature g WHERE g.stop_id = s.id AND g.kind = 'lift'))
$$;
-- Whether everybody who signed is still active in the role they signed in.
CREATE FUNCTION pld_signers_stand(ruleset bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT NOT EXISTS (SELECT 1 FROM rules_signature g JOIN pld_app_user u ON u.id = g.signer_id
    WHERE g.ruleset_id = ruleset AND (NOT u.is_active OR u.role <> g.signer_role))
$$;
"""
DROP_FUNCTIONS = """
DROP FUNCTION pld_signers_stand(bigint); DROP FUNCTION pld_is_stopped(bigint);
DROP FUNCTION pld_signed_act(bigint, bigint, text, text, text, text, text, bigint, text, text, text);
"""

POLICY_PROOF = """
  IF NEW.version = 1 THEN RETURN NEW; END IF;
  SELECT at INTO NEW.authenticated_at FROM pld_app_reauthentication WHERE id = NEW.reauthentication_id;
  PERFORM pld_reauthentication_use(NEW.reauthentication_id, NEW.proposed_by_id, 'policy', 'task', NEW.task_id::text, '');
  RETURN NEW;
"""
DECISION_PROOF = """
  SELECT at, method INTO NEW.authenticated_at, NEW.method FROM pld_app_reauthentication WHERE id = NEW.reauthentication_id;
  PERFORM pld_reauthentication_use(NEW.reauthentication_id, NEW.actor_id, 'policy', 'signoffpolicy', NEW.policy_id::text, '');
  RETURN NEW;
"""

REVOCATION = """
  SELECT * INTO s FROM rules_ruleset WHERE id = NEW.ruleset_id FOR UPDATE;
  IF NOT (NEW.actor_role = 'signatory' AND s.status IN ('in_sign_off', 'signed')
          OR NEW.actor_role = 'reviewer' AND s.status = 'in_sign_off') THEN
    RAISE EXCEPTION 'pld: this ruleset cannot be withdrawn by this role now' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pld_signed_act(NEW.reauthentication_id, NEW.actor_id, NEW.actor_role, 'withdraw', 'ruleset', s.id::text,
                         s.manifest_sha256, NEW.event_id, 'ruleset.withdrawn', 'ruleset', s.id::text);
  NEW.at := clock_timestamp();
  RETURN NEW;
"""
REVOCATION_TAKES_EFFECT = """
  UPDATE rules_ruleset SET status = 'withdrawn', withdrawn_reason = NEW.reason, version = version + 1 WHERE id = NEW.ruleset_id;
  RETURN NULL;
"""
# Reopening an instruction voids what is not released (pld_void_rulesets): that is an update from inside a trigger.
WITHDRAWAL = """
  IF NEW.status = 'withdrawn' AND OLD.status IN ('in_sign_off', 'signed')
     AND NOT EXISTS (SELECT 1 FROM rules_revocation r WHERE r.ruleset_id = NEW.id)
     AND NOT (pg_trigger_depth() > 1 AND NOT EXISTS (SELECT 1 FROM rules_release l WHERE l.ruleset_id = NEW.id)) THEN
    RAISE EXCEPTION 'pld: a frozen ruleset is withdrawn by a signed act' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

STOP = """
  -- The task's row is the lock: publications, schedules and stops of a task come one after the other.
  PERFORM 1 FROM rules_task WHERE id = NEW.task_id FOR UPDATE;
  PERFORM 1 FROM pld_app_user u WHERE u.id = NEW.actor_id AND u.is_active AND u.role = NEW.actor_role
     AND u.role IN ('signatory', 'admin') FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'pld: only an active signatory or administrator makes an emergency stop' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM rules_release l WHERE l.ruleset_id = NEW.ruleset_id AND l.task_id = NEW.task_id)
     AND NOT EXISTS (SELECT 1 FROM rules_instruction i WHERE i.id = NEW.instruction_id AND i.task_id = NEW.task_id) THEN
    RAISE EXCEPTION 'pld: a stop is of a release or an instruction of its own task' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM rules_emergencystop s
             WHERE (s.ruleset_id = NEW.ruleset_id OR s.instruction_id = NEW.instruction_id)
               AND NOT EXISTS (SELECT 1 FROM rules_stopsignature g WHERE g.stop_id = s.id AND g.kind = 'lift')) THEN
    RAISE EXCEPTION 'pld: this is stopped already' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id AND e.actor_id = NEW.actor_id
                 AND e.action = 'stop.made' AND e.object_type = 'task' AND e.object_id = NEW.task_id::text) THEN
    RAISE EXCEPTION 'pld: a stop needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

STOP_SIGNATURE = """
  SELECT * INTO s FROM rules_emergencystop WHERE id = NEW.stop_id;
  PERFORM 1 FROM rules_task WHERE id = s.task_id FOR UPDATE;
  IF NEW.actor_role <> 'signatory' THEN
    RAISE EXCEPTION 'pld: only an active signatory signs under a stop' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.actor_id = s.actor_id THEN
    RAISE EXCEPTION 'pld: a second person signs under a stop or lifts it' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM rules_stopsignature g WHERE g.stop_id = s.id AND g.kind = 'lift') THEN
    RAISE EXCEPTION 'pld: this stop was lifted already' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pld_signed_act(NEW.reauthentication_id, NEW.actor_id, NEW.actor_role, 'stop', 'emergencystop', s.id::text, '',
                         NEW.event_id, CASE NEW.kind WHEN 'lift' THEN 'stop.lifted' ELSE 'stop.confirmed' END,
                         'task', s.task_id::text);
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

SCHEDULE = """
  PERFORM 1 FROM rules_task WHERE id = NEW.task_id FOR UPDATE;
  SELECT * INTO l FROM rules_release WHERE id = NEW.release_id;
  IF l.task_id <> NEW.task_id OR (SELECT status FROM rules_ruleset WHERE id = l.ruleset_id) <> 'signed' THEN
    RAISE EXCEPTION 'pld: only a signed release of its own task is scheduled' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.effective_from <= clock_timestamp() THEN
    RAISE EXCEPTION 'pld: a schedule is for a time to come' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.actor_role <> 'signatory' THEN
    RAISE EXCEPTION 'pld: only an active signatory schedules' USING ERRCODE = 'check_violation';
  END IF;
  PERFORM pld_signed_act(NEW.reauthentication_id, NEW.actor_id, NEW.actor_role, 'schedule', 'release', l.id::text,
                         l.manifest_sha256, NEW.event_id, 'release.scheduled', 'release', l.id::text);
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

SCHEDULE_END = """
  SELECT * INTO p FROM rules_scheduledpublication WHERE id = NEW.schedule_id;
  PERFORM 1 FROM rules_task WHERE id = p.task_id FOR UPDATE;
  IF EXISTS (SELECT 1 FROM rules_publication WHERE schedule_id = p.id) THEN
    RAISE EXCEPTION 'pld: this schedule is settled' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.kind = 'cancelled' THEN
    PERFORM 1 FROM pld_app_user u WHERE u.id = NEW.actor_id AND u.is_active AND u.role = 'signatory' FOR SHARE;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'pld: only an active signatory cancels a schedule' USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pld_app_auditevent e WHERE e.id = NEW.event_id
                 AND e.actor_id IS NOT DISTINCT FROM NEW.actor_id AND e.action = 'release.schedule_' || NEW.kind
                 AND e.object_type = 'release' AND e.object_id = p.release_id::text) THEN
    RAISE EXCEPTION 'pld: the end of a schedule needs its own audit event' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""

PUBLICATION_STOP = """
  IF pld_is_stopped((SELECT ruleset_id FROM rules_release WHERE id = NEW.release_id)) THEN
    RAISE EXCEPTION 'pld: an emergency stop holds this release' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.until IS NOT NULL AND NEW.schedule_id IS NULL THEN
    RAISE EXCEPTION 'pld: only a scheduled publication ends by itself' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# As 0016 has it; a scheduled one was proved when it was scheduled, and is held to what was proved then.
PUBLICATION_PROOF = """
CREATE OR REPLACE FUNCTION pld_guard_publication_reauthentication() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $guard$
DECLARE r pld_app_reauthentication; p rules_scheduledpublication; newest bigint;
BEGIN
  IF NEW.schedule_id IS NOT NULL THEN
    SELECT * INTO p FROM rules_scheduledpublication WHERE id = NEW.schedule_id;
    IF (p.task_id, p.channel, p.release_id, p.actor_id, p.until, 'publish')
       IS DISTINCT FROM (NEW.task_id, NEW.channel, NEW.release_id, NEW.actor_id, NEW.until, NEW.kind) THEN
      RAISE EXCEPTION 'pld: this is not what was scheduled' USING ERRCODE = 'check_violation';
    END IF;
    IF p.effective_from > clock_timestamp() THEN
      RAISE EXCEPTION 'pld: its time has not come' USING ERRCODE = 'check_violation';
    END IF;
    IF p.until <= clock_timestamp() THEN
      RAISE EXCEPTION 'pld: its time is over' USING ERRCODE = 'check_violation';
    END IF;
    IF EXISTS (SELECT 1 FROM rules_scheduleend WHERE schedule_id = p.id) THEN
      RAISE EXCEPTION 'pld: this schedule is settled' USING ERRCODE = 'check_violation';
    END IF;
    IF NOT pld_signers_stand((SELECT ruleset_id FROM rules_release WHERE id = NEW.release_id)) THEN
      RAISE EXCEPTION 'pld: a signer is no longer active in the role they signed in' USING ERRCODE = 'check_violation';
    END IF;
    SELECT coalesce(max(id), 0) INTO newest FROM rules_publication WHERE task_id = NEW.task_id AND channel = NEW.channel;
    IF NOT p.allow_moved AND newest <> p.expected_newest THEN
      RAISE EXCEPTION 'pld: the channel moved since it was scheduled' USING ERRCODE = 'check_violation';
    END IF;
    SELECT method, at INTO NEW.method, NEW.authenticated_at FROM pld_app_reauthentication WHERE id = p.reauthentication_id;
    RETURN NEW;
  END IF;
  r := pld_reauthentication_use(NEW.reauthentication_id, NEW.actor_id,
         CASE NEW.kind WHEN 'publish' THEN 'publish' ELSE 'roll back' END, 'release', NEW.release_id::text,
         (SELECT manifest_sha256 FROM rules_release WHERE id = NEW.release_id));
  NEW.method := r.method;
  NEW.authenticated_at := r.at;
  RETURN NEW;
END $guard$;
"""

# A target keeps its address; it is only retired. A delivery keeps what it says and to whom.
WEBHOOK = """
  IF (NEW.task_id, NEW.name, NEW.url, NEW.secret_env, NEW.created_by_id, NEW.created_at)
     IS DISTINCT FROM (OLD.task_id, OLD.name, OLD.url, OLD.secret_env, OLD.created_by_id, OLD.created_at)
     OR OLD.retired_at IS NOT NULL THEN
    RAISE EXCEPTION 'pld: a webhook keeps its address; make another one' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""
DELIVERY = """
  IF (NEW.target_id, NEW.key, NEW.kind, NEW.body, NEW.created_at)
     IS DISTINCT FROM (OLD.target_id, OLD.key, OLD.kind, OLD.body, OLD.created_at) OR OLD.state = 'delivered' THEN
    RAISE EXCEPTION 'pld: a delivery keeps what it says' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):
    dependencies = [("rules", "0022_stops_schedules_and_webhooks"), ("pld_app", "0009_require_event")]
    operations = [
        migrations.RunSQL(FUNCTIONS, DROP_FUNCTIONS),
        # The reverse keeps the replaced function: without schedules it does what 0016's does.
        migrations.RunSQL(PUBLICATION_PROOF, migrations.RunSQL.noop),
        append_only("rules_revocation"),
        append_only("rules_emergencystop"),
        append_only("rules_stopsignature"),
        append_only("rules_scheduledpublication"),
        append_only("rules_scheduleend"),
        append_only("rules_promptread"),
        no_delete("rules_webhooktarget"),
        no_delete("rules_webhookdelivery"),
        guard("rules_signoffpolicy", "BEFORE INSERT", "pld_guard_policy_proof", POLICY_PROOF),
        guard("rules_policydecision", "BEFORE INSERT", "pld_guard_policy_decision_proof", DECISION_PROOF),
        guard("rules_revocation", "BEFORE INSERT", "pld_guard_revocation", REVOCATION, "s rules_ruleset;"),
        guard("rules_revocation", "AFTER INSERT", "pld_revocation_takes_effect", REVOCATION_TAKES_EFFECT),
        guard("rules_ruleset", "BEFORE UPDATE", "pld_guard_ruleset_withdrawal", WITHDRAWAL),
        guard("rules_emergencystop", "BEFORE INSERT", "pld_guard_stop", STOP),
        guard("rules_stopsignature", "BEFORE INSERT", "pld_guard_stop_signature", STOP_SIGNATURE,
              "s rules_emergencystop;"),
        guard("rules_scheduledpublication", "BEFORE INSERT", "pld_guard_schedule", SCHEDULE, "l rules_release;"),
        guard("rules_scheduleend", "BEFORE INSERT", "pld_guard_schedule_end", SCHEDULE_END,
              "p rules_scheduledpublication;"),
        guard("rules_publication", "BEFORE INSERT", "pld_guard_publication_stop", PUBLICATION_STOP),
        requires_event("rules_revocation", about=("ruleset", "ruleset_id"), actions=["ruleset.withdrawn"]),
        requires_event("rules_emergencystop", about=("task", "task_id"), actions=["stop.made"]),
        requires_event("rules_scheduledpublication", about=("release", "release_id"), actions=["release.scheduled"]),
        requires_event("rules_ruleread", about=("ruleset", "ruleset_id"), actions=["ruleset.rule_read"],
                       actor="reader_id"),
        requires_event("rules_signoffpolicy", about=("task", "task_id"), actions=["policy.proposed"],
                       actor="proposed_by_id", when="NEW.version > 1"),
        guard("rules_webhooktarget", "BEFORE UPDATE", "pld_guard_webhook", WEBHOOK),
        guard("rules_webhookdelivery", "BEFORE UPDATE", "pld_guard_delivery", DELIVERY),
    ]
