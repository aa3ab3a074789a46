"""Who works on which instruction: claims, presence, assignments and absences; and what is one reviewer's own."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, Domain
from rules.models.instructions import Instruction
from rules.models.task import Task


class Claim(models.Model):
    """The lease one reviewer has on an open instruction. While it runs, the database takes no decision by another.

    `event` is the taking over of a lease that was still running; taking a free one and renewing leave no event.
    """

    instruction = models.OneToOneField(Instruction, models.CASCADE, related_name="claim")
    holder = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    expires_at = models.DateTimeField()
    claimed_at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.ForeignKey(AuditEvent, models.PROTECT, null=True, related_name="+")

    class Meta:
        indexes = (models.Index(fields=["holder", "expires_at"], name="claim_of_holder"),)

    def __str__(self) -> str:
        return f"{self.instruction_id} by {self.holder_id}"


class Presence(models.Model):
    """Which card a reviewer has open: a row a person, overwritten by each ping, worth nothing after half a minute."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="+")
    instruction = models.ForeignKey(Instruction, models.CASCADE, related_name="+")
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.user_id} at {self.instruction_id}"


class Draft(models.Model):
    """What a reviewer is typing, for that person alone; gone once it is saved or discarded. No record, so no event."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    instruction = models.ForeignKey(Instruction, models.CASCADE, related_name="+")
    text = models.TextField()
    note = models.TextField(blank=True)
    # The revision the person had before them when they began to type.
    base = models.PositiveIntegerField()
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["user", "instruction"], name="draft_once_per_person"),)

    def __str__(self) -> str:
        return f"{self.instruction_id} by {self.user_id}"


class Assignment(models.Model):
    """Who is to look at an instruction: one reviewer, or the pool of a domain. It directs work and forbids none."""

    instruction = models.OneToOneField(Instruction, models.CASCADE, related_name="assignment")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    pool = models.CharField(max_length=12, choices=Domain, blank=True)
    due_on = models.DateField(null=True)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.ForeignKey(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(person__isnull=False, pool="") | Q(person__isnull=True, pool__in=Domain.values),
                name="assignment_to_person_or_pool",
            ),
        )
        indexes = (models.Index(fields=["person"], name="assignment_person"),)

    def __str__(self) -> str:
        return f"{self.instruction_id} to {self.person_id or self.pool}"


class Absence(models.Model):
    """Days a reviewer is away, both included; their work goes to the deputy, or to the pool of their domain."""

    person = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, related_name="absence")
    starts_on = models.DateField(_("first day away"))
    ends_on = models.DateField(_("last day away"))
    deputy = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True, related_name="+", verbose_name=_("deputy")
    )

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(ends_on__gte=F("starts_on")),
                name="absence_ends_after_it_starts",
                violation_error_message=_("The last day is before the first."),
            ),
            models.CheckConstraint(
                condition=Q(deputy__isnull=True) | ~Q(deputy=F("person")),
                name="absence_deputy_is_another",
                violation_error_message=_("The deputy must be another person."),
            ),
        )

    def __str__(self) -> str:
        return f"{self.person_id} {self.starts_on}/{self.ends_on}"


class Audience(models.TextChoices):
    PRIVATE = "private", _("Only me")
    TEAM = "team", _("Everybody")
    DEFAULT = "default", _("Everybody, and what the queue opens with")


class SavedView(models.Model):
    """A view of a task's queue under an address of its own. A private one exists for its owner alone."""

    task = models.ForeignKey(Task, models.CASCADE, related_name="saved_views")
    slug = models.SlugField(max_length=60)
    name = models.CharField(_("name"), max_length=80)
    audience = models.CharField(_("for"), max_length=8, choices=Audience, default=Audience.PRIVATE)
    query = models.CharField(max_length=600)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("name", "pk")
        constraints = (
            models.UniqueConstraint(fields=["task", "slug"], name="saved_view_slug"),
            models.CheckConstraint(condition=Q(audience__in=Audience.values), name="saved_view_audience_known"),
            models.UniqueConstraint(
                fields=["task"],
                condition=Q(audience=Audience.DEFAULT),
                name="saved_view_one_default",
                violation_error_message=_("This task has a default view already. Change or delete that one first."),
            ),
        )

    def __str__(self) -> str:
        return self.name


class ReadingFont(models.TextChoices):
    SERIF = "serif", _("Serif")
    SANS = "sans", _("Sans serif")


class ReviewPreference(models.Model):
    """How one person works at the card: the typeface of rules, and their own single keys."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="+")
    font = models.CharField(_("typeface of rules"), max_length=5, choices=ReadingFont, default=ReadingFont.SERIF)
    keys_on = models.BooleanField(_("single keys"), default=True)
    # Action to key, only where it differs from the preset: rules.review_keys.PRESETS.
    keys = models.JSONField(default=dict, blank=True)

    class Meta:
        constraints = (
            models.CheckConstraint(condition=Q(font__in=ReadingFont.values), name="review_preference_font_known"),
        )

    def __str__(self) -> str:
        return str(self.user_id)
