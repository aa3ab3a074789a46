"""The report a month on how well a task was reviewed, as it stood when it was made."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent
from rules.models.task import Task


class OversightReport(models.Model):
    """The figures of one task and month, over everybody and for each person. Append-only.

    `rows` is what rules.oversight writes and reads; `rows_sha256` is the hash of its canonical JSON, which the event
    names too.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="oversight_reports")
    month = models.DateField(help_text=_("Its first day, UTC."))
    rows = models.JSONField()
    rows_sha256 = models.CharField(max_length=64)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("-month",)
        constraints = (
            models.UniqueConstraint(fields=["task", "month"], name="oversight_report_once_a_month"),
            models.CheckConstraint(condition=Q(month__day=1), name="oversight_report_of_a_month"),
        )

    def __str__(self) -> str:
        return f"{self.month:%Y-%m}"
