"""How one person works at the card."""

from dataclasses import dataclass

from pld_app.models import User
from rules.models import ReadingFont, ReviewPreference
from rules.review_keys import PRESETS, keys_with


@dataclass(frozen=True, slots=True)
class Preference:
    """`keys` is action to key, each empty where the person switched single keys off; `own_keys` is what they chose."""

    font: str
    keys: dict[str, str]
    keys_on: bool
    own_keys: dict[str, str]


def preference_of(user: User) -> Preference:
    """The person's own choice, or the presets."""
    row = ReviewPreference.objects.filter(user=user).first()
    if row is None:
        return Preference(ReadingFont.SERIF, dict(PRESETS), keys_on=True, own_keys=dict(PRESETS))
    own = keys_with(row.keys)
    return Preference(row.font, own if row.keys_on else dict.fromkeys(PRESETS, ""), row.keys_on, own)
