"""What there is around a card at all, asked at once: most cards have none of it, and each look by itself costs more."""

from typing import NamedTuple

from django.db import connection

from pld_app.models import User
from rules.models import Instruction

# Each is true where its selector might find something; what this person may see of it is for that selector to say.
_THERE_IS = {
    "conflicts": "rules_conflict WHERE first_id = %(card)s OR second_id = %(card)s",
    "matches": "rules_runmatch WHERE instruction_id = %(card)s",
    "proposals": "rules_textproposal WHERE instruction_id = %(card)s",
    "similar": "rules_similarrule WHERE instruction_id = %(card)s"
    " UNION ALL SELECT FROM rules_nearduplicate WHERE instruction_id = %(card)s",
    "comments": "rules_comment WHERE instruction_id = %(card)s",
    "doubles": "rules_doublereview WHERE instruction_id = %(card)s",
    "claims": "rules_claim WHERE instruction_id = %(card)s",
    "others": "rules_presence WHERE instruction_id = %(card)s AND user_id <> %(user)s",
    "draft": "rules_draft WHERE instruction_id = %(card)s AND user_id = %(user)s",
    "judgements": "rules_judgementcontext WHERE revision_id = %(text)s AND actor_id = %(user)s",
    "insight": "rules_cardlook WHERE instruction_id = %(card)s AND user_id = %(user)s AND insight_at IS NOT NULL",
    "pause": "rules_reviewpause WHERE task_id = %(task)s AND user_id = %(user)s AND lifted_at IS NULL",
}


class Glance(NamedTuple):
    """Whether there is any row of each kind for this card and person."""

    conflicts: bool
    matches: bool
    proposals: bool
    similar: bool
    comments: bool
    doubles: bool
    claims: bool
    others: bool
    draft: bool
    judgements: bool
    insight: bool
    pause: bool


# In the order of the fields.
_QUERY = "SELECT " + ", ".join(f"EXISTS (SELECT FROM {_THERE_IS[name]})" for name in Glance._fields)  # noqa: S608  # fixed texts


def glance_of(instruction: Instruction, user: User) -> Glance:
    """One query. A check item's conflicts are those of its twin, so that they are always looked for."""
    about = {
        "card": instruction.pk,
        "user": user.pk,
        "text": instruction.current_revision_id,
        "task": instruction.task_id,
    }
    with connection.cursor() as cursor:
        cursor.execute(_QUERY, about)
        found = Glance(*(cursor.fetchone() or ()))
    return found._replace(conflicts=True) if instruction.is_seeded else found
