"""What the student's service fetched, minute by minute: one row a token, channel and answer, not one a request."""

import threading
from datetime import timedelta

from django.db import connection, transaction
from django.db.models.functions import Now
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.audit import Json, audit_record
from pld_app.models import AuditEvent, Role, User
from pld_app.notifications import kind_register, notify
from rules.models import PromptToken, Release, Task

CHECK_FAILED = "prompt.check_failed"
REMINDED_EVERY = timedelta(hours=1)

kind_register(
    "prompt.check_failed",
    label=_("A stored prompt is not the signed one"),
    text=_(
        "The %(what)s of release %(version)s in %(channel)s do not hold, so it is not served: somebody changed the "
        "database. Publish another release and have the log verified."
    ),
)

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


@transaction.atomic
def check_failed_note(*, task: Task, release: Release, channel: str, what: str) -> None:
    """Record that what is stored is not what was signed, and tell signatories, administrators and auditors.

    At most once an hour for a release and channel, however often the student asks.
    """
    # The task's row is the lock: of many requests at once, one tells.
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    recent = AuditEvent.objects.filter(action=CHECK_FAILED, object_id=str(release.pk), at__gt=Now() - REMINDED_EVERY)
    if recent.filter(data__channel=channel).exists():
        return
    told = User.objects.filter(role__in=[Role.SIGNATORY, Role.ADMIN, Role.AUDITOR], is_active=True)
    said = {"what": what, "version": str(release), "channel": channel}
    notify(told, CHECK_FAILED, url=reverse("releases", args=[task.slug]), **said)
    data: dict[str, Json] = {"channel": channel, "what": what}
    audit_record(CHECK_FAILED, actor=None, subject=release, task_slug=task.slug, data=data)


def reads_forget() -> None:
    """Have every answer written down again; for tests, whose rows come and go within a minute."""
    with _lock:
        _seen.clear()
