"""Rulesets and the signatures over them."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, Method, Reauthentication, Role
from rules.models.instructions import Instruction, Revision
from rules.models.task import Task


class RulesetStatus(models.TextChoices):
    DRAFT = "draft", _("Draft")
    IN_SIGN_OFF = "in_sign_off", _("In sign-off")
    SIGNED = "signed", _("Signed")
    WITHDRAWN = "withdrawn", _("Withdrawn")


class Ruleset(models.Model):
    """An ordered set of approved revisions. Frozen, it is a canonical manifest (bytes) with its SHA-256."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="rulesets")
    number = models.PositiveIntegerField()
    name = models.CharField(_("name"), max_length=120)
    status = models.CharField(max_length=12, choices=RulesetStatus, default=RulesetStatus.DRAFT)
    composed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    version = models.PositiveIntegerField(default=1)
    manifest = models.BinaryField(null=True)
    manifest_sha256 = models.CharField(max_length=64, blank=True)
    prompt = models.TextField(blank=True)
    prompt_sha256 = models.CharField(max_length=64, blank=True)
    frozen_at = models.DateTimeField(null=True)
    withdrawn_reason = models.CharField(max_length=300, blank=True)
    form_key = models.UUIDField(null=True, unique=True, editable=False)
    """The key of the form it was made with: the same form sent again makes no second draft."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-number",)
        constraints = (
            models.UniqueConstraint(fields=["task", "number"], name="ruleset_number"),
            models.CheckConstraint(condition=Q(status__in=RulesetStatus.values), name="ruleset_status_known"),
            models.CheckConstraint(
                condition=~Q(status__in=[RulesetStatus.IN_SIGN_OFF, RulesetStatus.SIGNED])
                | Q(manifest__isnull=False, frozen_at__isnull=False),
                name="ruleset_sign_off_has_manifest",
            ),
        )

    def __str__(self) -> str:
        return self.name if self.name == f"Ruleset {self.number}" else f"{self.name} ({self.number})"


class RulesetItem(models.Model):
    """One approved revision at its place in a draft; the database refuses anything else."""

    ruleset = models.ForeignKey(Ruleset, models.PROTECT, related_name="items")
    position = models.PositiveIntegerField()
    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="+")
    revision = models.ForeignKey(Revision, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("position",)
        constraints = (
            models.UniqueConstraint(
                fields=["ruleset", "position"], name="ruleset_item_position", deferrable=models.Deferrable.DEFERRED
            ),
            models.UniqueConstraint(fields=["ruleset", "instruction"], name="ruleset_item_once"),
        )

    def __str__(self) -> str:
        return f"{self.position}. {self.revision}"


class Meaning(models.TextChoices):
    """What a signature says; none is preselected. Publishing and rolling back are signed on their own rows."""

    AUTHORED = "authored", _("I composed or worded this")
    REVIEWED = "reviewed", _("I have reviewed these instructions")
    APPROVED = "approved", _("I approve these instructions for release")
    CONDITIONS = "approved_with_conditions", _("I approve these instructions for release on the conditions below")
    REJECTED = "rejected", _("I reject these instructions: they must not be released")


# Who worked on it says so by "authored", and it counts for nothing; a rejection keeps a ruleset from being signed.
COUNTED = (Meaning.REVIEWED, Meaning.APPROVED, Meaning.CONDITIONS)
APPROVING = (Meaning.APPROVED, Meaning.CONDITIONS)


class Signature(models.Model):
    """Who signed which manifest, as what and when. Append-only; bound to the hash of the manifest."""

    ruleset = models.ForeignKey(Ruleset, models.PROTECT, related_name="signatures")
    manifest_sha256 = models.CharField(max_length=64)
    signer = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    signer_name = models.CharField(max_length=120)
    signer_role = models.CharField(max_length=12, choices=Role)
    signer_domain = models.CharField(max_length=12, blank=True, editable=False)
    """The signer's domain at that moment, written by the database."""
    meaning = models.CharField(max_length=24, choices=Meaning)
    conditions = models.CharField(max_length=1000, blank=True)
    """On what the approval rests, or why it is rejected."""
    # Method and time are those of the re-authentication: a trigger copies them. Signatures before it have none.
    reauthentication = models.OneToOneField(Reauthentication, models.PROTECT, null=True, related_name="signature")
    method = models.CharField(max_length=20, choices=Method, default=Method.PASSWORD)
    authenticated_at = models.DateTimeField()
    at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["ruleset", "signer"],
                name="signature_one_per_person",
                violation_error_message=_("You have already signed this ruleset."),
            ),
            models.CheckConstraint(condition=Q(meaning__in=Meaning.values), name="signature_meaning_known"),
            models.CheckConstraint(
                condition=Q(meaning__in=[Meaning.CONDITIONS, Meaning.REJECTED]) & ~Q(conditions="")
                | ~Q(meaning__in=[Meaning.CONDITIONS, Meaning.REJECTED]) & Q(conditions=""),
                name="signature_conditions_in_words",
                violation_error_message=_(
                    "Write the conditions, or why you reject it; for any other meaning leave it empty."
                ),
            ),
        )

    def __str__(self) -> str:
        return f"{self.signer_name}: {self.meaning}"
