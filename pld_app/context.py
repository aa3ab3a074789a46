"""What every page knows: the navigation that this role may use."""

from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from pld_app.models import Role
from pld_app.notifications import unread_count


@dataclass(frozen=True)
class NavItem:
    label: str | Promise
    url: str
    active: bool


# URL name, label, the URL names that light it up by prefix, and the roles that see it (empty: all).
_TOP = (
    ("home", _("Tasks"), ("home", "task-new"), ()),
    ("audit", _("Audit log"), ("audit",), (Role.AUDITOR, Role.ADMIN)),
    ("endpoints", _("Endpoints"), ("endpoint",), (Role.AUDITOR, Role.ADMIN)),
    ("ledger", _("Ledger"), ("ledger",), (Role.AUDITOR, Role.ADMIN)),
    ("retention", _("Retention"), ("retention",), (Role.AUDITOR, Role.ADMIN, Role.SIGNATORY)),
    ("accounts", _("Accounts"), ("account",), (Role.AUDITOR, Role.ADMIN)),
    ("system-health", _("Health"), ("system-health",), (Role.AUDITOR, Role.ADMIN)),
)
_TASK = (
    ("task", _("Overview"), ("task",)),
    ("traces", _("Traces"), ("trace", "import")),
    ("mining-list", _("Mining"), ("mining",)),
    ("review-queue", _("Review"), ("review", "instruction", "batch", "conflict")),
    ("ruleset-list", _("Rulesets"), ("ruleset", "policy")),
    ("releases", _("Releases"), ("release", "token", "publish", "control", "webhook", "served", "gates")),
    ("evaluation-list", _("Evaluation"), ("evaluation",)),
)


def page(request: HttpRequest) -> dict[str, object]:
    """Template context: `nav_items`, `task_nav_items` inside a task, and how many messages are `unread`."""
    context: dict[str, object] = {"app_version": settings.VERSION}
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or request.resolver_match is None:
        return context
    name = request.resolver_match.url_name or ""
    context["unread"] = unread_count(user)
    context["nav_items"] = [
        NavItem(label, reverse(url), name.startswith(lit))
        for url, label, lit, roles in _TOP
        if not roles or user.role in roles
    ]
    slug = request.resolver_match.kwargs.get("slug")
    if slug:
        context["task_nav_items"] = [
            NavItem(label, reverse(url, args=[slug]), name.startswith(lit)) for url, label, lit in _TASK
        ]
    return context
