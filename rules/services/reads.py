"""What the student's service fetched, minute by minute: one row a token, channel and answer, not one a request."""

import threading

from django.db import connection
from django.utils import timezone

from rules.models import PromptToken, Release

type _Answer = tuple[int, str, int | None, str]

# The minute in which this process last wrote each answer down: repeats in it cost no query.
_seen: dict[_Answer, int] = {}
_lock = threading.Lock()
_KEPT = 10_000

_NOTE = """
INSERT INTO rules_promptread (token_id, channel, release_id, prompt_sha256, reason, minute)
VALUES (%s, %s, %s, %s, %s, date_trunc('minute', clock_timestamp()))
ON CONFLICT ON CONSTRAINT prompt_read_once_a_minute DO NOTHING
"""


def read_note(*, token: PromptToken, channel: str, release: Release | None, reason: str = "") -> None:
    """Note that a token was answered with this release (or with nothing, and why) in this minute.

    Idempotent: many requests to many processes in one minute leave one row, stamped by Postgres. Where this machine's
    clock differs from it, the first and last minute of a series may be one off; what was served is never wrong.
    """
    key: _Answer = (token.pk, str(channel), release.pk if release else None, reason)
    minute = int(timezone.now().timestamp() // 60)
    with _lock:
        if _seen.get(key) == minute:
            return
        if len(_seen) > _KEPT:
            _seen.clear()
    with connection.cursor() as cursor:
        cursor.execute(_NOTE, [token.pk, str(channel), key[2], release.prompt_sha256 if release else "", reason])
    with _lock:
        _seen[key] = minute


def reads_forget() -> None:
    """Have every answer written down again; for tests, whose rows come and go within a minute."""
    with _lock:
        _seen.clear()
