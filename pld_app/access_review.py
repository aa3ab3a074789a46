"""Who has which access, since when and by whom, and when they last used it: what an access review looks at."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import CharField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Cast
from django.utils import timezone

from pld_app.models import AuditEvent, User

# Whoever was not there for a quarter: is the access still needed?
IDLE_AFTER = timedelta(days=92)
GRANTS = ("account.created", "account.role_changed")


@dataclass(frozen=True)
class Access:
    """One account. `active_at` is its last event in the log, `granted_*` the newest that gave it its role."""

    user: User
    active_at: datetime | None
    granted_by: str
    granted_at: datetime | None
    granted_event: int | None

    @property
    def is_idle(self) -> bool:
        """Open, and without an event for a quarter."""
        last = self.active_at or self.user.created_at
        return self.user.is_active and last < timezone.now() - IDLE_AFTER


def access_rows() -> QuerySet[User]:
    """Accounts, open ones first, with what `access_of` reads; each from the ends of two indexes of the log."""
    mine = AuditEvent.objects.filter(actor=OuterRef("pk")).order_by("-pk")
    grants = (
        AuditEvent.objects.filter(object_type="user", object_id=Cast(OuterRef("pk"), CharField()), action__in=GRANTS)
        .order_by("-pk")
        .values
    )
    return User.objects.annotate(
        active_at=Subquery(mine.values("at")[:1]),
        granted_by=Subquery(grants("actor_name")[:1]),
        granted_at=Subquery(grants("at")[:1]),
        granted_event=Subquery(grants("pk")[:1]),
    ).order_by("-is_active", "display_name", "pk")


def access_of(row: User) -> Access:
    """A row of `access_rows` as it is shown."""
    found = {name: getattr(row, name) for name in ("active_at", "granted_at", "granted_event")}
    return Access(user=row, granted_by=getattr(row, "granted_by", None) or "", **found)
