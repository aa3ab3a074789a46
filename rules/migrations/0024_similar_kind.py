"""What a similar rule is to this one. Rows are derived and written anew by every mining run, so the preset is enough."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("rules", "0023_control_guards")]
    operations = [
        migrations.AddField(
            model_name="similarrule",
            name="kind",
            field=models.CharField(
                choices=[
                    ("duplicate", "Duplicate"),
                    ("contradicts", "Contradicts"),
                    ("narrower", "Narrower"),
                    ("wider", "Wider"),
                    ("near", "Similar"),
                ],
                default="near",
                max_length=12,
            ),
            preserve_default=False,
        ),
        migrations.AddConstraint(
            model_name="similarrule",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["duplicate", "contradicts", "narrower", "wider", "near"])),
                name="similar_rule_kind_known",
            ),
        ),
    ]
