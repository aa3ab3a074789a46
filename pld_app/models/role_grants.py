"""Roles: one administrator asks, a second confirms, a day passes before the role counts. Both rows are append-only."""

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from pld_app.models.accounts import Domain, Role
from pld_app.models.audit import AuditEvent


class GrantStep(models.TextChoices):
    CONFIRMED = "confirmed", _("Confirmed")
    OVERRIDDEN = "overridden", _("Waiting time waived")
    REFUSED = "refused", _("Refused")
    APPLIED = "applied", _("In effect")


class RoleGrantQuerySet(models.QuerySet["RoleGrant"]):
    def waiting(self) -> "RoleGrantQuerySet":
        """Neither in effect nor refused, with `is_confirmed`."""
        steps = RoleGrantStep.objects.filter(grant=OuterRef("pk"))
        return self.annotate(is_confirmed=Exists(steps.filter(kind=GrantStep.CONFIRMED))).exclude(
            Exists(steps.filter(kind__in=[GrantStep.REFUSED, GrantStep.APPLIED]))
        )


class RoleGrant(models.Model):
    """That an account shall have a role; what became of it are its steps. `role_before` is empty for a new account."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="role_grants")
    role = models.CharField(_("role"), max_length=12, choices=Role)
    domain = models.CharField(_("domain"), max_length=12, choices=Domain, blank=True)
    role_before = models.CharField(max_length=12, choices=Role, blank=True)
    reason = models.CharField(_("why"), max_length=300)
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(db_default=Now(), editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    objects = RoleGrantQuerySet.as_manager()

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(
                condition=~Q(reason=""), name="role_grant_has_reason", violation_error_message=_("Say why.")
            ),
            models.CheckConstraint(
                condition=Q(role=Role.REVIEWER, domain__in=Domain.values)
                | (Q(role__in=Role.values) & ~Q(role=Role.REVIEWER) & Q(domain="")),
                name="role_grant_reviewer_has_domain",
                violation_error_message=_("A reviewer needs a domain, and only a reviewer has one."),
            ),
        )

    def __str__(self) -> str:
        return f"{self.user}: {self.get_role_display()}"


class RoleGrantStep(models.Model):
    """One step of a grant, each kind once. `actor` is empty where the clock put it into effect."""

    grant = models.ForeignKey(RoleGrant, models.PROTECT, related_name="steps")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    """The account, as in the grant: the step's event is about it."""
    kind = models.CharField(max_length=10, choices=GrantStep)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    reason = models.CharField(_("why"), max_length=300, blank=True)
    at = models.DateTimeField(db_default=Now(), editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=["grant", "kind"], name="role_grant_step_once"),
            models.CheckConstraint(
                condition=Q(kind=GrantStep.APPLIED, actor=None)
                | Q(kind__in=[GrantStep.CONFIRMED, GrantStep.REFUSED], actor__isnull=False)
                | Q(kind=GrantStep.OVERRIDDEN, actor__isnull=False) & ~Q(reason=""),
                name="role_grant_step_by_whom",
                violation_error_message=_("Say why it cannot wait."),
            ),
        )

    def __str__(self) -> str:
        return f"{self.grant}: {self.get_kind_display()}"
