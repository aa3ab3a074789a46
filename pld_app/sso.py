"""Whose account a provider's answer opens, and the step-up at signing. Accounts are matched and bound, never made."""

import hashlib
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app import oidc
from pld_app.assertions import b64
from pld_app.audit import audit_record
from pld_app.ceremonies import VALID, Act, ceremony_open
from pld_app.errors import NotAllowed
from pld_app.models import Ceremony, SsoIdentity, User
from pld_app.notifications import notify

BOUND = "sso.bound"
# How far the clocks of provider and database may differ.
SKEW_S = 60


def account_of(claims: dict[str, Any]) -> User:
    """The account of a checked ID token, bound to it at first use; raises NotAllowed when it opens none."""
    issuer, subject = str(claims["iss"]), str(claims["sub"])
    if not subject or len(subject) > 255:
        raise NotAllowed(_("The sign-on provider sent no usable account. Tell an administrator."))
    bound = (
        SsoIdentity.objects.select_related("user")
        .filter(issuer=issuer, subject=subject, removed_at__isnull=True)
        .first()
    )
    user = bound.user if bound else _bind(claims, issuer, subject)
    _require_domain(claims)
    if not user.is_active:
        raise NotAllowed(_("This account is closed."))
    return user


def _require_domain(claims: dict[str, Any]) -> None:
    if not settings.OIDC_DOMAINS:
        return
    address = str(claims.get("email", ""))
    if claims.get("email_verified") is not True or address.rpartition("@")[2].lower() not in settings.OIDC_DOMAINS:
        raise NotAllowed(_("The sign-on account does not belong to a domain that may sign in here."))


@transaction.atomic
def _bind(claims: dict[str, Any], issuer: str, subject: str) -> User:
    _require_domain(claims)
    claim = settings.OIDC_USERNAME_CLAIM
    name = str(claims.get(claim, ""))
    if claim == "email" and claims.get("email_verified") is not True:
        name = ""
    column = "email__iexact" if claim == "email" else "username"
    found = list(User.objects.filter(**{column: name}, is_active=True)[:2]) if name else []
    if len(found) != 1:
        raise NotAllowed(
            _("No account here matches your sign-on account. An administrator makes one with your user name first.")
        )
    user = found[0]
    try:
        with transaction.atomic():
            SsoIdentity.objects.create(user=user, issuer=issuer, subject=subject)
    except IntegrityError as error:
        raise NotAllowed(
            _("The account with your name is bound to another sign-on account. An administrator can reset that.")
        ) from error
    audit_record(BOUND, actor=user, subject=user, data={"issuer": issuer, "subject": subject})
    notify([user], "factor.changed", url="/security/", what=_("it can be opened by single sign-on now"))
    return user


def step_up_open(
    *, actor: User, session_key: str, act: Act, number: int | None, goal: str
) -> tuple[Ceremony, oidc.Question]:
    """A question to the provider for one act. Its nonce is the statement's hash: the answer is for this act alone."""
    ceremony = ceremony_open(kind="oidc", actor=actor, session_key=session_key, act=act, number=number)
    nonce = b64(hashlib.sha256(ceremony.statement.encode()).digest())
    question = oidc.Question.new(nonce)
    Ceremony.objects.filter(pk=ceremony.pk).update(secret=asdict(question) | {"goal": goal})
    return ceremony, question


def step_up_pending(*, user: User, session_sha256: str, state: str) -> Ceremony | None:
    """The unanswered question with this state, of this person in this session."""
    return Ceremony.objects.filter(
        kind="oidc",
        user=user,
        session_sha256=session_sha256,
        secret__state=state,
        answered_at__isnull=True,
        used_at__isnull=True,
        at__gt=Now() - VALID,
    ).first()


def step_up_answer(*, ceremony: Ceremony, claims: dict[str, Any]) -> Ceremony:
    """Take the provider's answer: the bound account of this very person, authenticated after the question was asked."""
    bound = SsoIdentity.objects.filter(user_id=ceremony.user_id, removed_at__isnull=True)
    if not bound.filter(issuer=str(claims["iss"]), subject=str(claims["sub"])).exists():
        raise NotAllowed(
            _("That was the sign-on account of somebody else, or one not bound to yours. Sign in with it once.")
        )
    authenticated = claims.get("auth_time")
    asked, now = ceremony.at.timestamp(), timezone.now().timestamp()
    if not isinstance(authenticated, int | float) or not asked - SKEW_S <= authenticated <= now + SKEW_S:
        raise oidc.SsoRefused("the provider did not authenticate the person anew")
    taken = Ceremony.objects.filter(pk=ceremony.pk, answered_at__isnull=True).update(answered_at=Now())
    if not taken:
        raise oidc.SsoRefused("this answer was given already")
    return ceremony
