"""Views of a queue kept under an address of their own."""

import secrets

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.text import slugify
from django.utils.translation import gettext as _

from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import Role, User
from rules.models import Audience, SavedView, Task
from rules.selectors.review_filter import ReviewFilter

_MAY_SHARE = {
    Audience.PRIVATE: frozenset({Role.REVIEWER, Role.SIGNATORY, Role.ADMIN}),
    Audience.TEAM: frozenset({Role.REVIEWER, Role.ADMIN}),
    Audience.DEFAULT: frozenset({Role.ADMIN}),
}


@transaction.atomic
def saved_view_save(*, task: Task, owner: User, name: str, audience: str, view: ReviewFilter) -> SavedView:
    """Keep a view. Reviewers and administrators may share one; what the queue opens with is for administrators.

    One that others see is recorded. A private one is not: an event would tell auditors and administrators of it.
    """
    if audience not in Audience.values:
        raise InvalidInput(_("Choose who the view is for."))
    if not owner.is_active or owner.role not in _MAY_SHARE[Audience(audience)]:
        raise NotAllowed(_("Your role cannot keep a view for these people."))
    # The tail cannot be guessed, and keeps a name from telling that somebody's private view has it already.
    slug = f"{slugify(name)[:50] or 'view'}-{secrets.token_hex(3)}"
    saved = SavedView(task=task, slug=slug, name=name.strip(), audience=audience, query=view.query, owner=owner)
    try:
        saved.full_clean()
    except ValidationError as error:
        raise InvalidInput(" ".join(error.messages)) from error
    saved.save()
    if audience != Audience.PRIVATE:
        data: dict[str, Json] = {"name": saved.name, "for": audience, "query": saved.query}
        audit_record("saved_view.created", actor=owner, subject=saved, data=data, task_slug=task.slug)
    return saved


@transaction.atomic
def saved_view_delete(*, saved: SavedView, by: User) -> None:
    """Forget a view: its owner may, and an administrator one that others see."""
    is_shared = saved.audience != Audience.PRIVATE
    if not by.is_active or not (saved.owner_id == by.pk or (is_shared and by.role == Role.ADMIN)):
        message = _("This view is %(name)s's: only they and administrators delete it.")
        raise InvalidInput(message % {"name": saved.owner})
    if is_shared:
        audit_record(
            "saved_view.deleted", actor=by, subject=saved, data={"name": saved.name}, task_slug=saved.task.slug
        )
    saved.delete()
