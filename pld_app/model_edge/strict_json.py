"""JSON from a stranger: duplicate keys, NaN, infinities, depth and unstorable characters are refused, not repaired."""

import json
import math
from typing import NoReturn

MAX_DEPTH = 20


class StrictJsonError(ValueError):
    """Not acceptable as JSON; the message says why in words for a person."""


def _refuse_constant(name: str) -> NoReturn:
    raise StrictJsonError(f"it contains {name}, which is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise StrictJsonError("it contains a number that is too large")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise StrictJsonError("it names the same key twice")
    return result


def _check_depth(value: object) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise StrictJsonError(f"it is nested more than {MAX_DEPTH} levels deep")
        inner = [item for item in level if isinstance(item, (dict, list))]
        level = [child for item in inner for child in (item.values() if isinstance(item, dict) else item)]


def check_storable(text: str) -> None:
    """Raise StrictJsonError for a NUL or a lone surrogate, which Postgres cannot store as text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise StrictJsonError("it contains half of a character") from error
    if "\x00" in text:
        raise StrictJsonError("it contains a NUL character, which cannot be stored")


def loads_strict(text: str) -> object:
    """Parse JSON text; raises StrictJsonError for anything RFC 8259 leaves open and for nesting beyond 20 levels."""
    try:
        value: object = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
    except StrictJsonError:
        raise
    except RecursionError as error:
        raise StrictJsonError(f"it is nested more than {MAX_DEPTH} levels deep") from error
    except ValueError as error:  # JSONDecodeError, or an integer of thousands of digits
        raise StrictJsonError("it is not JSON") from error
    _check_depth(value)
    return value
