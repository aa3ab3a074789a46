"""A run group: prompts and students compared over the same examples, confirmed by a person as a whole."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from evaluation.models.datasets import Dataset
from rules.models import Release, Split, Task


class RunGroup(models.Model):
    """What was started together. With `release` it may hold baselines on the test split. Append-only."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="run_groups")
    number = models.PositiveIntegerField()
    dataset = models.ForeignKey(Dataset, models.PROTECT, related_name="run_groups")
    split = models.CharField(max_length=12, choices=Split)
    release = models.ForeignKey(Release, models.PROTECT, null=True, related_name="run_groups")
    estimate = models.JSONField(default=dict)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(fields=["task", "number"], name="run_group_number"),
            models.CheckConstraint(
                condition=Q(split=Split.VALIDATION) | Q(split=Split.TEST, release__isnull=False),
                name="run_group_test_is_for_releases",
            ),
        )

    def __str__(self) -> str:
        return f"{self.task.slug} comparison {self.number}"
