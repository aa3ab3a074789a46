"""Traces and the files they came from."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from rules.models.task import Task


class Split(models.TextChoices):
    TRAIN = "train", _("Train")
    VALIDATION = "validation", _("Validation")
    TEST = "test", _("Test")


class ImportState(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")


class TraceImport(models.Model):
    """One uploaded file: its progress and its outcome. Re-importing the same file changes nothing."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="imports")
    file = models.FileField(upload_to="imports/", max_length=300)
    file_name = models.CharField(_("file"), max_length=200)
    file_sha256 = models.CharField(max_length=64)
    file_bytes = models.PositiveBigIntegerField()
    state = models.CharField(max_length=12, choices=ImportState, default=ImportState.QUEUED)
    bytes_read = models.PositiveBigIntegerField(default=0)
    rows_new = models.PositiveIntegerField(default=0)
    rows_unchanged = models.PositiveIntegerField(default=0)
    rows_rejected = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (models.CheckConstraint(condition=Q(state__in=ImportState.values), name="import_state_known"),)

    def __str__(self) -> str:
        return self.file_name

    @property
    def is_finished(self) -> bool:
        return self.state in {ImportState.SUCCEEDED, ImportState.FAILED}


class ImportReject(models.Model):
    """One row that was not taken: its line, why, and the start of what stood there."""

    trace_import = models.ForeignKey(TraceImport, models.CASCADE, related_name="rejects")
    line = models.PositiveIntegerField(_("line"))
    reason = models.CharField(_("reason"), max_length=40)
    message = models.CharField(_("what to do"), max_length=300)
    excerpt = models.CharField(_("row"), max_length=200, blank=True)

    class Meta:
        ordering = ("line", "pk")
        constraints = (models.UniqueConstraint(fields=["trace_import", "line"], name="reject_once_per_line"),)

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class Trace(models.Model):
    """One recorded teacher answer to one labelled example. Untrusted text: shown as text, never run or rendered."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="traces")
    external_id = models.CharField(max_length=200)
    input = models.JSONField()
    label = models.CharField(max_length=60)
    rationale = models.TextField(blank=True)
    instruction = models.TextField(blank=True)
    teacher = models.CharField(max_length=120, blank=True)
    split = models.CharField(max_length=12, choices=Split, default=Split.TRAIN)
    metadata = models.JSONField(default=dict)
    content_hash = models.CharField(max_length=64)
    first_import = models.ForeignKey(TraceImport, models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=["task", "external_id"], name="trace_id_once_per_task"),
            models.CheckConstraint(condition=Q(split__in=Split.values), name="trace_split_known"),
        )
        indexes = (models.Index(fields=["task", "split", "label"], name="trace_split"),)

    def __str__(self) -> str:
        return self.external_id
