"""The proof, at the moment of an act, that it is this person: signatures and publications read it from these rows."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class Method(models.TextChoices):
    """With what a person proved themselves; after a + the second factor."""

    PASSWORD = "password", _("Password")
    TOTP = "totp", _("Authenticator code")
    PASSKEY = "passkey", _("Passkey")
    OIDC = "oidc", _("Single sign-on")
    PASSWORD_TOTP = "password+totp", _("Password and authenticator code")
    PASSWORD_PASSKEY = "password+passkey", _("Password and passkey")
    OIDC_TOTP = "oidc+totp", _("Single sign-on and authenticator code")
    OIDC_PASSKEY = "oidc+passkey", _("Single sign-on and passkey")


class Reauthentication(models.Model):
    """One successful check of a person for one act on one content. Append-only, valid for 5 minutes, used once.

    Its guard takes time and permission from the database: the account is active and one person's, its session lives,
    the e-signature was accepted once, and the first one of a session has two factors where there are two.
    `evidence` is a passkey's assertion over the statement; `pld_app.assertions` verifies it without this program.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    purpose = models.CharField(max_length=30)
    subject_type = models.CharField(max_length=40)
    subject_id = models.CharField(max_length=40)
    content_sha256 = models.CharField(max_length=64, blank=True)
    meaning = models.CharField(max_length=30, blank=True)
    method = models.CharField(max_length=20, choices=Method)
    session_sha256 = models.CharField(max_length=64)
    evidence = models.JSONField(null=True)
    at = models.DateTimeField(db_default=Now(), editable=False)
    event = models.OneToOneField("pld_app.AuditEvent", models.PROTECT, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(condition=Q(method__in=Method.values), name="reauthentication_method_known"),
            models.CheckConstraint(
                condition=Q(method__endswith="passkey", evidence__isnull=False)
                | (~Q(method__endswith="passkey") & Q(evidence__isnull=True)),
                name="reauthentication_passkey_has_evidence",
            ),
        )
        indexes = (models.Index(fields=["user", "session_sha256", "at"], name="reauthentication_session"),)

    def __str__(self) -> str:
        return f"{self.purpose}: {self.get_method_display()}"


class ReauthenticationUse(models.Model):
    """That a re-authentication was used: the row of the act writes it, and there is one at most. Append-only."""

    reauthentication = models.OneToOneField(Reauthentication, models.PROTECT, primary_key=True, related_name="use")
    at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return f"use of {self.pk}"


class Ceremony(models.Model):
    """A question to a passkey or a sign-in provider that waits for its answer; the answer counts for this act alone.

    `statement` is the canonical JSON the person confirms; a passkey's challenge is its SHA-256.
    """

    token = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    kind = models.CharField(max_length=10, choices=[("passkey", _("Passkey")), ("oidc", _("Single sign-on"))])
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    session_sha256 = models.CharField(max_length=64)
    purpose = models.CharField(max_length=30)
    subject_type = models.CharField(max_length=40)
    subject_id = models.CharField(max_length=40)
    content_sha256 = models.CharField(max_length=64, blank=True)
    meaning = models.CharField(max_length=30, blank=True)
    statement = models.TextField()
    secret = models.JSONField(default=dict)
    at = models.DateTimeField(db_default=Now(), editable=False)
    answered_at = models.DateTimeField(null=True)
    used_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.kind} for {self.purpose}"


class SigningConsent(models.Model):
    """That a person accepted, once and on record, that their e-signature counts as one by hand. Append-only."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.PROTECT, related_name="signing_consent")
    text = models.TextField()
    at = models.DateTimeField(db_default=Now(), editable=False)
    event = models.OneToOneField("pld_app.AuditEvent", models.PROTECT, related_name="+")

    def __str__(self) -> str:
        return str(self.at)
