"""Second factors: adding, using at sign-in, removing, an administrator's reset; each on record, its person told."""

import secrets
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now
from django.http import Http404
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from pld_app import passkeys, totp
from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, WrongState
from pld_app.models import Passkey, RecoveryCode, Role, SecurityPolicy, SsoIdentity, TotpDevice, User, UserSession
from pld_app.notifications import notify
from pld_app.reauthentication import passkey_accepts, totp_accepts

RECOVERY_CODES = 10
PASSKEYS_ALLOWED = 10
ADDED, REMOVED, RESET = "factor.added", "factor.removed", "factor.reset"
# Enrolling shows a secret on the screen: an enrolment left open ends.
ENROLMENT = timedelta(minutes=15)


def active_totp(user: User) -> TotpDevice | None:
    """The person's authenticator app, confirmed or about to be."""
    return TotpDevice.objects.filter(user=user, removed_at__isnull=True).first()


def active_passkeys(user: User) -> list[Passkey]:
    return list(Passkey.objects.filter(user=user, removed_at__isnull=True))


def has_second_factor(user: User) -> bool:
    device = active_totp(user)
    return (device is not None and device.confirmed_at is not None) or bool(active_passkeys(user))


def account_rows() -> QuerySet[User]:
    """Every account, open ones first, with `totp_on`, `passkey_on` and `sso_on`."""
    mine = {"user": OuterRef("pk"), "removed_at__isnull": True}
    return User.objects.annotate(
        totp_on=Exists(TotpDevice.objects.filter(**mine, confirmed_at__isnull=False)),
        passkey_on=Exists(Passkey.objects.filter(**mine)),
        sso_on=Exists(SsoIdentity.objects.filter(**mine)),
    ).order_by("-is_active", "display_name", "pk")


@transaction.atomic
def totp_begin(*, user: User) -> TotpDevice:
    """A fresh secret to be confirmed by a code; one that was never confirmed is dropped. Not yet a factor: no event."""
    if not totp.is_configured():
        raise WrongState(_("This installation has no key for authenticator apps. Ask whoever runs it to set one."))
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    present = active_totp(user)
    if present is not None and present.confirmed_at is not None:
        raise WrongState(_("You have an authenticator app already. Remove it first."))
    TotpDevice.objects.filter(user=user, removed_at__isnull=True).update(removed_at=Now())
    _secret, stored = totp.secret_new()
    return TotpDevice.objects.create(user=user, secret=stored)


def totp_enrolling(user: User) -> TotpDevice | None:
    """The app whose secret may still be shown to its person."""
    fresh = timezone.now() - ENROLMENT
    return TotpDevice.objects.filter(
        user=user, removed_at__isnull=True, confirmed_at__isnull=True, created_at__gt=fresh
    ).first()


@transaction.atomic
def totp_confirm(*, user: User, code: str) -> list[str]:
    """Take the first code of the app, which makes it a factor; returns the recovery codes, shown this once."""
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    device = totp_enrolling(user)
    if device is None:
        raise WrongState(_("This enrolment has ended. Begin again."))
    step = totp.step_of(device, code, timezone.now())
    if step is None:
        raise InvalidInput(
            _("This is not the code the app shows now. Check the time of your phone and try the next one.")
        )
    TotpDevice.objects.filter(pk=device.pk).update(confirmed_at=Now(), last_step=step)
    audit_record(ADDED, actor=user, subject=user, data={"factor": "totp"})
    notify([user], "factor.changed", url="/security/", what=_("an authenticator app was added"))
    return _recovery_codes_make(user)


@transaction.atomic
def totp_remove(*, user: User) -> None:
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    if not TotpDevice.objects.filter(user=user, removed_at__isnull=True).update(removed_at=Now()):
        raise WrongState(_("You have no authenticator app."))
    audit_record(REMOVED, actor=user, subject=user, data={"factor": "totp"})
    notify([user], "factor.changed", url="/security/", what=_("the authenticator app was removed"))
    _recovery_codes_drop_if_useless(user)


