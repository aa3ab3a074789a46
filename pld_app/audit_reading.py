"""Reading the log is on record too: searches, single events, exports. And the searches that readers keep.

These are the pages where a GET writes, on purpose: what a reader saw and that they saw it stand or fall together, so
each event is written in the transaction that reads. An auditor who could read unseen could be asked to.
"""

import secrets
from datetime import timedelta

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.functions import Now
from django.utils.text import slugify
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.audit_search import AuditSearch, Facets
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, AuditQuery, Role, User

READERS = (Role.AUDITOR, Role.ADMIN)
# Paging on, coming back and reloading within this time is the same reading.
SAME_READING = timedelta(minutes=15)


def search_recorded(*, reader: User, search: AuditSearch, found: Facets) -> AuditEvent | None:
    """Record a search with how much it found; None when the same person made the same one a moment ago."""
    before = AuditEvent.objects.filter(
        actor=reader, action="audit.searched", data__query=search.query, at__gt=Now() - SAME_READING
    )
    if before.exists():
        return None
    data: dict[str, Json] = {"query": search.query, "found": found.total, "more": found.is_capped}
    return audit_record("audit.searched", actor=reader, subject=reader, data=data)


def view_recorded(*, reader: User, event: AuditEvent) -> AuditEvent:
    """Record that somebody read one event in full, or took its proof."""
    return audit_record("audit.viewed", actor=reader, subject=reader, data={"event": event.pk})


def export_recorded(*, reader: User, kind: str, search: AuditSearch, count: int) -> AuditEvent:
    data: dict[str, Json] = {"kind": kind, "query": search.query, "events": count}
    return audit_record("audit.exported", actor=reader, subject=reader, data=data)


@transaction.atomic
def query_save(*, owner: User, name: str, is_shared: bool, search: AuditSearch) -> AuditQuery:
    """Keep a search. One that others see is recorded; a private one is its owner's own business."""
    require_role(owner, *READERS)
    # The tail cannot be guessed, and keeps a name from telling that somebody's private search has it already.
    slug = f"{slugify(name)[:50] or 'search'}-{secrets.token_hex(3)}"
    saved = AuditQuery(slug=slug, name=name.strip(), is_shared=is_shared, query=search.query, owner=owner)
    try:
        saved.full_clean(exclude=["created_at"])
    except ValidationError as error:
        raise InvalidInput(_("Give the search a name of at most 80 characters.")) from error
    saved.save()
    if is_shared:
        audit_record("audit_query.created", actor=owner, subject=saved, data={"query": saved.query})
    return saved


@transaction.atomic
def query_delete(*, saved: AuditQuery, by: User) -> None:
    """Forget a search: its owner may, and an administrator one that others see."""
    require_role(by, *READERS)
    if saved.owner_id != by.pk and not (saved.is_shared and by.role == Role.ADMIN):
        raise NotAllowed(
            _("This search is %(name)s's: only they and administrators delete it.") % {"name": saved.owner}
        )
    if saved.is_shared:
        audit_record("audit_query.deleted", actor=by, subject=saved, data={"query": saved.query})
    saved.delete()
