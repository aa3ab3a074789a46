"""Releases, the channels that point at them, and the tokens of the student's service."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, Method, Reauthentication
from rules.models.rulesets import Ruleset
from rules.models.task import Task


class ChannelName(models.TextChoices):
    STAGING = "staging", _("Staging")
    PRODUCTION = "production", _("Production")


class Release(models.Model):
    """A signed ruleset with a version and its compiled prompt. Immutable."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="releases")
    version = models.PositiveIntegerField()
    ruleset = models.OneToOneField(Ruleset, models.PROTECT, related_name="release")
    manifest_sha256 = models.CharField(max_length=64)
    prompt = models.TextField()
    prompt_sha256 = models.CharField(max_length=64)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-version",)
        constraints = (models.UniqueConstraint(fields=["task", "version"], name="release_version"),)

    def __str__(self) -> str:
        return f"v{self.version}"


class PublicationKind(models.TextChoices):
    PUBLISH = "publish", _("Published")
    ROLLBACK = "rollback", _("Rolled back")


class Publication(models.Model):
    """The move of a channel's pointer to a release. Append-only: a channel serves its newest publication's release.

    The mover re-enters the password and states the meaning, as for a signature.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="publications")
    channel = models.CharField(max_length=12, choices=ChannelName)
    release = models.ForeignKey(Release, models.PROTECT, related_name="publications")
    kind = models.CharField(max_length=10, choices=PublicationKind)
    reason = models.CharField(max_length=300, blank=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    actor_name = models.CharField(max_length=120)
    # Method and time are those of the re-authentication: a trigger copies them. Publications before it have none.
    reauthentication = models.OneToOneField(Reauthentication, models.PROTECT, null=True, related_name="publication")
    method = models.CharField(max_length=20, choices=Method, default=Method.PASSWORD)
    authenticated_at = models.DateTimeField()
    at = models.DateTimeField(default=timezone.now, editable=False)
    until = models.DateTimeField(null=True, editable=False)
    """Served until then, by the database's clock; only a scheduled one ends by itself."""
    schedule = models.OneToOneField(
        "rules.ScheduledPublication", models.PROTECT, null=True, editable=False, related_name="publication"
    )
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=Q(channel__in=ChannelName.values), name="publication_channel_known"),
            models.CheckConstraint(condition=Q(kind__in=PublicationKind.values), name="publication_kind_known"),
            models.CheckConstraint(
                condition=~Q(kind=PublicationKind.ROLLBACK) | ~Q(reason=""),
                name="publication_rollback_has_reason",
                violation_error_message=_("Say why you roll back."),
            ),
        )
        indexes = (models.Index(fields=["task", "channel", "-id"], name="publication_current"),)

    def __str__(self) -> str:
        return f"{self.channel}: {self.release}"


class TokenScope(models.TextChoices):
    PROMPT = "prompt", _("Reads the published prompt")
    REEVALUATE = "reevaluate", _("Asks a release again, within the confirmed budget")


class PromptToken(models.Model):
    """A bearer token of a service for one task and one thing. Only its SHA-256 is kept."""

    task = models.ForeignKey(Task, models.PROTECT, related_name="tokens")
    name = models.CharField(_("name"), max_length=120)
    scope = models.CharField(_("what it is for"), max_length=12, choices=TokenScope, default=TokenScope.PROMPT)
    digest = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=12)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (models.CheckConstraint(condition=Q(scope__in=TokenScope.values), name="token_scope_known"),)

    def __str__(self) -> str:
        return self.name
