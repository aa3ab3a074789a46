"""What `verify_audit` and `verify_export` share: how they read what a person kept outside, and how they end."""

import sys
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.core.management.base import BaseCommand

from pld_app.transparency.note import NoteError, ParsedCheckpoint, Verifier, checkpoint_parse

_USAGE = 64
KEY_HELP = "the log's public key you kept: PEM, or the line audit_key printed"


class VerifyingCommand(BaseCommand):
    """A command whose exit code is its verdict: 0 intact, 1 altered, 2 incomplete, 3 key refused, 64 usage."""

    def key_read(self, path: Path) -> bytes:
        """The 32 bytes of an Ed25519 public key."""
        try:
            raw = path.read_bytes()
            if not raw.startswith(b"-----"):
                return Verifier.from_vkey(raw.decode().split()[0]).public_key
            key = serialization.load_pem_public_key(raw)
        except (OSError, ValueError, IndexError) as error:
            self.usage(f"{path} is no readable public key: {error}")
        if not isinstance(key, Ed25519PublicKey):
            self.usage(f"{path} holds no Ed25519 key")
        return key.public_bytes_raw()

    def checkpoint_read(self, path: Path | None) -> ParsedCheckpoint | None:
        """The checkpoint in a file; None without one."""
        if path is None:
            return None
        try:
            return checkpoint_parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeError, NoteError) as error:
            self.usage(f"{path} is no readable checkpoint: {error}")

    def usage(self, why: str) -> NoReturn:
        self.stderr.write(why)
        sys.exit(_USAGE)
