"""Who has which access, since when and by whom, and when they last used it: what an access review looks at."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import BigIntegerField, CharField, Exists, OuterRef, QuerySet, Subquery
from django.db.models.functions import Cast, Coalesce
from django.utils import timezone

from pld_app.models import AuditEvent, GrantStep, RoleGrantStep, User

# Whoever was not there for a quarter: is the access still needed?
IDLE_AFTER = timedelta(days=92)


@dataclass(frozen=True)
class Access:
    """One account. `active_at` is its last event in the log, `granted_by` who asked for its role and confirmed it."""

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
    """Accounts, open ones first, with what `access_of` reads; each from the ends of indexes."""
    mine = AuditEvent.objects.filter(actor=OuterRef("pk")).order_by("-pk")
    applied = RoleGrantStep.objects.filter(user=OuterRef("pk"), kind=GrantStep.APPLIED).order_by("-pk")
    in_effect = RoleGrantStep.objects.filter(grant=OuterRef("grant"), kind=GrantStep.APPLIED)
    confirmed = RoleGrantStep.objects.filter(
        Exists(in_effect), user=OuterRef("pk"), kind__in=[GrantStep.CONFIRMED, GrantStep.OVERRIDDEN]
    ).order_by("-pk")
    # Accounts of before, and those of the command line, have the role they were made with.
    made = AuditEvent.objects.filter(
        object_type="user", object_id=Cast(OuterRef("pk"), CharField()), action="account.created"
    ).order_by("-pk")
    return User.objects.annotate(
        active_at=Subquery(mine.values("at")[:1]),
        asked_by=Coalesce(
            Subquery(applied.values("grant__requested_by__display_name")[:1]), Subquery(made.values("actor_name")[:1])
        ),
        confirmed_by=Subquery(confirmed.values("actor__display_name")[:1]),
        granted_at=Coalesce(Subquery(applied.values("event__at")[:1]), Subquery(made.values("at")[:1])),
        granted_event=Coalesce(
            Subquery(applied.values("event_id")[:1]), Subquery(made.values("pk")[:1]), output_field=BigIntegerField()
        ),
    ).order_by("-is_active", "display_name", "pk")


def access_of(row: User) -> Access:
    """A row of `access_rows` as it is shown."""
    found = {name: getattr(row, name) for name in ("active_at", "granted_at", "granted_event")}
    people = [getattr(row, name) for name in ("asked_by", "confirmed_by")]
    return Access(user=row, granted_by=", ".join(name for name in people if name), **found)
