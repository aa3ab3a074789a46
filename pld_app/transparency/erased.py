"""Which data of events were erased at law's demand, by the word of the log itself.

An erasure is two events: `erasure.requested` by an administrator and `erasure.confirmed` by another person, whose data
name each erased event with the SHA-256 that stands in its sealed body. No other table is trusted: both are verified as
every event is, so a text missing without them is an altered text.
"""

import json
from dataclasses import dataclass
from typing import Any

from django.db import connection

_STATEMENT = """
SELECT c.id, c.actor_id, c.actor_role, c.data, r.id, r.actor_id, r.actor_role
  FROM pld_app_auditevent c
  LEFT JOIN pld_app_auditevent r ON r.id = (c.data->>'request')::bigint AND r.action = 'erasure.requested'
 WHERE c.action = 'erasure.confirmed' ORDER BY c.id
"""


@dataclass(frozen=True, slots=True)
class Erased:
    """The erasure of one event's data: its number, and the SHA-256 of what stood there."""

    erasure: int
    data_sha256: str

    @property
    def tombstone(self) -> str:
        """What stands in the data's place, as the database writes it."""
        return json.dumps({"erased": self.erasure})


def erased_texts() -> dict[int, Erased]:
    """By event, in one query. What two people did not stand for, or names later events, is left out and so found."""
    found = dict[int, Erased]()
    with connection.cursor() as cursor:
        cursor.execute(_STATEMENT)
        for confirmed, second, second_role, data, requested, first, first_role in cursor.fetchall():
            two = first is not None and second is not None and first != second and requested < confirmed
            if two and first_role == "admin" and second_role in {"admin", "signatory"}:
                said: dict[str, Any] = data if isinstance(data, dict) else json.loads(data)
                found |= {
                    int(event): Erased(int(said["erasure"]), str(digest))
                    for event, digest in said.get("events", [])
                    if event < requested
                }
    return found
