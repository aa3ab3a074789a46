"""Checkpoints as C2SP signed notes (c2sp.org/signed-note, c2sp.org/tlog-checkpoint) with Ed25519.

Plain Python, no Django. A note is the checkpoint's text, an empty line, and a line per signature:

    origin\\n size\\n base64(root)\\n \\n — name base64(key id || signature)\\n
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"
_DASH = "\u2014 "
MAX_BYTES = 64 * 1024


class NoteError(ValueError):
    """This is no well-formed note or checkpoint; the message says why."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key under its name. `vkey` is the one line that others keep of it."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> str:
        """Eight hexadecimal digits: SHA-256(name || newline || 0x01 || key), its first four bytes."""
        return key_id(self.name, self.public_key)

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_id}+{base64.b64encode(_ED25519 + self.public_key).decode()}"

    @classmethod
    def from_vkey(cls, text: str) -> "Verifier":
        name, _plus, rest = text.strip().partition("+")
        said, _plus, key = rest.partition("+")
        raw = _decoded(key)
        if len(raw) != 33 or raw[:1] != _ED25519:
            raise NoteError("this is no Ed25519 key of a signed note")
        verifier = cls(name, raw[1:])
        if verifier.key_id != said:
            raise NoteError("the key does not have the id it names")
        return verifier

    def accepts(self, signature: bytes, signed: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, signed)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signed:
    """One signature line: whose it says it is, and the 64 bytes."""

    name: str
    key_id: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class ParsedCheckpoint:
    """A checkpoint's claim and its signatures, nothing of it verified yet."""

    origin: str
    size: int
    root: bytes
    text: str
    signatures: tuple[Signed, ...]

    def signed_by(self, verifier: Verifier) -> bool:
        """Whether this key signed it. A line under the key's own name and id that does not verify spoils the note."""
        of_key = [one for one in self.signatures if (one.name, one.key_id) == (verifier.name, verifier.key_id)]
        return bool(of_key) and all(verifier.accepts(one.signature, self.text.encode()) for one in of_key)


def key_id(name: str, public_key: bytes) -> str:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4].hex()


def check_name(name: str) -> str:
    """The name again; raises NoteError unless it can stand in a note (no space, no plus sign, not empty)."""
    if not name or "+" in name or any(one.isspace() or not one.isprintable() for one in name):
        raise NoteError("the name of a log has no spaces and no plus sign, for example review.example.org/audit")
    return name


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    return f"{check_name(origin)}\n{size}\n{base64.b64encode(root).decode()}\n"


def note_sign(text: str, name: str, private_key: Ed25519PrivateKey) -> str:
    """The text with one signature line. Raises NoteError for text that does not end in a line break."""
    if not text.endswith("\n") or "\n\n" in text:
        raise NoteError("the text of a note ends in one line break and has no empty line")
    public_key = private_key.public_key().public_bytes_raw()
    line = bytes.fromhex(key_id(check_name(name), public_key)) + private_key.sign(text.encode())
    return f"{text}\n{_DASH}{name} {base64.b64encode(line).decode()}\n"


def note_parse(note: str) -> tuple[str, tuple[Signed, ...]]:
    """The signed text and the signature lines. Raises NoteError for whatever the format does not allow."""
    if len(note.encode(errors="replace")) > MAX_BYTES or any(one < " " and one != "\n" for one in note):
        raise NoteError("a note is short text without control characters")
    text, gap, lines = note.rpartition("\n\n")
    if not gap or not lines.endswith("\n"):
        raise NoteError("a note ends in signature lines after an empty line")
    return text + "\n", tuple(_signature(line) for line in lines[:-1].split("\n"))


def checkpoint_parse(note: str) -> ParsedCheckpoint:
    """Read a checkpoint strictly: one that is written in another way than ours would be is refused."""
    text, signatures = note_parse(note)
    lines = text.split("\n")
    if len(lines) < 4:
        raise NoteError("a checkpoint has origin, size and root")
    origin, size, root = lines[0], lines[1], _decoded(lines[2])
    if not (size.isascii() and size.isdigit()) or len(size) > 18 or str(int(size)) != size or len(root) != 32:
        raise NoteError("a checkpoint has a plain size and a root of 32 bytes")
    return ParsedCheckpoint(check_name(origin), int(size), root, text, signatures)


def signer_of(checkpoint: ParsedCheckpoint, verifiers: Sequence[Verifier]) -> Verifier | None:
    """The first of these keys that signed it."""
    return next((one for one in verifiers if checkpoint.signed_by(one)), None)


def _signature(line: str) -> Signed:
    name, space, coded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space:
        raise NoteError("a signature line begins with a dash and a name")
    raw = _decoded(coded)
    if len(raw) < 5:
        raise NoteError("a signature line holds a key id and a signature")
    return Signed(check_name(name), raw[:4].hex(), raw[4:])


def _decoded(coded: str) -> bytes:
    try:
        raw = base64.b64decode(coded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError("this is no base64") from error
    if base64.b64encode(raw).decode() != coded:
        raise NoteError("this base64 is not written in its one canonical way")
    return raw
