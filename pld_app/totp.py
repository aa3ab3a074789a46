"""Codes of an authenticator app (RFC 6238): secrets encrypted at rest, no code twice, one step of clock skew."""

import hmac
from datetime import datetime

import pyotp
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from pld_app.models import TotpDevice

STEP_S = 30
SKEW = 1


def is_configured() -> bool:
    """Whether the installation has a key to encrypt secrets with; without one nobody can enrol an app."""
    return bool(settings.FACTOR_KEYS)


def _fernet() -> MultiFernet:
    """Encrypts with the first key, decrypts with any of them."""
    if not settings.FACTOR_KEYS:
        raise ImproperlyConfigured("Set PLD_FACTOR_KEYS: authenticator apps need a key to encrypt their secrets with.")
    return MultiFernet([Fernet(key) for key in settings.FACTOR_KEYS])


def secret_new() -> tuple[str, bytes]:
    """A fresh secret in base32, and as it is stored."""
    secret = pyotp.random_base32()
    return secret, _fernet().encrypt(secret.encode())


def secret_of(device: TotpDevice) -> str:
    """The secret in base32; raises ImproperlyConfigured when no key of the environment opens it."""
    try:
        return _fernet().decrypt(bytes(device.secret)).decode()
    except InvalidToken as error:
        raise ImproperlyConfigured("No key in PLD_FACTOR_KEYS opens this authenticator secret.") from error


def secret_rekey(device: TotpDevice) -> bytes:
    """The same secret encrypted with the first key."""
    return _fernet().rotate(bytes(device.secret))


def provisioning_uri(secret: str, account: str) -> str:
    """What an authenticator app reads from the QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=settings.SITE_NAME)


def step_of(device: TotpDevice, code: str, now: datetime) -> int | None:
    """The step whose code this is, one before and after `now` included; None if it is none or was used before."""
    typed = "".join(code.split())
    # Other digits (isdigit knows many) would make the comparison of bytes raise.
    if not (typed.isascii() and typed.isdigit()):
        return None
    totp = pyotp.TOTP(secret_of(device))
    present = int(now.timestamp()) // STEP_S
    found = None
    for step in range(present - SKEW, present + SKEW + 1):
        if hmac.compare_digest(totp.at(step * STEP_S), typed) and step > device.last_step:
            found = step
    return found
