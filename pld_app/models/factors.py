"""What people prove themselves with besides the password. Rows get a mark when removed: history names them."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class TotpDevice(models.Model):
    """An authenticator app of a person. Its secret is encrypted with a key from the environment.

    `last_step` is the number of the newest 30-second step whose code was taken: no code counts twice.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="totp_devices")
    secret = models.BinaryField()
    confirmed_at = models.DateTimeField(null=True)
    last_step = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    removed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["user"],
                condition=Q(removed_at__isnull=True),
                name="totp_one_per_person",
                violation_error_message=_("You have an authenticator app already. Remove it first."),
            ),
        )

    def __str__(self) -> str:
        return str(_("authenticator app"))


class RecoveryCode(models.Model):
    """A code for signing in once without the second factor; only a keyed hash of it is kept."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="recovery_codes")
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    used_at = models.DateTimeField(null=True)
    replaced_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return str(_("recovery code"))


class Passkey(models.Model):
    """A WebAuthn credential; `public_key` is its COSE key as the authenticator made it."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="passkeys")
    name = models.CharField(_("name"), max_length=60)
    credential_id = models.BinaryField(unique=True)
    public_key = models.BinaryField()
    sign_count = models.BigIntegerField(default=0)
    transports = models.JSONField(default=list)
    aaguid = models.CharField(max_length=36, blank=True)
    is_synced = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(null=True)
    removed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.name


class SsoIdentity(models.Model):
    """The account of an OpenID Connect provider that a person signs in with: issuer and subject, bound at first use."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="sso_identities")
    issuer = models.CharField(max_length=300)
    subject = models.CharField(max_length=255)
    bound_at = models.DateTimeField(db_default=Now(), editable=False)
    removed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["issuer", "subject"], condition=Q(removed_at__isnull=True), name="sso_subject_once"
            ),
            models.UniqueConstraint(
                fields=["user", "issuer"], condition=Q(removed_at__isnull=True), name="sso_one_per_person"
            ),
        )

    def __str__(self) -> str:
        return self.subject
