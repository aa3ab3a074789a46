"""How the review of a task guards against habit and haste: one append-only row a change of policy."""

from django.conf import settings
from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent
from rules.models.task import Task

_PERCENT = (MaxValueValidator(100),)


class ReviewPolicy(models.Model):
    """What a task asks of its reviewers. The newest version is in force; a task without one has these presets.

    The database draws `draw_key` with the first version and hands it on: who is drawn cannot be chosen, and a larger
    share only adds to the draw. It is shown to nobody.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="review_policies")
    version = models.PositiveIntegerField()
    draw_key = models.CharField(max_length=32, editable=False, blank=True)
    double_percent = models.PositiveSmallIntegerField(
        _("double review, percent of all instructions"),
        default=20,
        validators=_PERCENT,
        help_text=_("Drawn at random. Two reviewers decide on these without seeing each other's decision."),
    )
    double_edited = models.BooleanField(
        _("double review of every edited text"),
        default=True,
        help_text=_("Its author counts as the first reviewer; if the second rejects it, a third decides."),
    )
    double_conflicting = models.BooleanField(
        _("double review of every conflicting instruction"),
        default=True,
        help_text=_("Where the newest mining run found the same condition under another label."),
    )
    impact_percent = models.PositiveSmallIntegerField(
        _("high impact from, percent of answers"),
        default=1,
        validators=_PERCENT,
        help_text=_("An instruction whose removal changes more of the student's answers is reviewed twice. 0: never."),
    )
    seed_percent = models.PositiveSmallIntegerField(
        _("check items, percent of all instructions"),
        default=5,
        validators=_PERCENT,
        help_text=_("Prepared items with a known answer that nobody can publish. Reviewers know that there are some."),
    )
    blind_first = models.BooleanField(
        _("evidence first"),
        default=True,
        help_text=_("On a share of the cards the reviewer judges the evidence before the mined wording appears."),
    )
    blind_percent = models.PositiveSmallIntegerField(
        _("evidence first, percent of all instructions"),
        default=20,
        validators=_PERCENT,
        help_text=_("Drawn at random for each reviewer; instructions of high impact always."),
    )
    min_seconds = models.PositiveSmallIntegerField(
        _("seconds before a decision counts as read"),
        default=4,
        validators=(MaxValueValidator(60),),
        help_text=_("For a text of 25 words or more. An earlier decision is asked for once more. 0: never."),
    )
    fast_percent = models.PositiveSmallIntegerField(
        _("asked again under, percent of one's own median"),
        default=20,
        validators=_PERCENT,
        help_text=_("Of the person's own median time for a text of that length; five in a row pause them. 0: never."),
    )
    evidence_percent = models.PositiveSmallIntegerField(
        _("asked for the convincing evidence, percent of approvals"),
        default=10,
        validators=_PERCENT,
        help_text=_("So that approving costs about as much thought as rejecting, which asks for a reason. 0: never."),
    )
    notice_first = models.BooleanField(
        _("notice on habit, read each quarter"),
        default=True,
        help_text=_("Asked before the first decision of a quarter of the year, and kept on record."),
    )
    training_required = models.BooleanField(
        _("only with a current training record"),
        default=False,
        help_text=_("Of the instruction's domain; any domain where it has none. Administrators keep the records."),
    )
    recall_percent = models.PositiveSmallIntegerField(
        _("paused under, percent of wrong check items caught"),
        default=70,
        validators=_PERCENT,
        help_text=_("In a month's report, from 10 answered wrong ones on. 0: never."),
    )
    overturned_percent = models.PositiveSmallIntegerField(
        _("paused above, percent of judgements overturned"),
        default=20,
        validators=_PERCENT,
        help_text=_("In a month's report, from 10 judgements that could be overturned on. 0: never."),
    )
    age_soon_days = models.PositiveSmallIntegerField(_("waits long from, days"), default=3)
    age_late_days = models.PositiveSmallIntegerField(_("overdue from, days"), default=7)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, null=True, related_name="+", editable=False)
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-version",)
        constraints = (
            models.UniqueConstraint(fields=["task", "version"], name="review_policy_version"),
            models.CheckConstraint(
                condition=Q(double_percent__lte=100, impact_percent__lte=100, seed_percent__lte=100)
                & Q(blind_percent__lte=100, fast_percent__lte=100, evidence_percent__lte=100),
                name="review_policy_percent",
                violation_error_message=_("A percentage is between 0 and 100."),
            ),
            models.CheckConstraint(
                condition=Q(recall_percent__lte=100, overturned_percent__lte=100),
                name="review_policy_oversight_percent",
                violation_error_message=_("A percentage is between 0 and 100."),
            ),
            models.CheckConstraint(
                condition=Q(version=1) | Q(author__isnull=False, event__isnull=False),
                name="review_policy_change_has_author",
            ),
            models.CheckConstraint(
                condition=Q(age_late_days__gte=F("age_soon_days")),
                name="review_policy_late_after_soon",
                violation_error_message=_("Overdue cannot come before waiting long."),
            ),
        )

    def __str__(self) -> str:
        return f"{self.task.slug} review policy {self.version}"
