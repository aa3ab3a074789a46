"""The file of the log's private key: read by the sealer's account alone."""

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


class KeyFault(Exception):
    """The key cannot be used or made; the message says why and what to do."""


def key_path() -> Path:
    if not settings.AUDIT_KEY_FILE:
        raise KeyFault("Set PLD_AUDIT_KEY_FILE to the file that holds, or shall hold, the private key.")
    return Path(settings.AUDIT_KEY_FILE)


def refuse_private_key() -> None:
    """Stop a web server or worker that could sign the log itself. Called where those processes start."""
    if settings.AUDIT_KEY_FILE and os.access(settings.AUDIT_KEY_FILE, os.R_OK):
        raise ImproperlyConfigured(
            "This process can read PLD_AUDIT_KEY_FILE. Only the sealer may: give the file to an account of its own "
            "(mode 0600) and leave the variable out of the environment of web server and worker."
        )


def key_read(path: Path) -> Ed25519PrivateKey:
    """The key in a file that nobody else can read. Raises KeyFault."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyFault(f"{path} can be read by other accounts: chmod 600 it.")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise KeyFault(f"There is no key in {path}: run manage.py audit_key create.") from error
    except (ValueError, OSError) as error:
        raise KeyFault(f"{path} holds no readable key.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFault(f"{path} holds no Ed25519 key.")
    return key


def key_write(path: Path, private_key: Ed25519PrivateKey) -> None:
    """Write a new file that only this account reads, and see it on disk; an existing file is never overwritten."""
    form = serialization.PrivateFormat.PKCS8
    pem = private_key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise KeyFault(f"{path} exists already: move it away first.") from error
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(pem)
        handle.flush()
        os.fsync(handle.fileno())
    folder_fsync(path.parent)


def folder_fsync(path: Path) -> None:
    """See a new or renamed file's entry on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
