"""By default who signed does not publish: no two of editor, first signer, second signer and publisher are one person.

A task is made with the point (version 1 of its policy); the column follows the policy in force as the others do, and
tasks that exist keep the policy they have.
"""


from django.db import migrations, models

FILL = """
UPDATE rules_task t SET publisher_may_have_signed = p.publisher_may_have_signed
  FROM rules_signoffpolicy p WHERE p.id = pld_policy_in_force(t.id);
"""
SQL_TASK_POLICY = """
CREATE OR REPLACE FUNCTION pld_task_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $guard$
BEGIN
  INSERT INTO rules_signoffpolicy (task_id, version, signers_required, signer_roles, signatories_required, domains,
         miners_may_sign, publisher_may_have_signed, read_changed_first, reason, created_at)
  VALUES (NEW.id, 1, NEW.signers_required, NEW.signer_roles, 0, '{}', false, NEW.publisher_may_have_signed, true, '',
          clock_timestamp());
  RETURN NULL;
END $guard$;
CREATE OR REPLACE FUNCTION pld_guard_task_policy() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $guard$
BEGIN
  IF (NEW.signers_required, NEW.signer_roles, NEW.publisher_may_have_signed)
     IS DISTINCT FROM (OLD.signers_required, OLD.signer_roles, OLD.publisher_may_have_signed)
     AND NOT EXISTS (SELECT 1 FROM rules_signoffpolicy p WHERE p.id = pld_policy_in_force(NEW.id)
                     AND (p.signers_required, p.signer_roles, p.publisher_may_have_signed)
                       = (NEW.signers_required, NEW.signer_roles, NEW.publisher_may_have_signed)) THEN
    RAISE EXCEPTION 'pld: the sign-off policy changes by a proposal that a second person confirms' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $guard$;
CREATE OR REPLACE FUNCTION pld_policy_takes_effect() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $guard$
BEGIN
  IF NEW.verdict = 'confirmed' THEN
    UPDATE rules_task t SET signers_required = p.signers_required, signer_roles = p.signer_roles,
           publisher_may_have_signed = p.publisher_may_have_signed
      FROM rules_signoffpolicy p WHERE p.id = NEW.policy_id AND t.id = p.task_id;
  END IF;
  RETURN NULL;
END $guard$;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('rules', '0033_meaning_guards'),
    ]

    operations = [
        migrations.AddField(
            model_name='task',
            name='publisher_may_have_signed',
            field=models.BooleanField(default=False, help_text='Unless ticked, a signatory who did not sign publishes: three people beside the composer.', verbose_name='a signer may publish'),
        ),
        migrations.AlterField(
            model_name='signoffpolicy',
            name='publisher_may_have_signed',
            field=models.BooleanField(default=False, verbose_name='a signer may publish'),
        ),
        # The reverses keep the functions, which read the column as it stands.
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.RunSQL(SQL_TASK_POLICY, migrations.RunSQL.noop),
    ]
