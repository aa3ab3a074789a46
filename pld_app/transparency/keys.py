"""The log's signing key: a file that only the sealer's account reads, and its public history in the database."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import transaction
from django.utils import timezone

from pld_app.audit import audit_record
from pld_app.models import AuditKey, AuditKeyRevocation
from pld_app.transparency.key_file import KeyFault, folder_fsync, key_path, key_read, key_write
from pld_app.transparency.keyring import KeyRecord, Keyring, Revocation, introduction, revocation_statement
from pld_app.transparency.locks import sealer_lock
from pld_app.transparency.note import Verifier, check_name
from pld_app.transparency.tree import sealed_count


@dataclass(frozen=True)
class Signer:
    """The private key with its row; lives in the sealer's process alone."""

    private_key: Ed25519PrivateKey
    row: AuditKey

    def __repr__(self) -> str:
        return f"Signer({self.row})"


def signer_load() -> Signer:
    """The key in the file, if it is the one that speaks for the log now. Raises KeyFault else."""
    path = key_path()
    _finish_rotation(path)
    private_key = key_read(path)
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

    A key that lies in the file already and is unknown to the log is taken (a first start that was killed leaves one).
    Raises KeyFault while another key is in use, or when the file holds a known one.
    """
    path, name = key_path(), check_name(origin)
    with sealer_lock():
        if AuditKey.objects.filter(revocation__isnull=True).exists():
            raise KeyFault("The log has a key. Use manage.py audit_key rotate to replace it.")
        if path.exists():
            private_key = key_read(path)
            if AuditKey.objects.filter(public_key=_public(private_key)).exists():
                raise KeyFault(f"{path} holds a key that was revoked: move it away first.")
        else:
            private_key = Ed25519PrivateKey.generate()
            key_write(path, private_key)
        row = _row(private_key, name=name, previous=None, signed_by=private_key)
        with transaction.atomic():
            row.save()
            audit_record("audit_key.created", actor=None, subject=row, data={"key": verifier_of(row).vkey})
    return row


def key_ensure(origin: str) -> None:
    """Make the first key of a log that never had one."""
    if not AuditKey.objects.exists():
        key_create(origin=origin)


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
        key_write(_next_path(path), private_key)
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
    if waiting.exists() and AuditKey.objects.filter(public_key=_public(key_read(waiting))).exists():
        waiting.replace(path)
        folder_fsync(path.parent)
