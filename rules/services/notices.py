"""The notice on automation bias: read at the start and again each quarter of a year, on record."""

from django.db import transaction
from django.utils import timezone

from pld_app.audit import audit_record
from pld_app.models import User
from rules.models import BiasNotice, quarter_of


def notice_is_due(user: User) -> bool:
    """Whether the person has not read it in this quarter."""
    return not BiasNotice.objects.filter(user=user, quarter=quarter_of(timezone.now())).exists()


@transaction.atomic
def notice_acknowledge(*, user: User) -> None:
    """Put on record that the person has read it; a second time in a quarter changes nothing."""
    quarter = quarter_of(timezone.now())
    User.objects.select_for_update().get(pk=user.pk)
    if not BiasNotice.objects.filter(user=user, quarter=quarter).exists():
        event = audit_record("bias_notice.acknowledged", actor=user, subject=user, data={"quarter": quarter})
        BiasNotice.objects.create(user=user, quarter=quarter, event=event)
