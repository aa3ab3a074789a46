"""The log's signing key: a file that only the sealer's account reads, and its public history in the database."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import timezone

from pld_app.audit import audit_record
from pld_app.models import AuditKey, AuditKeyRevocation
from pld_app.transparency.keyring import KeyRecord, Keyring, Revocation, introduction, revocation_statement
from pld_app.transparency.locks import sealer_lock
from pld_app.transparency.note import Verifier, check_name
from pld_app.transparency.tree import sealed_count


class KeyFault(Exception):
    """The key cannot be used or made; the message says why and what to do."""


@dataclass(frozen=True)
class Signer:
    """The private key with its row; lives in the sealer's process alone."""

    private_key: Ed25519PrivateKey
    row: AuditKey

    def __repr__(self) -> str:
        return f"Signer({self.row})"


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


def signer_load() -> Signer:
    """The key in the file, if it is the one that speaks for the log now. Raises KeyFault else."""
    path = key_path()
    _finish_rotation(path)
    private_key = _read(path)
    row = AuditKey.objects.filter(public_key=_public(private_key)).first()
    if row is None:
        raise KeyFault(f"The key in {path} is none of this log's: run manage.py audit_key create.")
    if AuditKeyRevocation.objects.filter(key=row).exists():
        raise KeyFault(f"Key {row.key_id} was revoked: run manage.py audit_key create.")
    if AuditKey.objects.filter(signed_by=row).exists():
        raise KeyFault(f"Key {row.key_id} was replaced: {path} holds an old key.")
    return Signer(private_key, row)


def key_create(*, origin: str) -> AuditKey:
    """Make the first key, or a new beginning after the last one was revoked; it signs itself.

    Raises KeyFault while another key is in use, or when the file exists.
    """
    path, name = key_path(), check_name(origin)
    with sealer_lock():
        if AuditKey.objects.filter(revocation__isnull=True).exists():
            raise KeyFault("The log has a key. Use manage.py audit_key rotate to replace it.")
        private_key = Ed25519PrivateKey.generate()
        row = _row(private_key, name=name, previous=None, signed_by=private_key)
        _write(path, private_key)
        try:
            with transaction.atomic():
                row.save()
                audit_record("audit_key.created", actor=None, subject=row, data={"key": verifier_of(row).vkey})
        except BaseException:
            path.unlink()
            raise
    return row


def key_rotate() -> AuditKey:
    """Replace the key in use by a new one that it signs; the old private key is then gone.

    The new file lies beside the old one until the database knows it: a process killed in between loses no key.
    """
    path = key_path()
    with sealer_lock():
        old = signer_load()
        private_key = Ed25519PrivateKey.generate()
        row = _row(private_key, name=old.row.name, previous=old.row, signed_by=old.private_key)
        _next_path(path).unlink(missing_ok=True)
        _write(_next_path(path), private_key)
        with transaction.atomic():
            row.save()
            audit_record(
                "audit_key.rotated",
                actor=None,
                subject=row,
                data={"key": verifier_of(row).vkey, "previous": old.row.key_id},
            )
        _finish_rotation(path)
    return row


def key_revoke(*, key_id: str, reason: str, size: int | None = None) -> AuditKeyRevocation:
    """Let a key count no longer, from `size` sealed leaves on (default: as many as there are now).

    Signed by the key in use, which may be the revoked one itself. Raises KeyFault for an unknown or revoked key.
    """
    if not reason.strip():
        raise KeyFault("Say why the key is revoked.")
    with sealer_lock():
        signer = signer_load()
        key = AuditKey.objects.filter(key_id=key_id).first()
        if key is None or AuditKeyRevocation.objects.filter(key=key).exists():
            raise KeyFault(f"There is no key {key_id} to revoke.")
        sealed = sealed_count()
        at_size = sealed if size is None else min(size, sealed)
        said = revocation_statement(verifier_of(key), size=at_size, reason=reason.strip()[:300], at=timezone.now())
        with transaction.atomic():
            revocation = AuditKeyRevocation.objects.create(
                key=key,
                size=at_size,
                reason=reason.strip()[:300],
                signed_by=signer.row,
                statement=said,
                signature=signer.private_key.sign(said),
            )
            audit_record(
                "audit_key.revoked", actor=None, subject=key, data={"size": at_size, "reason": reason.strip()[:300]}
            )
    return revocation


def verifier_of(row: AuditKey) -> Verifier:
    return Verifier(row.name, bytes(row.public_key))


def key_records() -> list[KeyRecord]:
    """The whole history, oldest first: what a verifier or an export needs of it, no private key in it."""
    rows = AuditKey.objects.order_by("pk").select_related("signed_by", "revocation", "revocation__signed_by")
    return [_record(row) for row in rows]


def keyring(*, pinned: bytes | None = None) -> Keyring:
    """The checked history. Raises KeyRefused when a link does not hold."""
    return Keyring(key_records(), pinned=pinned)


def _record(row: AuditKey) -> KeyRecord:
    revocation = getattr(row, "revocation", None)
    return KeyRecord(
        verifier=verifier_of(row),
        size=row.size,
        statement=bytes(row.statement),
        signature=bytes(row.signature),
        signed_by=row.signed_by.key_id if row.signed_by else None,
        revocation=revocation
        and Revocation(
            size=revocation.size,
            statement=bytes(revocation.statement),
            signature=bytes(revocation.signature),
            signed_by=revocation.signed_by.key_id,
        ),
    )


def _row(
    private_key: Ed25519PrivateKey, *, name: str, previous: AuditKey | None, signed_by: Ed25519PrivateKey
) -> AuditKey:
    verifier, size = Verifier(name, _public(private_key)), sealed_count()
    before = verifier_of(previous) if previous else None
    said = introduction(verifier, previous=before, size=size, at=timezone.now())
    return AuditKey(
        name=name,
        key_id=verifier.key_id,
        public_key=verifier.public_key,
        signed_by=previous,
        size=size,
        statement=said,
        signature=signed_by.sign(said),
    )


def _public(private_key: Ed25519PrivateKey) -> bytes:
    return private_key.public_key().public_bytes_raw()


def _next_path(path: Path) -> Path:
    return path.with_name(path.name + ".next")


def _finish_rotation(path: Path) -> None:
    """Put the new key in the old one's place once the database knows it (also after a kill in between)."""
    waiting = _next_path(path)
    if waiting.exists() and AuditKey.objects.filter(public_key=_public(_read(waiting))).exists():
        waiting.replace(path)
        _fsync_folder(path.parent)


def _read(path: Path) -> Ed25519PrivateKey:
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


def _write(path: Path, private_key: Ed25519PrivateKey) -> None:
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
    _fsync_folder(path.parent)


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
