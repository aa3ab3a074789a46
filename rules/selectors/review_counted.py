"""Which instructions a person's lists hold and the counts beside them are of: so that no count betrays a check item."""

from django.db.models import Q

from pld_app.models import Role, User
from rules.models import Seed

WATCHERS = frozenset({Role.ADMIN, Role.AUDITOR})


def listed_for(user: User, prefix: str = "") -> Q:
    """A condition on instructions: what lists show this person. `prefix` leads to them, such as "instructions__".

    A check item that a reviewer has worded anew is that reviewer's alone: nothing a colleague did could settle it, as
    it would settle any other edit.
    """
    if user.role in WATCHERS:
        return Q()
    # A list made once, from the few there are, not a look-up a row.
    reworded = Seed.objects.filter(instruction__current_revision__number__gt=1)
    others = reworded.exclude(instruction__current_revision__author=user)
    return ~Q(**{f"{prefix}pk__in": others.values("instruction")})


def counted_for(user: User, prefix: str = "") -> Q:
    """A condition on instructions: what counts are of. Check items count for reviewers and signatories alone.

    Counts without them, beside lists that hold them, would tell which they are: a search that finds one row and
    counts none, a deferral that moves no figure.
    """
    return Q(**{f"{prefix}is_seeded": False}) if user.role in WATCHERS else listed_for(user, prefix)
