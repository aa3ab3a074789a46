"""Test 27: an application whose clock is a day off. Times and order are those of Postgres; no window moves with it."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection

from pld_app.errors import NotAllowed
from pld_app.models import AuditEvent, User
from rules.models import Decision, Publication, Signature, Task
from tests.publishing import steps
from tests.publishing.test_database import refused, sign_directly

DAY = timedelta(days=1)


@pytest.fixture(params=[-DAY, DAY], ids=["a day behind", "a day ahead"])
def off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """What the application takes for now: the clock below everything of ours and of Django's that asks for it."""
    shift: timedelta = request.param

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]  # a plain datetime, as callers expect
            return datetime.fromtimestamp(time.time(), tz) + shift

    monkeypatch.setattr("django.utils.timezone.datetime", Shifted)
    return shift


def server_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: datetime = cursor.fetchone()[0]
        return found


@pytest.mark.django_db
def test_27_times_and_order_are_of_the_database(off: timedelta, task: Task, ana: User, sam: User, sue: User) -> None:
    from django.utils import timezone  # what the application sees

    started = server_now()
    assert abs((timezone.now() - started) - off) < timedelta(minutes=1)
    if off < timedelta(0):  # its new sessions are over by the database's clock: it fails closed
        with pytest.raises(NotAllowed, match="session has ended"):
            steps.in_production(task, ana, sam, sue)
    else:
        steps.in_production(task, ana, sam, sue)
    ended = server_now()
    assert Decision.objects.count() == 3
    assert Publication.objects.count() == (0 if off < timedelta(0) else 2)
    for model in (Decision, Signature, Publication):
        for at in model._default_manager.values_list("at", flat=True):
            assert started <= at <= ended, model
    for signature in Signature.objects.all():
        assert timedelta(0) <= signature.at - signature.authenticated_at < timedelta(minutes=5)
    events = list(AuditEvent.objects.order_by("pk"))
    assert all(started - timedelta(minutes=5) <= one.at <= ended for one in events)
    assert all(one.at <= other.at for one, other in pairwise(events))


@pytest.mark.django_db
def test_27_no_window_opens_by_the_clock_of_the_application(off: timedelta, task: Task, ana: User, sam: User) -> None:
    """A proof is fresh by Postgres's clock alone, whatever time the application writes beside it."""
    ruleset = steps.frozen(task, ana)
    told = datetime.now(UTC) + off
    refused("re-authenticate", lambda: sign_directly(ruleset, sam, authenticated_at=told))
    if off > timedelta(0):
        signature = steps.sign(ruleset, sam)
        assert abs(signature.authenticated_at - server_now()) < timedelta(minutes=1)
