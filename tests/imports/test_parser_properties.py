"""Reading any bytes at all: outcomes or `UnreadableFile`, never anything else; and what is valid comes back exact."""

import csv
import io
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rules.trace_files import Accepted, Outcome, Rejected, UnreadableFile, read_trace_file
from tests.imports.rows import CSV_HEADER, FIELDS, LABELS, accepted, json_lines, row, zipped

PIECES = [
    CSV_HEADER.encode(),
    json.dumps(row(1)).encode(),
    json.dumps(row(2)).encode(),
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\r\n",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"{",
    b"}",
    b"[" * 2000,
    b"9" * 5000,
    b"NaN",
    b"id",
    b"label",
    b"clause",
    b"question",
    b"input",
    b"metadata.",
    b"a,c,q,Breach,,",
    b"x" * 5000,
    b" ",
]
pieces = st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=30).map(b"".join)
headed = pieces.map(lambda data: CSV_HEADER.encode() + data)


def outcomes_of(data: bytes) -> list[Outcome]:
    """What was read, to the end or to the refusal."""
    outcomes: list[Outcome] = []
    stream = read_trace_file(io.BytesIO(data), labels=LABELS, input_fields=FIELDS, max_bytes=10**6)
    refusal = ""
    try:
        outcomes.extend(stream)
    except UnreadableFile as error:
        refusal = str(error)
    assert "\x00" not in refusal.encode("utf-8").decode()
    return outcomes


def assert_storable(outcomes: list[Outcome], data: bytes) -> None:
    lines = [one.line for one in outcomes]
    assert lines == sorted(set(lines))
    assert all(1 <= line <= 1 + data.count(b"\n") + data.count(b"\r") for line in lines)
    for one in outcomes:
        shown = [one.reason, one.message, one.excerpt] if isinstance(one, Rejected) else [one.row.model_dump_json()]
        for text in shown:
            text.encode("utf-8")
            assert "\x00" not in text


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300) | pieces | headed)
@example(b"id,label,clause,question,caf\xe9\n")
@example(b'"id"x')
def test_any_bytes_give_outcomes_or_a_refusal(data: bytes) -> None:
    assert_storable(outcomes_of(data), data)


@settings(max_examples=100, deadline=None)
@given(pieces | headed, st.integers(min_value=0, max_value=60), st.integers(min_value=0, max_value=255))
def test_any_damage_to_gzip_gives_outcomes_or_a_refusal(data: bytes, place: int, byte: int) -> None:
    damaged = bytearray(zipped(data))
    damaged[place % len(damaged)] = byte
    outcomes_of(bytes(damaged))


# Any text a person may send: no lone surrogates, no NUL.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
filled = text.filter(lambda value: not value.isspace() and value != "")
scalar = text | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans() | st.none()


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    instruction = draw(text)
    return {
        "id": draw(filled),
        "input": {"clause": draw(filled), "question": draw(filled)},
        "label": draw(st.sampled_from(LABELS)),
        "rationale": draw(text),
        "instruction": "" if not instruction.strip() else instruction,
        "teacher": draw(text),
        "split": draw(st.sampled_from(["train", "validation", "test"])),
        "metadata": draw(st.dictionaries(text, scalar, max_size=3)),
    }


many_rows = st.lists(rows(), min_size=1, max_size=5, unique_by=lambda one: one["id"])


@settings(max_examples=200, deadline=None)
@given(many_rows, st.booleans())
def test_valid_json_rows_come_back_exact(sent: list[dict[str, Any]], escaped: bool) -> None:
    data = b"".join(json.dumps(one, ensure_ascii=escaped).encode() + b"\n" for one in sent)
    assert [one.row.model_dump() for one in accepted(data)] == sent
    assert [one.line for one in accepted(data)] == list(range(1, len(sent) + 1))


@settings(max_examples=200, deadline=None)
@given(many_rows)
def test_valid_csv_rows_come_back_exact(sent: list[dict[str, Any]]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    plain = ["id", "label", "rationale", "instruction", "teacher", "split"]
    writer.writerow([*plain, "clause", "input.question", "metadata.note"])
    for one in sent:
        writer.writerow([*(one[name] for name in plain), one["input"]["clause"], one["input"]["question"], "x"])
    read_back = [one.row.model_dump() for one in accepted(file.getvalue().encode())]
    assert read_back == [one | {"metadata": {"note": "x"}} for one in sent]


def test_json_and_gzip_agree() -> None:
    data = json_lines([row(1), row(2)])
    assert [one for one in outcomes_of(data) if isinstance(one, Accepted)] == outcomes_of(zipped(data))
