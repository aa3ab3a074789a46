"""Bearer tokens of the student's service: made once, shown once, revoked."""

import secrets

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput
from pld_app.models import Role, User
from rules.exceptions import InvalidTransition
from rules.models import PromptToken, Task, TokenScope

# A prefix of its own lets secret scanners find a token that leaked.
PREFIX = "pldp_"
HINT_CHARS = 9


@transaction.atomic
def token_create(*, task: Task, name: str, actor: User, scope: str = TokenScope.PROMPT) -> tuple[PromptToken, str]:
    """A new token for one task and one scope, and its secret (256 bits), which is not kept: only its SHA-256 is.

    Raises InvalidInput when an active token of the task has this name, NotAllowed for anyone but an administrator.
    """
    require_role(actor, Role.ADMIN)
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    if task.tokens.filter(name=name.strip(), revoked_at__isnull=True).exists():
        raise InvalidInput(_("There is an active token of this name. Choose another name or revoke that one."))
    secret = PREFIX + secrets.token_urlsafe(32)
    token = PromptToken(
        task=task, name=name.strip(), scope=scope, digest=sha256_hex(secret), hint=secret[:HINT_CHARS], created_by=actor
    )
    token.full_clean(exclude={"revoked_at"})
    token.save()
    data: dict[str, Json] = {"hint": token.hint, "scope": str(scope)}
    audit_record("token.created", actor=actor, subject=token, task_slug=task.slug, data=data)
    return token, secret


@transaction.atomic
def token_revoke(*, token_id: int, actor: User) -> PromptToken:
    """Make a token worthless from now on. Raises InvalidTransition when it was revoked before."""
    require_role(actor, Role.ADMIN)
    token = PromptToken.objects.select_for_update(of=("self",)).select_related("task").get(pk=token_id)
    if token.revoked_at is not None:
        raise InvalidTransition(_("This token was revoked already."))
    token.revoked_at = timezone.now()
    token.save(update_fields=["revoked_at"])
    audit_record("token.revoked", actor=actor, subject=token, task_slug=token.task.slug, data={"hint": token.hint})
    return token
