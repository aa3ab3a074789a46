"""JSON is refused where the standard library is lenient, quickly and without taking the process down."""

import time

import pytest

from pld_app.model_edge import StrictJsonError, loads_strict


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "same key twice"),
        ('{"x": [{"a": 1, "a": 2}]}', "same key twice"),
        ("NaN", "not JSON"),
        ('{"a": -Infinity}', "not JSON"),
        ("1e999", "too large"),
        ("1" * 5000, "not JSON"),
        ("[" * 21 + "]" * 21, "nested more than 20"),
        ("[" * 200_000, "nested more than 20"),
        ('{"a":' * 200_000 + "1" + "}" * 200_000, "nested more than 20"),
        ('{"a": 1} trailing', "not JSON"),
        ("", "not JSON"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(StrictJsonError, match=reason):
        loads_strict(text)
    assert time.monotonic() - started < 1


def test_accepted() -> None:
    assert loads_strict('{"a": [1, 2.5, null, true, "é"]}') == {"a": [1, 2.5, None, True, "é"]}
    assert loads_strict("[" * 20 + "]" * 20) is not None
