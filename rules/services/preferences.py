"""How one person works at the card; their own matter, so it leaves no event."""

from collections.abc import Mapping

from pld_app.errors import InvalidInput
from pld_app.models import User
from rules.models import ReadingFont, ReviewPreference
from rules.review_keys import keys_checked


def preference_save(*, user: User, font: str, keys_on: bool, keys: Mapping[str, str]) -> ReviewPreference:
    """Save one's typeface and single keys (action to key; left out: the preset). Refuses keys that clash."""
    if font not in ReadingFont.values:
        raise InvalidInput
    values = {"font": font, "keys_on": keys_on, "keys": keys_checked(keys)}
    row, _made = ReviewPreference.objects.update_or_create(user=user, defaults=values)
    return row


def preference_reset_keys(*, user: User) -> None:
    """All keys as they come, and switched on."""
    ReviewPreference.objects.filter(user=user).update(keys={}, keys_on=True)
