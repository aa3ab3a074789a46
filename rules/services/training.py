"""Training records: granted and ended by administrators, announced before they expire."""

from datetime import date

from django.core.exceptions import ValidationError
from django.db import transaction
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, WrongState
from pld_app.models import AuditEvent, Domain, Role, User
from pld_app.notifications import kind_register, notify
from rules.models import TrainingNotice, TrainingRecord
from rules.selectors.training import database_today, expiring, newest_of
from rules.services.refusals import database_refusals

kind_register(
    "training.granted",
    label=gettext_lazy("A training was recorded"),
    text=gettext_lazy("%(by)s recorded the training of %(name)s in %(domain)s, until %(date)s."),
)
kind_register(
    "training.ended",
    label=gettext_lazy("A training record was ended"),
    text=gettext_lazy("%(by)s ended the training record of %(name)s in %(domain)s."),
)
kind_register(
    "training.expires",
    label=gettext_lazy("A training expires"),
    text=gettext_lazy(
        "The training of %(name)s in %(domain)s counts until the day before %(date)s. Where a task asks for one, "
        "decisions are refused from then on, until an administrator records a new one."
    ),
)
# Days before the end at which people are told.
NOTICE_DAYS = (1, 14)


def training_grant(*, person: User, domain: str, expires_on: date, note: str, admin: User) -> TrainingRecord:
    """Record that a reviewer is trained for a domain until a day, on which it no longer counts.

    The newest record of person and domain is in force, so granting anew prolongs or shortens. Raises InvalidInput for
    an account that is no active reviewer, a day that is not to come, and an empty note.
    """
    if not person.is_active or person.role != Role.REVIEWER:
        raise InvalidInput(_("Training is recorded for reviewers whose account is open."))
    if domain not in Domain.values:
        raise InvalidInput(_("Choose the domain."))
    return _write("training.granted", person, domain, expires_on=expires_on, note=note, admin=admin)


def training_end(*, record_id: int, note: str, admin: User) -> TrainingRecord:
    """End the record in force today, with the reason. Raises WrongState where it ended or a newer one counts."""
    today = database_today()
    record = TrainingRecord.objects.select_related("person").get(pk=record_id)
    if newest_of(record.person, record.domain) != record or record.expires_on <= today:
        raise WrongState(_("This record is no longer in force. Reload to see which one is."))
    return _write("training.ended", record.person, record.domain, expires_on=today, note=note, admin=admin)


def _write(action: str, person: User, domain: str, *, expires_on: date, note: str, admin: User) -> TrainingRecord:
    require_role(admin, Role.ADMIN)
    name = str(Domain(domain).label)
    with database_refusals(), transaction.atomic():
        # As the database's guard does: a decision of theirs that is under way comes first, or sees this.
        User.objects.select_for_update(no_key=True).get(pk=person.pk)
        event = _event(action, person, admin, {"domain": domain, "expires_on": expires_on.isoformat(), "note": note})
        record = TrainingRecord(
            person=person, domain=domain, expires_on=expires_on, note=note.strip(), granted_by=admin, event=event
        )
        try:
            record.full_clean()
        except ValidationError as error:
            raise InvalidInput(" ".join(error.messages)) from error
        record.save(force_insert=True)
        parts = {"by": str(admin), "name": str(person), "domain": name, "date": expires_on.isoformat()}
        notify([person], action, url=reverse("training"), **parts)
    return record


def _event(action: str, person: User, admin: User, data: dict[str, Json]) -> AuditEvent:
    return audit_record(action, actor=admin, subject=person, data=data)


def training_notices_send(*, today: date) -> int:
    """Tell people and administrators of records that expire within 14 days, and again within one; how many notices.

    Once for each record and distance, whenever this runs: a day without it loses none.
    """
    sent = 0
    for record in expiring(today, within=max(NOTICE_DAYS)):
        left = (record.expires_on - today).days
        days = next(limit for limit in NOTICE_DAYS if left <= limit)
        with transaction.atomic():
            _notice, is_new = TrainingNotice.objects.get_or_create(record=record, days=days)
            if is_new:
                admins = User.objects.filter(role=Role.ADMIN, is_active=True)
                parts = {"name": str(record.person), "domain": record.get_domain_display()}
                url = reverse("training")
                notify(
                    [record.person, *admins], "training.expires", url=url, date=f"{record.expires_on:%Y-%m-%d}", **parts
                )
                sent += 1
    return sent
