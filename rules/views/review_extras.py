"""What stands around the decision on a card: the closed drawer, comments, the blind first question, pauses.

The card calls these at fixed places and knows nothing else of them. Each may stay silent (empty, None, False).
"""

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse

from pld_app.access import UserRequest
from rules.models import DecisionKind, Instruction
from rules.selectors.review_filter import ReviewFilter


def wording_withheld(request: UserRequest, instruction: Instruction) -> bool:
    """Whether this person must answer on the evidence first: the card then holds no word of the rule anywhere.

    In place of the rule it shows `rules/review_blind.html`, and offers no decision.
    """
    return False


def card_extras(request: UserRequest, instruction: Instruction) -> Mapping[str, object]:
    """Context for `rules/review_insight.html`, `rules/review_comments.html` and `rules/review_blind.html`."""
    return {}


def pause_before(
    request: UserRequest, instruction: Instruction, view: ReviewFilter, *, kind: DecisionKind, sent: Mapping[str, Any]
) -> HttpResponse | None:
    """A page in place of the decision that was sent (such as "read this one?"); None lets it go on.

    The page sends the same form again with one field more, so that nothing typed is lost.
    """
    return None


def decided(request: UserRequest, instruction: Instruction, *, kind: DecisionKind, done: object) -> None:
    """After a decision is on record, in a transaction of its own; it may not undo or refuse it."""
