"""What a task's policy asks of a reviewer before they decide: the notice on habit, read each quarter, and training."""

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.audit import audit_record
from pld_app.errors import NotAllowed
from pld_app.models import User
from rules.models import BiasNotice, Instruction, quarter_of
from rules.selectors.review_policy import policy_of
from rules.selectors.training import is_trained, untrained_words


class NoticeDue(NotAllowed):
    """The task's policy asks for the notice, and the person has not read it in this quarter."""

    user_message = _("Read the notice above the queue first: it is asked once a quarter, before the first decision.")


class Untrained(NotAllowed):
    """The task's policy asks for a current training record, and the person has none for this domain."""


def notice_is_due(user: User) -> bool:
    """Whether the person has not read it in this quarter."""
    return not BiasNotice.objects.filter(user=user, quarter=quarter_of(timezone.now())).exists()


def readiness_demand(*, instruction: Instruction, reviewer: User) -> None:
    """Raises Untrained or NoticeDue where the policy asks for what this person lacks; the database refuses it too."""
    policy = policy_of(instruction.task)
    if policy.training_required and not is_trained(reviewer, instruction.domain):
        raise Untrained(untrained_words(instruction.domain))
    if policy.notice_first and notice_is_due(reviewer):
        raise NoticeDue


@transaction.atomic
def notice_acknowledge(*, user: User) -> None:
    """Put on record that the person has read it; a second time in a quarter changes nothing."""
    quarter = quarter_of(timezone.now())
    User.objects.select_for_update().get(pk=user.pk)
    if not BiasNotice.objects.filter(user=user, quarter=quarter).exists():
        event = audit_record("bias_notice.acknowledged", actor=user, subject=user, data={"quarter": quarter})
        BiasNotice.objects.create(user=user, quarter=quarter, event=event)