@transaction.atomic
def recovery_codes_renew(*, user: User) -> list[str]:
    """Ten new codes, shown this once; the old ones open nothing any more."""
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    if not has_second_factor(user):
        raise WrongState(_("Recovery codes stand in for a second factor. Add one first."))
    audit_record("recovery_codes.renewed", actor=user, subject=user)
    notify([user], "factor.changed", url="/security/", what=_("new recovery codes were made"))
    return _recovery_codes_make(user)


def _recovery_codes_make(user: User) -> list[str]:
    RecoveryCode.objects.filter(user=user, used_at__isnull=True, replaced_at__isnull=True).update(replaced_at=Now())
    # 48 bits each, in groups that can be read out.
    codes = [secrets.token_hex(7)[:12] for _each in range(RECOVERY_CODES)]
    RecoveryCode.objects.bulk_create(RecoveryCode(user=user, digest=_digest(user, code)) for code in codes)
    return [f"{code[:4]}-{code[4:8]}-{code[8:]}" for code in codes]


def _recovery_codes_drop_if_useless(user: User) -> None:
    if not has_second_factor(user):
        RecoveryCode.objects.filter(user=user, used_at__isnull=True, replaced_at__isnull=True).update(replaced_at=Now())


def _digest(user: User, code: str) -> str:
    return salted_hmac("pld_app.recovery_code", f"{user.pk}:{code}", algorithm="sha256").hexdigest()


def recovery_code_accepts(user: User, typed: str) -> bool:
    """Take a recovery code, once; must run in a transaction."""
    code = "".join(typed.lower().split()).replace("-", "")
    unused = RecoveryCode.objects.filter(user=user, used_at__isnull=True, replaced_at__isnull=True)
    return bool(unused.filter(digest=_digest(user, code)).update(used_at=Now()))


def recovery_codes_left(user: User) -> int:
    return RecoveryCode.objects.filter(user=user, used_at__isnull=True, replaced_at__isnull=True).count()


@transaction.atomic
def passkey_add(
    *, user: User, site: passkeys.Site, answer: str, challenge: bytes, name: str
) -> tuple[Passkey, list[str]]:
    """Keep the credential a browser made; with it recovery codes if the person has none (else an empty list)."""
    User.objects.select_for_update(no_key=True).get(pk=user.pk)
    if len(active_passkeys(user)) >= PASSKEYS_ALLOWED:
        raise WrongState(_("Ten passkeys are enough. Remove one you no longer use."))
    try:
        passkey = passkeys.registration_verify(site=site, answer=answer, challenge=challenge)
    except passkeys.PasskeyRefused as error:
        raise InvalidInput(
            _("The browser's answer did not fit. Start again, on the device that holds the passkey.")
        ) from error
    passkey.user, passkey.name = user, name.strip()[:60] or _("Passkey")
    try:
        with transaction.atomic():
            passkey.save()
    except IntegrityError as error:
        raise WrongState(_("This passkey is enrolled already, here or on another account.")) from error
    audit_record(ADDED, actor=user, subject=user, data={"factor": "passkey", "name": passkey.name, "id": passkey.pk})
    what = _("the passkey %(name)s was added") % {"name": passkey.name}
    notify([user], "factor.changed", url="/security/", what=what)
    return passkey, [] if recovery_codes_left(user) else _recovery_codes_make(user)


def _own_passkey(user: User, passkey_id: int) -> Passkey:
    passkey = Passkey.objects.select_for_update().filter(user=user, pk=passkey_id, removed_at__isnull=True).first()
    if passkey is None:
        raise InvalidInput(_("You have no such passkey. Reload the page to see yours."))
    return passkey


@transaction.atomic
def passkey_rename(*, user: User, passkey_id: int, name: str) -> Passkey:
    passkey = _own_passkey(user, passkey_id)
    before, passkey.name = passkey.name, name.strip()[:60]
    if not passkey.name:
        raise InvalidInput(_("A passkey needs a name, so that you know which device it is."))
    passkey.save(update_fields=["name"])
    audit_record("factor.renamed", actor=user, subject=user, data={"before": before, "after": passkey.name})
    return passkey


