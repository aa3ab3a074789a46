"""Canonical bytes and their hashes: what is signed must be the same bytes for the same content, on every machine."""

import hashlib
import json
from typing import Any

_LARGEST_EXACT = 2**53 - 1


def canonical_json(value: Any) -> bytes:  # JSON values have no closed type worth spelling here
    """UTF-8 bytes with sorted keys and no spaces: RFC 8785 for values without floats, which are refused.

    Raises ValueError for floats, for integers beyond 2^53 - 1 (RFC 8785 would round them), for keys that are not text
    and for text that is not valid Unicode; TypeError for what JSON does not know.
    """
    text = json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def _ordered(value: Any) -> Any:
    """The value with each object's keys in the order of their UTF-16 code units, as RFC 8785 has it."""
    if isinstance(value, float):
        raise ValueError("canonical JSON holds no floats")
    if isinstance(value, int) and abs(value) > _LARGEST_EXACT:
        raise ValueError("canonical JSON holds no integer beyond 2^53 - 1")
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("canonical JSON has text keys only")
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be"))}
    if isinstance(value, list | tuple):
        return [_ordered(inner) for inner in value]
    return value


def sha256_hex(data: bytes | str) -> str:
    """SHA-256 in lower-case hexadecimal; text is hashed as UTF-8."""
    return hashlib.sha256(data.encode("utf-8") if isinstance(data, str) else data).hexdigest()
