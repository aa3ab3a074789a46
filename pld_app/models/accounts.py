"""Accounts. One account has one role, so that duties are separated by construction; there is no superuser."""

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.contrib.auth.validators import ASCIIUsernameValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Role(models.TextChoices):
    """What an account may do; see docs/security.md for the table."""

    REVIEWER = "reviewer", _("Reviewer")
    SIGNATORY = "signatory", _("Signatory")
    AUDITOR = "auditor", _("Auditor")
    ADMIN = "admin", _("Administrator")


class Domain(models.TextChoices):
    """The field a reviewer works in: preset of the queue, not a permission."""

    LEGAL = "legal", _("Legal")
    FINANCE = "finance", _("Finance")


class UserManager(BaseUserManager["User"]):
    def create_user(self, username: str, password: str | None = None, **fields: Any) -> "User":
        """Create an account; `fields` are its columns (role, display_name, domain, email)."""
        user = self.model(username=username, **fields)
        user.set_password(password)
        user.full_clean()
        user.save(using=self._db)
        return user


class User(AbstractBaseUser):
    """A person. Never deleted, only deactivated: history keeps pointing at them."""

    username = models.CharField(_("user name"), max_length=60, unique=True, validators=[ASCIIUsernameValidator()])
    display_name = models.CharField(_("name"), max_length=120)
    email = models.EmailField(_("e-mail"), blank=True)
    role = models.CharField(_("role"), max_length=12, choices=Role)
    domain = models.CharField(_("domain"), max_length=12, choices=Domain, blank=True)
    is_active = models.BooleanField(_("active"), default=True)
    is_shared = models.BooleanField(
        _("used by several people or by a service"),
        default=False,
        help_text=_("Such an account can look and work, but never sign: a signature is one person's."),
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["display_name", "role"]

    objects: ClassVar[UserManager] = UserManager()

    class Meta:
        ordering = ("display_name", "pk")
        constraints = (
            models.CheckConstraint(condition=Q(role__in=Role.values), name="user_role_known"),
            models.CheckConstraint(
                condition=Q(role=Role.REVIEWER, domain__in=Domain.values) | (~Q(role=Role.REVIEWER) & Q(domain="")),
                name="user_reviewer_has_domain",
                violation_error_message=_("A reviewer needs a domain, and only a reviewer has one."),
            ),
        )

    def __str__(self) -> str:
        return self.display_name or self.username

    def get_full_name(self) -> str:
        return self.display_name
