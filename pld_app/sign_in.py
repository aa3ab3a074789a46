"""Signing in under a limit: guessing passwords and codes is slow, for known and unknown names alike."""

import ipaddress
import secrets
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import authenticate, login
from django.db import connection, transaction
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.translation import gettext as _

from pld_app.assertions import b64, unb64
from pld_app.audit import audit_record
from pld_app.factors import active_passkeys, has_second_factor, second_factor_accepts
from pld_app.models import AuditEvent, User
from pld_app.passkeys import authentication_options, site_of

ACCOUNT_FAILURES = 5
ADDRESS_FAILURES = 20
WINDOW = timedelta(minutes=15)
FAILED = "login.failed"
LOCKED = "login.locked"
SUCCEEDED = "login.succeeded"
ENDED = "login.ended"
# What a session holds between the first and the second factor, and how long.
PENDING = "pld.pending"
PENDING_S = 300
BACKEND = "django.contrib.auth.backends.ModelBackend"


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


def sign_in_begin(*, request: HttpRequest, user: User, method: str, goal: str) -> bool:
    """After the first factor: sign in, or keep in the session that the second is still to come (False).

    `goal` is where the person wanted to go.
    """
    if not has_second_factor(user):
        sign_in_complete(request=request, user=user, method=method)
        return True
    # Another id, as after signing in: who planted the old one must not follow.
    request.session.cycle_key()
    request.session[PENDING] = {
        "user": user.pk,
        "method": method,
        "goal": goal,
        "since": timezone.now().timestamp(),
        "hash": user.get_session_auth_hash(),
        "challenge": b64(secrets.token_bytes(32)),
    }
    return False


@transaction.atomic
def sign_in_complete(*, request: HttpRequest, user: User, method: str) -> None:
    """Sign this person in, under a new session id, and record it."""
    request.session.pop(PENDING, None)
    login(request, user, backend=BACKEND)
    data = {"method": method, "address": client_address(request)}
    audit_record(SUCCEEDED, actor=user, subject=user, data=data)


@transaction.atomic
def sign_out_record(*, user: User) -> None:
    """That a person signed out; the session itself is deleted by Django."""
    audit_record(ENDED, actor=user, subject=user)


def pending_user(request: HttpRequest) -> User | None:
    """Who has given the first factor in this session and not yet the second; None when that was too long ago."""
    pending = request.session.get(PENDING)
    if not pending or timezone.now().timestamp() - pending["since"] > PENDING_S:
        return None
    user = User.objects.filter(pk=pending["user"], is_active=True).first()
    # A password changed in between takes back what the old one opened.
    if user is None or not constant_time_compare(user.get_session_auth_hash(), pending["hash"]):
        return None
    return user


def pending_question(request: HttpRequest, user: User) -> dict[str, Any] | None:
    """The question for the person's passkeys at sign-in, None without any."""
    keys = active_passkeys(user)
    if not keys:
        return None
    challenge = unb64(request.session[PENDING]["challenge"])
    return authentication_options(site=site_of(request), challenge=challenge, passkeys=keys)


def second_factor_check(*, request: HttpRequest, user: User, code: str, passkey: str) -> bool:
    """Take the second factor and sign in; False when it was wrong, which counts as a wrong password does.

    Raises SignInLocked. Must not run inside a transaction.
    """
    pending = request.session[PENDING]
    challenge = unb64(pending["challenge"])
    # Each challenge is asked once.
    request.session[PENDING] = pending | {"challenge": b64(secrets.token_bytes(32))}
    seen = {"account_key": _key(user.username), "address": client_address(request)}
    with transaction.atomic(durable=True):
        now = _attempts_lock(seen["account_key"])
        until = _locked_until(seen, now)
        if until is not None:
            raise SignInLocked(until, now)
        factor = second_factor_accepts(user, code=code, passkey=passkey, site=site_of(request), challenge=challenge)
        if factor:
            sign_in_complete(request=request, user=user, method=f"{pending['method']}+{factor}")
            return True
        audit_record(FAILED, actor=None, subject=user, data=seen | {"factor": "second"})
        until = _locked_until(seen, now)
        if until is not None:
            audit_record(LOCKED, actor=None, subject=user, data=seen | {"until": until.isoformat()})
    if until is not None:
        raise SignInLocked(until, now)
    return False


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
