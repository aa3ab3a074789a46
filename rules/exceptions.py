"""Refusals of this app; each says what happened and what to do next."""

from django.db import IntegrityError
from django.utils.translation import gettext_lazy as _

from pld_app.errors import WrongState


class InvalidTransition(WrongState):
    """The state machine does not allow this move from the present state."""


class Stale(WrongState):
    """The form was opened on an older version of the row."""

    user_message = _(
        "Someone changed this since you opened it. Nothing of yours was saved over it; look again and repeat."
    )


def refusal_from(error: IntegrityError) -> str | None:
    """The words of a database guard ("pld: ..."), or None when the error is something else."""
    first_line = str(error).splitlines()[0] if str(error) else ""
    return first_line.removeprefix("pld: ") if first_line.startswith("pld: ") else None
