"""The single keys of the card: what each does, its preset, and what a person may put in its place."""

from collections.abc import Mapping

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.errors import InvalidInput

ACTIONS: dict[str, tuple[str, str | Promise]] = {
    "approve": ("a", gettext_lazy("Approve")),
    "edit": ("e", gettext_lazy("Edit")),
    "reject": ("r", gettext_lazy("Reject, then 1 to 9 for the reason")),
    "defer": ("d", gettext_lazy("Defer")),
    "send_back": ("b", gettext_lazy("Send back, then 1 to 9 for the reason")),
    "undo": ("u", gettext_lazy("Undo")),
    "next": ("j", gettext_lazy("Next")),
    "previous": ("k", gettext_lazy("Previous")),
    "figures": ("i", gettext_lazy("Figures on this rule")),
    "comment": ("c", gettext_lazy("Comments")),
    "reopen": ("o", gettext_lazy("Reopen")),
    "take_over": ("t", gettext_lazy("Take over")),
    "begin": ("n", gettext_lazy("Begin, in the queue")),
}
PRESETS = {action: key for action, (key, _name) in ACTIONS.items()}
# Digits choose a reason and `?` lists the keys, always.
_TAKEN = frozenset("0123456789?")


def keys_with(own: Mapping[str, str]) -> dict[str, str]:
    """The key of every action: the person's own where they chose one."""
    return {action: own.get(action, key) for action, key in PRESETS.items()}


def keys_checked(chosen: Mapping[str, str]) -> dict[str, str]:
    """What differs from the presets, in lower case. Refuses what is no single visible sign, is taken, or is used twice.

    Enter, Backspace and the space bar are no visible signs, so none of them can ever decide.
    """
    keys = {action: chosen.get(action, key).strip().lower() or key for action, key in PRESETS.items()}
    for action, key in keys.items():
        if len(key) != 1 or not key.isprintable() or key.isspace() or key in _TAKEN:
            message = _("“%(key)s” cannot be the key of “%(what)s”. Choose one letter or sign; digits and ? are taken.")
            raise InvalidInput(message % {"key": key, "what": ACTIONS[action][1]})
        twin = next((other for other, used in keys.items() if used == key and other != action), None)
        if twin is not None:
            message = _("“%(key)s” is set for both “%(one)s” and “%(other)s”. Give one of them another key.")
            raise InvalidInput(message % {"key": key, "one": ACTIONS[action][1], "other": ACTIONS[twin][1]})
    return {action: key for action, key in keys.items() if key != PRESETS[action]}
