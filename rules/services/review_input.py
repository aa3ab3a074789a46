"""What a reviewer typed, made fit to store or refused with words that say how to mend it."""

import unicodedata

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from pld_app.errors import InvalidInput
from rules.hidden_text import hidden_in
from rules.models import BODY_CHARACTERS, ReasonCode

TEXT_MAX_CHARS = 4_000
NOTE_MAX_CHARS = 2_000


class HiddenCharacters(InvalidInput):
    """The text holds characters nobody can see; a page may offer it without them."""


def plain_newlines(text: str) -> str:
    """The text trimmed, its line ends as LF: browsers send CR LF, and one text must not have two hashes for that."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def rule_text(text: str) -> str:
    """A rule as it is stored: NFC, LF, trimmed. Refuses empty, over 4,000 characters, and invisible characters."""
    text = _visible(unicodedata.normalize("NFC", plain_newlines(text)))
    if not text:
        raise InvalidInput(_("The text is empty. Write the rule, or reject the instruction."))
    over = len(text) - TEXT_MAX_CHARS
    if over > 0:
        message = ngettext(
            "The text is %(over)d character too long; at most %(limit)s are allowed.",
            "The text is %(over)d characters too long; at most %(limit)s are allowed.",
            over,
        )
        raise InvalidInput(message % {"over": over, "limit": f"{TEXT_MAX_CHARS:,}"})
    return text


def note_text(note: str) -> str:
    """A note as it is stored; it may be empty."""
    note = _visible(plain_newlines(note))
    if len(note) > NOTE_MAX_CHARS:
        message = _("The note is too long; at most %(limit)s characters are allowed.")
        raise InvalidInput(message % {"limit": f"{NOTE_MAX_CHARS:,}"})
    return note


def comment_text(body: str) -> str:
    """A comment as it is stored. Refuses empty, over 4,000 characters, and invisible characters."""
    body = _visible(plain_newlines(body))
    if not body:
        raise InvalidInput(_("Write something."))
    if len(body) > BODY_CHARACTERS:
        message = _("The comment is too long; at most %(limit)s characters are allowed.")
        raise InvalidInput(message % {"limit": f"{BODY_CHARACTERS:,}"})
    return body


def reason_code(reason: str, note: str) -> str:
    """One of ReasonCode; the last one, "other", only beside a note."""
    if reason not in ReasonCode.values:
        raise InvalidInput(_("Choose a reason."))
    if reason == ReasonCode.OTHER and not note:
        raise InvalidInput(_("The reason “other” needs a note that says what is wrong."))
    return reason


def _visible(text: str) -> str:
    hidden = hidden_in(text)
    if hidden:
        message = _("There are invisible characters in it (%(codes)s). Take them out and send it again.")
        raise HiddenCharacters(message % {"codes": ", ".join(hidden[:5])})
    return text
