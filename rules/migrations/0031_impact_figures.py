"""What was measured, on what, and how surely: the figures behind an instruction's impact."""

import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('rules', '0030_comments'),
    ]

    operations = [
        migrations.AddField(
            model_name='instructionimpact',
            name='broken',
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='instructionimpact',
            name='dataset_sha256',
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name='instructionimpact',
            name='fixed',
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='instructionimpact',
            name='high',
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name='instructionimpact',
            name='low',
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name='instructionimpact',
            name='macro_f1_change',
            field=models.FloatField(null=True),
        ),
        migrations.AddField(
            model_name='instructionimpact',
            name='model',
            field=models.CharField(blank=True, max_length=120),
        ),
        migrations.AddField(
            model_name='instructionimpact',
            name='prompt_sha256',
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AddField(
            model_name='instructionimpact',
            name='ruleset',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='impacts', to='rules.ruleset'),
        ),
        migrations.AddField(
            model_name='instructionimpact',
            name='ruleset_version',
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddConstraint(
            model_name='instructionimpact',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('broken__isnull', True), ('fixed__isnull', True)), ('flipped__gte', django.db.models.expressions.CombinedExpression(models.F('fixed'), '+', models.F('broken'))), _connector='OR'), name='instruction_impact_adds_up'),
        ),
    ]
