"""Canonical bytes and their hashes: what is signed must be the same bytes for the same content, on every machine."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:  # JSON values have no closed type worth spelling here
    """UTF-8 bytes with sorted keys and no spaces (RFC 8785 for values without floats, which are refused).

    Raises ValueError for floats and for text that is not valid Unicode.
    """
    _refuse_floats(value)
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError("canonical JSON holds no floats")
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError("canonical JSON has text keys only")
            _refuse_floats(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_floats(inner)


def sha256_hex(data: bytes | str) -> str:
    """SHA-256 in lower-case hexadecimal; text is hashed as UTF-8."""
    return hashlib.sha256(data.encode("utf-8") if isinstance(data, str) else data).hexdigest()
