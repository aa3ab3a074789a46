"""The seal over the audit log: the order of its leaves, full subtrees, keys, signed checkpoints, copies, alarms.

Only `pld_app_auditsink` changes; all else is append-only. The guards let nobody seal out of order: leaves follow without
gaps in the order of the events' ids, each with the hash its event has, and a checkpoint is over all leaves sealed so far.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

from pld_app.triggers import append_only, guard, no_delete


SEALED_LEAVES = """
CREATE FUNCTION pld_guard_sealedleaf() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE count_ bigint; low bigint; high bigint; before_ bigint; before_event bigint;
BEGIN
  SELECT count(*), min(index), max(index) INTO count_, low, high FROM fresh;
  IF count_ = 0 THEN RETURN NULL; END IF;
  SELECT index, event_id INTO before_, before_event FROM pld_app_sealedleaf WHERE index < low ORDER BY index DESC LIMIT 1;
  IF high - low + 1 <> count_ OR low <> coalesce(before_ + 1, 0) OR high <> (SELECT max(index) FROM pld_app_sealedleaf) THEN
    RAISE EXCEPTION 'pld: leaves are sealed one after the other' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM (SELECT event_id, leaf_hash, lag(event_id, 1, coalesce(before_event, 0)) OVER (ORDER BY index)
                              AS previous FROM fresh) f
             LEFT JOIN pld_app_auditevent e ON e.id = f.event_id
             WHERE e.leaf_hash IS DISTINCT FROM f.leaf_hash OR f.event_id <= f.previous) THEN
    RAISE EXCEPTION 'pld: a sealed leaf is that of its event, in the order of events' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER pld_guard_sealedleaf AFTER INSERT ON pld_app_sealedleaf REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION pld_guard_sealedleaf();
ALTER TABLE pld_app_sealedleaf ENABLE ALWAYS TRIGGER pld_guard_sealedleaf;
"""
DROP_SEALED_LEAVES = """
DROP TRIGGER pld_guard_sealedleaf ON pld_app_sealedleaf; DROP FUNCTION pld_guard_sealedleaf();
"""
CHECKPOINT = """
  IF NEW.size <> coalesce((SELECT max(index) + 1 FROM pld_app_sealedleaf), 0)
     OR octet_length(NEW.root) <> 32 OR octet_length(NEW.frontier) <> 32 * bit_count(NEW.size::bit(64)) THEN
    RAISE EXCEPTION 'pld: a checkpoint is over all sealed leaves' USING ERRCODE = 'check_violation';
  END IF;
  IF EXISTS (SELECT 1 FROM pld_app_auditkeyrevocation WHERE key_id = NEW.key_id) THEN
    RAISE EXCEPTION 'pld: this key was revoked' USING ERRCODE = 'check_violation';
  END IF;
  NEW.at := clock_timestamp();
  RETURN NEW;
"""
# The newest row decides: after a clearing the log may be sealed and releases published again.
ALARM = """
  NEW.at := clock_timestamp();
  RETURN NEW;
"""
APPEND_ONLY = (
    "pld_app_sealedleaf",
    "pld_app_sealednode",
    "pld_app_auditkey",
    "pld_app_auditkeyrevocation",
    "pld_app_checkpoint",
    "pld_app_checkpointcopy",
    "pld_app_auditalarm",
)


class Migration(migrations.Migration):

    dependencies = [
        ('pld_app', '0004_audit_leaves'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditSink',
            fields=[
                ('name', models.CharField(max_length=20, primary_key=True, serialize=False)),
                ('failures', models.PositiveIntegerField(default=0)),
                ('last_error', models.CharField(blank=True, max_length=300)),
                ('last_ok_at', models.DateTimeField(null=True)),
                ('last_try_at', models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='AuditKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=120, verbose_name='origin')),
                ('key_id', models.CharField(max_length=8, unique=True)),
                ('public_key', models.BinaryField(unique=True)),
                ('size', models.BigIntegerField()),
                ('statement', models.BinaryField()),
                ('signature', models.BinaryField()),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('signed_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='pld_app.auditkey')),
            ],
            options={
                'ordering': ('pk',),
            },
        ),
        migrations.CreateModel(
            name='AuditKeyRevocation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('size', models.BigIntegerField()),
                ('reason', models.CharField(max_length=300)),
                ('statement', models.BinaryField()),
                ('signature', models.BinaryField()),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('key', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='revocation', to='pld_app.auditkey')),
                ('signed_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='pld_app.auditkey')),
            ],
        ),
        migrations.CreateModel(
            name='Checkpoint',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('size', models.BigIntegerField()),
                ('root', models.BinaryField()),
                ('frontier', models.BinaryField()),
                ('note', models.TextField()),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('key', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='checkpoints', to='pld_app.auditkey')),
            ],
            options={
                'ordering': ('size', 'pk'),
            },
        ),
        migrations.CreateModel(
            name='CheckpointCopy',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('sink', models.CharField(max_length=20)),
                ('place', models.CharField(max_length=300)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('checkpoint', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='copies', to='pld_app.checkpoint')),
            ],
        ),
        migrations.CreateModel(
            name='SealedLeaf',
            fields=[
                ('index', models.BigIntegerField(primary_key=True, serialize=False)),
                ('leaf_hash', models.BinaryField()),
                ('event', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='sealed', to='pld_app.auditevent')),
            ],
        ),
        migrations.CreateModel(
            name='SealedNode',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('level', models.PositiveSmallIntegerField()),
                ('index', models.BigIntegerField()),
                ('hash', models.BinaryField()),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('level', 'index'), name='sealed_node_once')],
            },
        ),
        migrations.CreateModel(
            name='AuditAlarm',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('state', models.CharField(choices=[('raised', 'Raised'), ('cleared', 'Cleared')], max_length=8)),
                ('detail', models.CharField(max_length=500)),
                ('at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False)),
                ('actor', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ('-pk',),
                'constraints': [models.CheckConstraint(condition=models.Q(('state__in', ['raised', 'cleared'])), name='alarm_state_known')],
            },
        ),
        migrations.AddConstraint(
            model_name='checkpoint',
            constraint=models.UniqueConstraint(fields=('size', 'key'), name='checkpoint_once_a_key'),
        ),
        migrations.AddConstraint(
            model_name='checkpointcopy',
            constraint=models.UniqueConstraint(fields=('checkpoint', 'sink'), name='checkpoint_copied_once'),
        ),
        migrations.AddConstraint(
            model_name='sealedleaf',
            constraint=models.CheckConstraint(condition=models.Q(('index__gte', 0)), name='sealed_leaf_index_from_zero'),
        ),
        *(append_only(table) for table in APPEND_ONLY),
        no_delete("pld_app_auditsink"),
        migrations.RunSQL(SEALED_LEAVES, DROP_SEALED_LEAVES),
        guard("pld_app_checkpoint", "BEFORE INSERT", "pld_guard_checkpoint", CHECKPOINT),
        guard("pld_app_auditalarm", "BEFORE INSERT", "pld_guard_auditalarm", ALARM),
    ]
