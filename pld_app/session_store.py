"""The session engine: rows with their person, which end after idle time and after a day's work."""

from datetime import datetime, timedelta
from typing import Any, cast

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils import timezone

from pld_app.models import UserSession

STARTED, SEEN = "pld.started", "pld.seen"
# How often being seen is written down: the idle time is exact to this.
SEEN_EVERY = timedelta(seconds=60)


class SessionStore(DatabaseStore):
    """Django's own, in our table: `expire_date` is the end of the idle time or of the whole time, whichever is first.

    The database answers only for sessions before that date, so an old cookie opens nothing.
    """

    @classmethod
    def get_model_class(cls) -> type[UserSession]:
        return UserSession

    def create_model_instance(self, data: dict[str, Any]) -> UserSession:  # session data is any JSON
        # Our own model, see `get_model_class`.
        row = cast(UserSession, super().create_model_instance(data))
        person = data.get(SESSION_KEY)
        row.user_id = int(person) if person else None
        row.expire_date = session_end(data, timezone.now())
        return row


def session_end(data: dict[str, Any], now: datetime) -> datetime:
    """When a session with this content ends if nobody is seen in it after `now`."""
    started = data.get(STARTED)
    begin = datetime.fromtimestamp(started, tz=now.tzinfo) if started else now
    return min(now + timedelta(seconds=settings.SESSION_IDLE_S), begin + timedelta(seconds=settings.SESSION_COOKIE_AGE))


@receiver(user_logged_in)
def _begin(sender: object, request: HttpRequest, **_others: object) -> None:
    now = timezone.now().timestamp()
    request.session[STARTED] = request.session[SEEN] = now


def session_seen(request: HttpRequest) -> None:
    """Note that the person is here, at most once a minute."""
    now = timezone.now().timestamp()
    if SESSION_KEY in request.session and now - request.session.get(SEEN, 0) >= SEEN_EVERY.total_seconds():
        request.session[SEEN] = now
