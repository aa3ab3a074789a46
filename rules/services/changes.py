"""What a reviewer does about a text that a later mining run proposes for an instruction."""

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import audit_record
from pld_app.canonical import sha256_hex
from pld_app.models import Role, User
from rules.exceptions import InvalidTransition
from rules.models import RunMatch


@transaction.atomic
def change_dismiss(*, match_id: int, reviewer: User) -> RunMatch:
    """Put a proposed text aside for good: later runs that say the same do not propose it again."""
    require_role(reviewer, Role.REVIEWER)
    # Lock first: two reviewers may dismiss at the same moment, and one event is enough.
    rows = RunMatch.objects.select_for_update(of=("self",)).select_related("instruction__task", "run")
    match = rows.get(pk=match_id)
    if not match.proposed_text or match.dismissed_at is not None:
        raise InvalidTransition(_("Nothing is proposed here any more. Reload to see what happened."))
    match.dismissed_at, match.dismissed_by = timezone.now(), reviewer
    match.save(update_fields=["dismissed_at", "dismissed_by"])
    audit_record(
        "proposal.dismissed",
        actor=reviewer,
        subject=match.instruction,
        task_slug=match.instruction.task.slug,
        data={
            "number": match.instruction.number,
            "run": match.run.number,
            "text_sha256": sha256_hex(match.proposed_text),
        },
    )
    return match
