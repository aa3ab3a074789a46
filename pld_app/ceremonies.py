"""Questions that wait for an answer: what a passkey or a sign-in provider is asked to confirm for one act."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models.functions import Now

from pld_app import passkeys
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.models import Ceremony, Passkey, User

# How long a question can be answered, and the proof that comes of it be used.
VALID = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Act:
    """What the proof is for."""

    purpose: str
    subject_type: str
    subject_id: str
    content_sha256: str
    meaning: str = ""


def ceremony_open(
    *, kind: str, actor: User, session_key: str, act: Act, number: int | None, secret: dict[str, Any] | None = None
) -> Ceremony:
    """Keep the question of one act for a passkey or a sign-in provider; `number` is what people call its object."""
    ceremony = Ceremony(
        kind=kind,
        user=actor,
        session_sha256=sha256_hex(session_key),
        purpose=act.purpose,
        subject_type=act.subject_type,
        subject_id=act.subject_id,
        content_sha256=act.content_sha256,
        meaning=act.meaning,
        secret=secret or {},
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        at: str = cursor.fetchone()[0]
    statement = {
        "schema": "pld-ceremony/v1",
        "purpose": act.purpose,
        "subject": {"type": act.subject_type, "id": act.subject_id, "number": number},
        "content_sha256": act.content_sha256,
        "meaning": act.meaning,
        "signer": {"id": actor.pk, "username": actor.username, "name": str(actor)},
        "nonce": str(ceremony.token),
        "at": at,
    }
    ceremony.statement = canonical_json(statement).decode()
    ceremony.save()
    return ceremony


def passkey_question(*, ceremony: Ceremony, site: passkeys.Site, user: User) -> dict[str, Any]:
    """The JSON that the page's script hands to the browser."""
    options = passkeys.authentication_options(
        site=site,
        challenge=bytes.fromhex(sha256_hex(ceremony.statement)),
        passkeys=list(Passkey.objects.filter(user=user, removed_at__isnull=True)),
    )
    return {"ceremony": str(ceremony.token), "options": options}


def ceremony_take(
    actor: User, session_sha256: str, act: Act, now: datetime, *, kind: str, token: str
) -> Ceremony | None:
    """The open question for exactly this act in this session, marked as used; None when there is none."""
    try:
        ceremony = Ceremony.objects.select_for_update().filter(token=token, kind=kind).first()
    except (ValidationError, ValueError):
        return None  # the token is no UUID
    if ceremony is None or ceremony.used_at is not None or ceremony.at < now - VALID:
        return None
    asked = Act(
        purpose=ceremony.purpose,
        subject_type=ceremony.subject_type,
        subject_id=ceremony.subject_id,
        content_sha256=ceremony.content_sha256,
        meaning=ceremony.meaning,
    )
    if asked != act or (ceremony.user_id, ceremony.session_sha256) != (actor.pk, session_sha256):
        return None
    Ceremony.objects.filter(pk=ceremony.pk).update(used_at=Now())
    return ceremony
