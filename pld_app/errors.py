"""Refusals: what a person may be told, raised by services and shown by one middleware."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

type Message = str | Promise


class Refusal(Exception):
    """The action was refused and nothing was changed. `user_message` says what happened and what to do next."""

    status = 422
    user_message: Message = _("This could not be done.")

    def __init__(self, user_message: Message | None = None) -> None:
        if user_message is not None:
            self.user_message = user_message
        super().__init__(str(self.user_message))


class InvalidInput(Refusal):
    """What was sent does not fit; the sender can correct it."""


class WrongState(Refusal):
    """The row is no longer in a state that allows this; someone was faster or the page is old."""

    status = 409
    user_message = _("This has changed since you opened it. Reload and look again.")


class NotAllowed(Refusal):
    """The role or a rule of separation forbids it for this person."""

    status = 403
    user_message = _("Your role does not allow this.")
