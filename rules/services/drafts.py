"""Unsent text of a reviewer, kept on the server so that no browser, network or lost claim can cost it."""

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.errors import InvalidInput
from pld_app.models import Role, User
from rules.models import Draft, Instruction
from rules.services.review_input import plain_newlines

# Room for far more than can be saved: a text that is too long is refused when it is saved, not lost while it is typed.
DRAFT_MAX_CHARS = 40_000


def draft_keep(*, instruction_id: int, reviewer: User, text: str, note: str = "", base: int) -> Draft | None:
    """Keep what is typed, for this person alone; None when it is what the instruction says anyway, then none is kept.

    `base` is the revision it was begun on. A draft is no record: it leaves no event and goes when it is saved. It is
    kept as it was typed, also by somebody who has lost the claim, and on an instruction that others have decided.
    """
    require_role(reviewer, Role.REVIEWER)
    text, note = plain_newlines(text).replace("\x00", ""), plain_newlines(note).replace("\x00", "")
    if len(text) + len(note) > DRAFT_MAX_CHARS:
        raise InvalidInput(_("This is too long to keep: at most %(n)s characters.") % {"n": f"{DRAFT_MAX_CHARS:,}"})
    with transaction.atomic():
        row = Instruction.objects.select_related("current_revision").get(pk=instruction_id)
        unchanged = row.current_revision is not None and text == plain_newlines(row.current_revision.text)
        if unchanged and not note:
            draft_discard(instruction_id=instruction_id, reviewer=reviewer)
            return None
        draft, _made = Draft.objects.update_or_create(
            user=reviewer,
            instruction=row,
            defaults={"text": text, "note": note, "base": base, "updated_at": timezone.now()},
        )
    return draft


def draft_discard(*, instruction_id: int, reviewer: User) -> None:
    """Throw one's own unsent text away; without one, nothing happens."""
    Draft.objects.filter(user=reviewer, instruction=instruction_id).delete()
