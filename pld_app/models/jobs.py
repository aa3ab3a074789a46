"""Work to do, as rows: the broker only carries a hint that one is due."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class JobState(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    DONE = "done", _("Done")
    CANCELLED = "cancelled", _("Cancelled")
    DEAD = "dead", _("Failed")


class Job(models.Model):
    """One piece of background work: `kind` names the handler, `subject_id` the row it works on.

    `attempts` counts starts without progress in between; at `MAX_ATTEMPTS` the job is dead and its subject is told.
    A running job holds a lease that its worker renews; when it lapses (kill -9) the sweeper hands the job on.
    """

    MAX_ATTEMPTS = 3

    kind = models.CharField(max_length=40)
    subject_id = models.BigIntegerField()
    idempotency_key = models.CharField(max_length=120, unique=True)
    state = models.CharField(max_length=10, choices=JobState, default=JobState.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0)
    run_after = models.DateTimeField(default=timezone.now)
    hinted_at = models.DateTimeField(null=True)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=Q(state__in=JobState.values), name="job_state_known"),
            models.CheckConstraint(
                condition=~Q(state=JobState.RUNNING) | Q(lease_token__isnull=False, lease_until__isnull=False),
                name="job_running_has_lease",
            ),
        )
        indexes = (
            models.Index(
                fields=["run_after"],
                condition=Q(state__in=[JobState.QUEUED, JobState.RUNNING]),
                name="job_open",
            ),
            models.Index(fields=["kind", "subject_id"], name="job_subject"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.subject_id}"

    @staticmethod
    def new_token() -> uuid.UUID:
        return uuid.uuid4()
