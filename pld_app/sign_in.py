"""Signing in under a limit: guessing passwords is slow, for known and unknown names alike."""

import ipaddress
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import authenticate
from django.db import connection, transaction
from django.db.models import Q
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from pld_app.audit import audit_record
from pld_app.models import AuditEvent, User

ACCOUNT_FAILURES = 5
ADDRESS_FAILURES = 20
WINDOW = timedelta(minutes=15)
FAILED = "login.failed"
LOCKED = "login.locked"


class SignInLocked(Exception):
    """Too many wrong attempts for this name or from this address; its text says so to the person."""

    def __init__(self, until: datetime, now: datetime) -> None:
        text = _(
            "Too many sign-ins with a wrong name or password. Wait until %(time)s UTC and try again. If it was not "
            "you, tell an administrator."
        )
        super().__init__(text % {"time": until.strftime("%H:%M")})
        self.seconds = max(1, round((until - now).total_seconds()))


def sign_in_check(*, request: HttpRequest, username: str, password: str) -> User | None:
    """The account these open, or None; raises SignInLocked after 5 failures a name or 20 an address in 15 minutes.

    The audit log is the counter: every failure is an event, and so is the lock it leads to. What is refused while
    locked writes nothing, so that a flood of guesses does not flood the log. Must not run inside a transaction.
    """
    # Keyed, not plain: people type passwords into the wrong field, and the log is for ever.
    seen = {"account_key": _key(username), "address": client_address(request)}
    with transaction.atomic(durable=True):
        now = _attempts_lock(seen["account_key"])
        until = _locked_until(seen, now)
        if until is not None:
            raise SignInLocked(until, now)
        user = authenticate(request, username=username, password=password)
        if isinstance(user, User):
            return user
        subject = User.objects.filter(username=username).first() or User(pk=0, display_name="unknown account")
        audit_record(FAILED, actor=None, subject=subject, data=seen)
        until = _locked_until(seen, now)
        if until is not None:
            audit_record(LOCKED, actor=None, subject=subject, data=seen | {"until": until.isoformat()})
    if until is not None:
        raise SignInLocked(until, now)
    return None


def client_address(request: HttpRequest) -> str:
    """Where a request comes from, as the limit counts it: an IPv6 client holds a whole /64.

    Behind a proxy only the last entry of X-Forwarded-For is the proxy's own word; the ones before it anybody can send.
    """
    forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2] if settings.BEHIND_PROXY else ""
    try:
        address = ipaddress.ip_address((forwarded or request.META.get("REMOTE_ADDR", "")).strip())
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(address), 64), strict=False))
        return str(address.ipv4_mapped)
    return str(address)


def _key(username: str) -> str:
    return salted_hmac("pld_app.sign_in", username, algorithm="sha256").hexdigest()[:32]


def _attempts_lock(account_key: str) -> datetime:
    """One attempt for a name at a time, so that parallel guesses are counted; returns the database's time.

    Addresses take no turns, or one colleague's typing would hold up an office: parallel requests may pass the limit
    of an address by as many as the server has threads.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('sign_in'), hashtext(%s))", [account_key])
        cursor.execute("SELECT statement_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


def _locked_until(seen: dict[str, str], now: datetime) -> datetime | None:
    account = _wait(Q(data__account_key=seen["account_key"]), ACCOUNT_FAILURES, now)
    address = _wait(Q(data__address=seen["address"]), ADDRESS_FAILURES, now)
    return max((until for until in (account, address) if until is not None), default=None)


def _wait(whose: Q, allowed: int, now: datetime) -> datetime | None:
    """When these may try again: 15 minutes after the last of too many failures; None when they may now."""
    recent = AuditEvent.objects.filter(whose, action=FAILED, at__gt=now - 2 * WINDOW).order_by("-pk")
    times = list(recent.values_list("at", flat=True)[:allowed])
    if len(times) < allowed or times[0] - times[-1] > WINDOW or now >= times[0] + WINDOW:
        return None
    return times[0] + WINDOW
