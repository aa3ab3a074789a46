"""Sessions with their person in a column of its own, so that ending somebody's sessions is one statement."""

from django.conf import settings
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models


class UserSession(AbstractBaseSession):
    """A browser's session. A trigger on accounts deletes a person's rows when role, password or state change.

    No foreign key: a session is not history, and writing one must not wait for a lock on the account.
    """

    user_id = models.BigIntegerField(null=True, db_index=True)

    class Meta(AbstractBaseSession.Meta):
        verbose_name = "session"

    @classmethod
    def get_session_store_class(cls) -> type:
        from pld_app.session_store import SessionStore  # noqa: PLC0415  # the store imports this model

        return SessionStore


class SecurityPolicy(models.Model):
    """What the installation asks of its people; append-only, the newest row counts, none means the defaults."""

    second_factor_for_signatories = models.BooleanField()
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    event = models.OneToOneField("pld_app.AuditEvent", models.PROTECT, related_name="+")

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return "second factor for signatories" if self.second_factor_for_signatories else "no second factor asked"
