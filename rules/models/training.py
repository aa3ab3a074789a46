"""Who is trained for which domain, and until when."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, Domain


class TrainingRecord(models.Model):
    """That a person is trained for a domain until a date. Append-only: of one person and domain the newest row counts.

    On `expires_on` itself (UTC) the right is gone; a row of today's date ends it at once.
    """

    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="training_records")
    domain = models.CharField(_("domain"), max_length=12, choices=Domain)
    expires_on = models.DateField(_("expires on"), help_text=_("From this day (UTC) it no longer counts."))
    note = models.CharField(_("what it rests on"), max_length=300)
    granted_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=Q(domain__in=Domain.values), name="training_record_domain_known"),
            models.CheckConstraint(
                condition=~Q(note=""),
                name="training_record_says_why",
                violation_error_message=_("Say what the training was, or why it ends."),
            ),
        )
        indexes = (models.Index(fields=["person", "domain", "-id"], name="training_record_newest"),)

    def __str__(self) -> str:
        return f"{self.person_id} {self.domain} until {self.expires_on}"


class TrainingNotice(models.Model):
    """That people were told of a record's end, `days` before it: once each."""

    record = models.ForeignKey(TrainingRecord, models.PROTECT, related_name="notices")
    days = models.PositiveSmallIntegerField()
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["record", "days"], name="training_notice_once"),)

    def __str__(self) -> str:
        return f"{self.record_id}, {self.days} days before"