@transaction.atomic
def passkey_remove(*, user: User, passkey_id: int) -> Passkey:
    passkey = _own_passkey(user, passkey_id)
    Passkey.objects.filter(pk=passkey.pk).update(removed_at=Now())
    data: dict[str, Json] = {"factor": "passkey", "name": passkey.name, "id": passkey.pk}
    audit_record(REMOVED, actor=user, subject=user, data=data)
    what = _("the passkey %(name)s was removed") % {"name": passkey.name}
    notify([user], "factor.changed", url="/security/", what=what)
    _recovery_codes_drop_if_useless(user)
    return passkey


@transaction.atomic
def factors_reset(*, user_id: int, by: User) -> User:
    """An administrator takes away another's second factors and single sign-on binding, e.g. after a lost phone.

    The person keeps the password, is told, and enrols anew; every session of theirs ends.
    """
    locked = {user.pk: user for user in User.objects.select_for_update().filter(pk__in=[user_id, by.pk]).order_by("pk")}
    if user_id not in locked:
        raise Http404
    user = locked[user_id]
    if user.pk == by.pk:
        raise InvalidInput(_("Another administrator resets your factors; you remove them on your security page."))
    require_role(locked[by.pk], Role.ADMIN)
    counts = {
        "totp": TotpDevice.objects.filter(user=user, removed_at__isnull=True).update(removed_at=Now()),
        "passkeys": Passkey.objects.filter(user=user, removed_at__isnull=True).update(removed_at=Now()),
        "sso": SsoIdentity.objects.filter(user=user, removed_at__isnull=True).update(removed_at=Now()),
    }
    if not any(counts.values()):
        raise WrongState(_("This account has no second factor and no single sign-on to reset."))
    _recovery_codes_drop_if_useless(user)
    sessions_end(user)
    audit_record(RESET, actor=by, subject=user, data=counts)
    notify([user], "factor.reset", url="/security/", by=str(by))
    return user


def sessions_end(user: User, *, but: str = "") -> int:
    """End this person's sessions at once, except one; returns how many."""
    return UserSession.objects.filter(user_id=user.pk).exclude(pk=but).delete()[0]


@transaction.atomic
def sessions_end_others(*, user: User, session_key: str) -> int:
    """A person ends their sessions in other browsers, on record."""
    ended = sessions_end(user, but=session_key)
    audit_record("account.sessions_ended", actor=user, subject=user, data={"sessions": ended})
    return ended


@transaction.atomic
def security_policy_set(*, by: User, second_factor_for_signatories: bool) -> SecurityPolicy:
    """Whether the installation asks signatories for a second factor; every change stays on record."""
    before = SecurityPolicy.objects.order_by("-pk").first()
    if before is not None and before.second_factor_for_signatories == second_factor_for_signatories:
        raise WrongState(_("It is so already."))
    event = audit_record(
        "security_policy.set",
        actor=by,
        subject=by,
        data={
            "second_factor_for_signatories": second_factor_for_signatories,
            "before": bool(before and before.second_factor_for_signatories),
        },
    )
    return SecurityPolicy.objects.create(
        second_factor_for_signatories=second_factor_for_signatories, by=by, event=event
    )


def second_factor_accepts(
    user: User, *, code: str = "", passkey: str = "", site: passkeys.Site | None = None, challenge: bytes = b""
) -> str:
    """At sign-in: the name of the factor that was proved ("totp", "passkey", "recovery"), or "" when none was.

    Must run in a transaction.
    """
    if passkey and site is not None:
        return "passkey" if passkey_accepts(user, site=site, answer=passkey, challenge=challenge) else ""
    if not code:
        return ""
    if totp_accepts(user, code, timezone.now()):
        return "totp"
    return "recovery" if recovery_code_accepts(user, code) else ""
