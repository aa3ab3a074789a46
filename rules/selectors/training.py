"""Who is trained for what today, and which records end soon."""

from datetime import date, timedelta

from django.db import connection
from django.db.models import Max, QuerySet
from django.utils.translation import gettext as _

from pld_app.models import Domain, Role, User
from rules.models import TrainingRecord

_TODAY = "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date"


def database_today() -> date:
    """Today's date (UTC) by the database's clock, which is the one that refuses."""
    with connection.cursor() as cursor:
        cursor.execute(_TODAY)
        (today,) = cursor.fetchone() or (None,)
    assert isinstance(today, date)
    return today


def is_trained(person: User, domain: str) -> bool:
    """Whether the person has a current record for the domain (for any, where it is empty), as the database sees it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pld_is_trained(%s, %s)", [person.pk, domain])
        row = cursor.fetchone()
    return bool(row and row[0])


def newest_records() -> QuerySet[TrainingRecord]:
    """Of each person and domain the record that counts, expired or not."""
    newest = TrainingRecord.objects.order_by().values("person", "domain").annotate(newest=Max("pk"))
    return TrainingRecord.objects.filter(pk__in=newest.values("newest")).select_related("person", "granted_by")


def newest_of(person: User, domain: str) -> TrainingRecord | None:
    return TrainingRecord.objects.filter(person=person, domain=domain).first()


def expiring(today: date, *, within: int) -> QuerySet[TrainingRecord]:
    """Records in force that expire in at most `within` days, of accounts that are open."""
    soon = newest_records().filter(expires_on__gt=today, expires_on__lte=today + timedelta(days=within))
    return soon.filter(person__is_active=True, person__role=Role.REVIEWER).order_by("pk")


def admins_named() -> str:
    """The administrators by name, for "ask ...": three at most, then how many more."""
    names = [str(user) for user in User.objects.filter(role=Role.ADMIN, is_active=True).order_by("display_name", "pk")]
    if not names:
        return _("an administrator")
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else _("%(names)s or %(more)d more") % {"names": shown, "more": len(names) - 3}


def untrained_words(domain: str) -> str:
    """What is missing and whom to ask for it."""
    name = str(Domain(domain).label) if domain else _("any domain")
    words = _("You have no current training record for %(domain)s, so you can read here, but not decide. Ask %(who)s.")
    return words % {"domain": name, "who": admins_named()}


def untrained_reviewers() -> list[tuple[User, str]]:
    """Active reviewers without a current record for their own domain: whom a policy that asks for one would stop."""
    reviewers = User.objects.filter(role=Role.REVIEWER, is_active=True).order_by("display_name", "pk")
    today = database_today()
    current = set(newest_records().filter(expires_on__gt=today).values_list("person_id", "domain"))
    return [(one, str(Domain(one.domain).label)) for one in reviewers if (one.pk, one.domain) not in current]
