"""Re-evaluations: a release asked again, by whom or by what, and the standing budget they stay within."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from evaluation.models.datasets import Dataset
from evaluation.models.runs import EvaluationRun
from pld_app.models import AuditEvent, ModelEndpoint
from rules.models import Release, Split, Task


class ReevaluationPlan(models.Model):
    """When the release in production is asked again, and what that may cost. Append-only; the newest one counts.

    `budget` is the most that re-evaluations may come to within 30 days, in the endpoints' currency; an administrator
    confirmed it ahead. With 0 only endpoints without a price are asked.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="reevaluation_plans")
    version = models.PositiveIntegerField()
    split = models.CharField(max_length=12, choices=Split)
    every_hours = models.PositiveIntegerField(_("every so many hours"), null=True, blank=True)
    on_change = models.BooleanField(_("when student, dataset or release change"), default=False)
    budget = models.DecimalField(_("budget for 30 days"), max_digits=10, decimal_places=2, default=0)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-version",)
        constraints = (
            models.UniqueConstraint(fields=["task", "version"], name="reevaluation_plan_version"),
            models.CheckConstraint(
                condition=Q(budget__gte=0),
                name="reevaluation_budget_not_negative",
                violation_error_message=_("A budget is 0 or more."),
            ),
            models.CheckConstraint(
                condition=Q(every_hours=None) | Q(every_hours__gte=1, every_hours__lte=8760),
                name="reevaluation_plan_hours",
                violation_error_message=_("Choose 1 hour to a year."),
            ),
            models.CheckConstraint(
                condition=Q(split__in=[Split.VALIDATION, Split.TEST]), name="reevaluation_plan_split"
            ),
        )

    def __str__(self) -> str:
        return f"{self.task.slug} plan {self.version}"


class Cause(models.TextChoices):
    PERSON = "person", _("Asked for by a person")
    COMMAND = "command", _("Asked for on the command line")
    API = "api", _("Asked for by the API")
    SCHEDULE = "schedule", _("Its time had come")
    MODEL = "model", _("The student's model changed")
    DATASET = "dataset", _("The dataset changed")
    RELEASE = "release", _("Production serves another release")


class Reevaluation(models.Model):
    """One run that asks a release again. `closed_at` follows the run's end by trigger; one is open at a time for a
    release, dataset, split and student. `estimate` is the most it could cost, as the budget counts it until the end.
    """

    release = models.ForeignKey(Release, models.PROTECT, related_name="reevaluations")
    dataset = models.ForeignKey(Dataset, models.PROTECT, related_name="+")
    split = models.CharField(max_length=12, choices=Split)
    student = models.ForeignKey(ModelEndpoint, models.PROTECT, related_name="+")
    student_model = models.CharField(max_length=120)
    run = models.OneToOneField(EvaluationRun, models.PROTECT, related_name="reevaluation")
    cause = models.CharField(max_length=10, choices=Cause)
    estimate = models.DecimalField(max_digits=12, decimal_places=6, default=0)
    plan = models.ForeignKey(ReevaluationPlan, models.PROTECT, null=True, related_name="+")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    closed_at = models.DateTimeField(null=True, editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["release", "dataset", "split", "student"],
                condition=Q(closed_at=None),
                name="reevaluation_one_open",
            ),
            models.CheckConstraint(condition=Q(cause__in=Cause.values), name="reevaluation_cause_known"),
            models.CheckConstraint(
                condition=Q(estimate=0) | Q(plan__isnull=False), name="reevaluation_paid_within_a_plan"
            ),
        )

    def __str__(self) -> str:
        return f"{self.release}: {self.run}"
