"""Ablations: a run's questions asked again without one instruction at a time, and the guards over what they found."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

from pld_app.triggers import append_only, guard, no_delete


ABLATION_INSERT = """
  IF NEW.state <> 'queued' OR NEW.done <> 0 OR NEW.calls_used <> 0 OR NEW.cost_used <> 0 THEN
    RAISE EXCEPTION 'pld: an ablation starts as queued, with nothing asked' USING ERRCODE = 'check_violation';
  END IF;
  IF NOT EXISTS (SELECT 1 FROM evaluation_evaluationrun r LEFT JOIN rules_release l ON l.id = r.release_id
                 WHERE r.id = NEW.run_id AND r.task_id = NEW.task_id AND r.state = 'succeeded'
                   AND coalesce(r.ruleset_id, l.ruleset_id) = NEW.ruleset_id) THEN
    RAISE EXCEPTION 'pld: an ablation is of a finished run of its ruleset' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

# What it asks never changes, its state follows evaluation.transitions, and one that is over stays as it is.
ABLATION_UPDATE = """
  IF (NEW.task_id, NEW.number, NEW.run_id, NEW.ruleset_id, NEW.ruleset_version, NEW."order", NEW.total, NEW.estimate, NEW.created_by_id,
      NEW.created_at) IS DISTINCT FROM (OLD.task_id, OLD.number, OLD.run_id, OLD.ruleset_id, OLD.ruleset_version, OLD."order", OLD.total,
      OLD.estimate, OLD.created_by_id, OLD.created_at) THEN
    RAISE EXCEPTION 'pld: what an ablation asks never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF OLD.state IN ('succeeded', 'failed', 'cancelled') THEN
    RAISE EXCEPTION 'pld: an ablation that is over never changes' USING ERRCODE = 'check_violation';
  END IF;
  IF NEW.state <> OLD.state AND NOT (
       (OLD.state = 'queued' AND NEW.state IN ('running', 'failed', 'cancelled'))
    OR (OLD.state = 'running' AND NEW.state IN ('succeeded', 'failed', 'cancelled', 'paused'))
    OR (OLD.state = 'paused' AND NEW.state IN ('queued', 'cancelled'))) THEN
    RAISE EXCEPTION 'pld: an ablation that is % cannot become %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

ITEM_INSERT = """
  PERFORM 1 FROM evaluation_ablation WHERE id = NEW.ablation_id AND state = 'queued' AND done = 0 FOR SHARE;
  IF NOT FOUND OR NOT EXISTS (SELECT 1 FROM rules_revision r
                              WHERE r.id = NEW.revision_id AND r.instruction_id = NEW.instruction_id) THEN
    RAISE EXCEPTION 'pld: what is left out is said before anything is asked' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""

RESULT_INSERT = """
  IF NOT EXISTS (SELECT 1 FROM evaluation_ablationitem i JOIN evaluation_ablation a ON a.id = i.ablation_id
                 WHERE i.id = NEW.item_id AND i.rank IS NOT NULL AND a.state = 'running'
                   AND (NEW.impact_id IS NULL OR EXISTS (SELECT 1 FROM rules_instructionimpact m
                        WHERE m.id = NEW.impact_id AND m.instruction_id = i.instruction_id
                          AND m.revision_id = i.revision_id))) THEN
    RAISE EXCEPTION 'pld: a result is of an instruction its running ablation leaves out' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('evaluation', '0006_guards'),
        ('rules', '0031_impact_figures'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Ablation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField()),
                ('ruleset_version', models.PositiveIntegerField()),
                ('order', models.CharField(choices=[('support', 'Most support first'), ('conflict', 'Conflicting ones first, then most support'), ('picked', 'Chosen by a person')], max_length=10)),
                ('state', models.CharField(choices=[('awaiting', 'Awaiting confirmation'), ('queued', 'Queued'), ('running', 'Running'), ('paused', 'Paused'), ('succeeded', 'Succeeded'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='queued', max_length=12)),
                ('done', models.PositiveIntegerField(default=0)),
                ('total', models.PositiveIntegerField()),
                ('max_calls', models.PositiveIntegerField()),
                ('max_cost', models.DecimalField(decimal_places=6, max_digits=14, null=True)),
                ('calls_used', models.PositiveIntegerField(default=0)),
                ('cost_used', models.DecimalField(decimal_places=6, default=0, max_digits=14)),
                ('estimate', models.JSONField(default=dict)),
                ('error', models.TextField(blank=True)),
                ('cancel_requested_at', models.DateTimeField(null=True)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('started_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('created_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('ruleset', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='ablations', to='rules.ruleset')),
                ('run', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='ablations', to='evaluation.evaluationrun')),
                ('task', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='ablations', to='rules.task')),
            ],
            options={
                'ordering': ('-pk',),
            },
        ),
        migrations.CreateModel(
            name='AblationItem',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('position', models.PositiveIntegerField()),
                ('rank', models.PositiveIntegerField(null=True)),
                ('prompt_sha256', models.CharField(max_length=64)),
                ('ablation', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='items', to='evaluation.ablation')),
                ('instruction', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='rules.instruction')),
                ('revision', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='rules.revision')),
            ],
            options={
                'ordering': ('position',),
            },
        ),
        migrations.CreateModel(
            name='AblationResult',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('figures', models.JSONField()),
                ('at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('impact', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='rules.instructionimpact')),
                ('item', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='result', to='evaluation.ablationitem')),
            ],
        ),
        migrations.AddConstraint(
            model_name='ablation',
            constraint=models.UniqueConstraint(fields=('task', 'number'), name='ablation_number'),
        ),
        migrations.AddConstraint(
            model_name='ablation',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['awaiting', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled'])), name='ablation_state_known'),
        ),
        migrations.AddConstraint(
            model_name='ablation',
            constraint=models.CheckConstraint(condition=models.Q(('order__in', ['support', 'conflict', 'picked'])), name='ablation_order_known'),
        ),
        migrations.AddIndex(
            model_name='ablationitem',
            index=models.Index(fields=['prompt_sha256'], name='ablation_item_prompt'),
        ),
        migrations.AddConstraint(
            model_name='ablationitem',
            constraint=models.UniqueConstraint(fields=('ablation', 'position'), name='ablation_item_position'),
        ),
        migrations.AddConstraint(
            model_name='ablationitem',
            constraint=models.UniqueConstraint(fields=('ablation', 'rank'), name='ablation_item_rank'),
        ),
        migrations.AddConstraint(
            model_name='ablationitem',
            constraint=models.UniqueConstraint(fields=('ablation', 'instruction'), name='ablation_item_once'),
        ),
        guard("evaluation_ablation", "BEFORE INSERT", "pld_guard_ablation_insert", ABLATION_INSERT),
        guard("evaluation_ablation", "BEFORE UPDATE", "pld_guard_ablation_update", ABLATION_UPDATE),
        no_delete("evaluation_ablation"),
        guard("evaluation_ablationitem", "BEFORE INSERT", "pld_guard_ablation_item", ITEM_INSERT),
        append_only("evaluation_ablationitem"),
        guard("evaluation_ablationresult", "BEFORE INSERT", "pld_guard_ablation_result", RESULT_INSERT),
        append_only("evaluation_ablationresult"),
    ]
