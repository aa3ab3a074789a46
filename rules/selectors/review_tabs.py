"""The tabs and marks of the queue: a new one is a member of its enum and an entry in its table, and no more."""

from collections.abc import Callable

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import User
from rules.models import Comment, InstructionStatus, Opinion, Waiting

type Condition = Callable[[User], Q]


class Tab(models.TextChoices):
    OPEN = "open", _("Open")
    ASSIGNED = "assigned", _("Mine")
    UNASSIGNED = "unassigned", _("Unassigned")
    SECOND = "second", _("Second check")
    MINE = "mine", _("My edits")
    OPINIONS = "opinions", _("Await another")
    DISPUTED = "disputed", _("To settle")
    DEFERRED = "deferred", _("Deferred")
    SENT_BACK = "sent_back", _("Sent back")
    DONE = "done", _("Done")
    APPROVED = "approved", _("Approved")
    REJECTED = "rejected", _("Rejected")
    ALL = "all", _("All")


_AWAITING = Q(status__in=[InstructionStatus.PROPOSED, InstructionStatus.IN_REVIEW])
_SECOND = _AWAITING & Q(waiting=Waiting.SECOND_REVIEWER)


def _judged(user: User) -> Q:
    """Those this person has given an opinion on that still counts. A list, not a look-up a row: it is made once."""
    return Q(pk__in=Opinion.objects.filter(actor=user, double__voided_at=None).values("double__instruction"))


def assigned_to(user: User) -> Q:
    """Named for this person, or for somebody away whose deputy they are."""
    return Q(assignment__person=user) | is_away("assignment__person__") & Q(assignment__person__absence__deputy=user)


def is_away(prefix: str) -> Q:
    """Whether the person at the end of `prefix` is away today."""
    today = timezone.now().date()
    return Q(**{f"{prefix}absence__starts_on__lte": today, f"{prefix}absence__ends_on__gte": today})


def held_by(user: User) -> Q:
    return Q(claim__holder=user, claim__expires_at__gt=Now())


TABS: dict[Tab, Condition] = {
    Tab.OPEN: lambda user: _AWAITING & Q(waiting="") & ~_judged(user),
    Tab.ASSIGNED: lambda user: _AWAITING & (assigned_to(user) | held_by(user)),
    Tab.UNASSIGNED: lambda user: _AWAITING & Q(waiting="", assignment__isnull=True) & ~_judged(user),
    # Nobody is offered a second check of their own edit.
    Tab.SECOND: lambda user: _SECOND & ~Q(current_revision__author=user) & ~_judged(user),
    Tab.MINE: lambda user: _SECOND & Q(current_revision__author=user),
    # What another decides too, and what two others disagree on.
    Tab.OPINIONS: lambda user: (
        _AWAITING & ~Q(waiting=Waiting.DISPUTED) & ~Q(current_revision__author=user) & _judged(user)
    ),
    Tab.DISPUTED: lambda user: _AWAITING & Q(waiting=Waiting.DISPUTED) & ~_judged(user),
    Tab.DEFERRED: lambda user: _AWAITING & Q(waiting=Waiting.DEFERRED),
    Tab.SENT_BACK: lambda user: _AWAITING & Q(waiting=Waiting.SENT_BACK),
    Tab.DONE: lambda user: Q(status__in=[InstructionStatus.APPROVED, InstructionStatus.REJECTED]),
    Tab.APPROVED: lambda user: Q(status=InstructionStatus.APPROVED),
    Tab.REJECTED: lambda user: Q(status=InstructionStatus.REJECTED),
    Tab.ALL: lambda user: Q(),
}


class Mark(models.TextChoices):
    """What narrows any tab further."""

    EDITED = "edited", _("Edited by a person")
    FLAGGED = "flagged", _("With things to look at")
    COMMENTED = "commented", _("With open comments")


MARKS: dict[Mark, Condition] = {
    Mark.EDITED: lambda user: Q(current_revision__author__isnull=False),
    Mark.FLAGGED: lambda user: ~Q(flags=[]),
    Mark.COMMENTED: lambda user: Q(
        pk__in=Comment.objects.filter(parent__isnull=True, is_resolved=False).values("instruction")
    ),
}


def tab_condition(tab: Tab, user: User) -> Q:
    """What a tab holds for this person."""
    return TABS[tab](user)


def mark_condition(mark: str, user: User) -> Q:
    """What a mark leaves of any tab; no mark leaves all."""
    return MARKS[Mark(mark)](user) if mark else Q()
