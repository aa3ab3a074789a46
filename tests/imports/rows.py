"""Trace rows and files with few words."""

import gzip
import io
import json
from collections.abc import Iterable
from typing import Any

from rules.trace_files import Accepted, Outcome, Rejected, read_trace_file

LABELS = ("Compliant", "Breach", "Unclear")
FIELDS = ("clause", "question")
CSV_HEADER = "id,clause,question,label,rationale,instruction\n"


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A valid row; a change to None takes the key out."""
    values: dict[str, Any] = {
        "id": f"r-{number}",
        "input": {"clause": f"Clause {number}.", "question": "May copies be kept?"},
        "label": "Compliant",
        "rationale": f"Clause {number} allows it.",
        "instruction": f"If clause {number} allows copies, then label Compliant.",
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def json_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in rows)


def many(count: int, start: int = 1) -> bytes:
    return json_lines(row(number) for number in range(start, start + count))


def read(data: bytes, *, max_bytes: int = 50 * 1024 * 1024) -> list[Outcome]:
    return list(read_trace_file(io.BytesIO(data), labels=LABELS, input_fields=FIELDS, max_bytes=max_bytes))


def accepted(data: bytes) -> list[Accepted]:
    """What is taken, where every row must be."""
    outcomes = read(data)
    assert [one for one in outcomes if isinstance(one, Rejected)] == []
    return [one for one in outcomes if isinstance(one, Accepted)]


def only_reject(data: bytes) -> Rejected:
    """The one rejected row of a file."""
    (rejected,) = (one for one in read(data) if isinstance(one, Rejected))
    return rejected


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)
