"""Reading trace files: whatever stands in one row, the rows around it come through unharmed."""

import io
import json
import random
import time
import tracemalloc

import pytest

from rules.limits import MAX_FIELD_CHARS, MAX_LINE_BYTES
from rules.trace_files import Accepted, Rejected, UnreadableFile, read_trace_file
from tests.imports.rows import (
    CSV_HEADER,
    FIELDS,
    LABELS,
    accepted,
    json_lines,
    many,
    only_reject,
    read,
    row,
    zipped,
)

GOOD = json.dumps(row(1)).encode()
LAST = json.dumps(row(99)).encode()
BAD_BYTE = f"Byte {GOOD.index(b'Clause') + 3} of the row"


def between(bad: bytes) -> bytes:
    """A file whose second line is bad and whose others are good."""
    return b"\n".join([GOOD, bad, LAST]) + b"\n"


def test_rows_keep_their_physical_lines_across_blank_ones() -> None:
    data = b"\n\r\n" + GOOD + b"\n\n   \n" + LAST
    assert [(one.line, one.row.id) for one in accepted(data)] == [(3, "r-1"), (6, "r-99")]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark_do_not_matter(newline: bytes, bom: bytes) -> None:
    data = bom + GOOD + newline + LAST + newline
    assert [one.row.model_dump(exclude_defaults=True) for one in accepted(data)] == [row(1), row(99)]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_csv_line_ends_and_byte_order_mark_do_not_matter(bom: bytes) -> None:
    data = bom + (CSV_HEADER + "a,c,q,Breach,,\r\n\r\nb,c,q,Breach,,").replace("\n", "\r\n").encode()
    assert [one.row.id for one in accepted(data)] == ["a", "b"]


def big_row(number: int) -> bytes:
    return json.dumps(row(number, rationale="x" * 60_000)).encode()


@pytest.mark.parametrize(
    ("bad", "reason", "message"),
    [
        pytest.param(b'{"id": "x"', "not JSON", "not a JSON object", id="cut"),
        pytest.param(b"[1, 2]", "not JSON", "not a JSON object", id="list"),
        pytest.param(b'"text"', "not JSON", "not a JSON object", id="text"),
        pytest.param(GOOD + GOOD, "not JSON", "Extra data", id="two on a line"),
        pytest.param(
            GOOD.replace(b"Clause", b"Cl\xffuse"),
            "bad UTF-8",
            f"Byte {GOOD.index(b'Clause') + 3} of the row",
            id="bad UTF-8",
        ),
        pytest.param(b'{"id": NaN}', "not JSON", "NaN is not allowed", id="NaN"),
        pytest.param(b'{"id": -Infinity}', "not JSON", "-Infinity is not allowed", id="infinity"),
        pytest.param(b'{"id": "a", "id": "b"}', "not JSON", "a key stands twice", id="duplicate key"),
        pytest.param(b'{"m": {"a": 1, "a": 2}}', "not JSON", "a key stands twice", id="duplicate inner key"),
        pytest.param(b'{"a":' * 200_000, "too deep", "more than 20 deep", id="depth 200,000"),
        pytest.param(b"[" * 200_000 + b"]" * 200_000, "too deep", "more than 20 deep", id="closed depth"),
        pytest.param(b'{"a":' * 30 + b"1" + b"}" * 30, "too deep", "more than 20 deep", id="depth 30"),
        pytest.param(b'{"id": ' + b"9" * 5000 + b"}", "not JSON", "too many digits", id="5,000 digits"),
        pytest.param(GOOD.replace(b"Clause", b"\\u0000"), "NUL character", "NUL", id="NUL escape"),
        pytest.param(GOOD.replace(b"Clause", b"\\ud800"), "bad UTF-8", "not valid Unicode", id="lone surrogate"),
        pytest.param(GOOD.replace(b'"clause"', b'"\\udfff"'), "bad UTF-8", "not valid Unicode", id="surrogate key"),
        pytest.param(json.dumps(row(2, label="Fine")).encode(), "unknown label", "'Fine' is not one of", id="label"),
        pytest.param(json.dumps(row(2, label=None)).encode(), "invalid field", "label: missing.", id="no label"),
        pytest.param(json.dumps(row(2, id="")).encode(), "invalid field", "id: ", id="empty id"),
        pytest.param(json.dumps(row(2, id=" \t")).encode(), "invalid field", "id: ", id="blank id"),
        pytest.param(json.dumps(row(2, id="i" * 201)).encode(), "invalid field", "id: longer than 200", id="long id"),
        pytest.param(json.dumps(row(2, id=7)).encode(), "invalid field", "id: must be text.", id="number as id"),
        pytest.param(json.dumps(row(2, note="x")).encode(), "invalid field", "note: not a field", id="extra key"),
        pytest.param(json.dumps(row(2, split="dev")).encode(), "invalid field", "split: must be train", id="split"),
        pytest.param(json.dumps(row(2, split="train\n")).encode(), "invalid field", "split: ", id="split and newline"),
        pytest.param(json.dumps(row(2, input={"clause": "c"})).encode(), "input fields", "exactly", id="field missing"),
        pytest.param(
            json.dumps(row(2, input={"clause": "c", "question": "q", "x": "y"})).encode(),
            "input fields",
            "exactly the fields clause, question",
            id="field too many",
        ),
        pytest.param(
            json.dumps(row(2, input={"clause": " ", "question": "q"})).encode(),
            "invalid field",
            "input.clause: ",
            id="blank field",
        ),
        pytest.param(
            json.dumps(row(2, input={"clause": "c" * (MAX_FIELD_CHARS + 1), "question": "q"})).encode(),
            "invalid field",
            "input.clause: ",
            id="oversized field",
        ),
        pytest.param(json.dumps(row(2, metadata={"p": 0.5})).encode(), "invalid field", "metadata.p", id="float"),
        pytest.param(json.dumps(row(2, metadata={"p": 2**53})).encode(), "invalid field", "metadata.p", id="big int"),
        pytest.param(b'{"id": "' + b"x" * MAX_LINE_BYTES + b'"}', "too long", "longer than 1024 KiB", id="line"),
        pytest.param(GOOD, "duplicate id", "'r-1' stands already on line 1", id="duplicate id"),
    ],
)
def test_a_bad_row_is_rejected_and_its_neighbours_are_taken(bad: bytes, reason: str, message: str) -> None:
    outcomes = read(between(bad))
    assert [type(one) for one in outcomes] == [Accepted, Rejected, Accepted]
    rejected = outcomes[1]
    assert isinstance(rejected, Rejected)
    assert (rejected.line, rejected.reason) == (2, reason)
    assert message in rejected.message
    assert len(rejected.message) <= 300
    assert len(rejected.excerpt) <= 200


def test_a_rejected_row_does_not_take_its_id() -> None:
    data = json_lines([row(1, label="Fine"), row(1)])
    assert [type(one) for one in read(data)] == [Rejected, Accepted]


def test_a_line_of_just_the_limit_is_taken() -> None:
    text = json.dumps(row(1)).encode()
    assert accepted(text + b" " * (MAX_LINE_BYTES - len(text)) + b"\n" + LAST)[0].row.id == "r-1"


def test_untrusted_text_comes_through_as_it_is() -> None:
    texts = {
        "clause": '<script>alert(1)</script>\r\n\t"><img src=x onerror=alert(1)> {{7*7}}',
        "question": '=HYPERLINK("http://evil.example","x")\u202e\u200b e\u0301 \U000e0041',
    }
    for data in (json_lines([row(1, input=texts)]), json.dumps(row(1, input=texts)).encode()):
        assert accepted(data)[0].row.input == texts


def test_an_instruction_of_spaces_is_none() -> None:
    assert accepted(json_lines([row(1, instruction=" \n\t")]))[0].row.instruction == ""
    assert accepted(json_lines([row(1, instruction=" If so. \n")]))[0].row.instruction == " If so. \n"


# Whole files that nothing can be read from.


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "The file is empty", id="empty"),
        pytest.param(b" \r\n" * 5000, "The file is empty", id="blank"),
        pytest.param(zipped(b""), "The file is empty", id="empty gzip"),
        pytest.param(GOOD.decode().encode("utf-16"), "UTF-16", id="UTF-16"),
        pytest.param(GOOD.decode().encode("utf-16-be"), "binary", id="UTF-16 without mark"),
        pytest.param(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + b"\x00" * 100, "binary", id="PNG"),
        pytest.param(random.Random(1).randbytes(10_000), "binary", id="noise"),
        pytest.param(b"PK\x03\x04\x14\x00", "binary", id="zip"),
        pytest.param(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "lacks id, label, clause, question", id="PDF"),
        pytest.param(b"hello\n", "lacks id, label, clause, question", id="prose"),
        pytest.param(b"id,label,clause\n1,Breach,c\n", "lacks question", id="column missing"),
        pytest.param(b"id,label,clause,question,colour\n", "Unknown column 'colour'", id="column unknown"),
        pytest.param(b"id,label,clause,question,caf\xe9\n1,Breach,c,q,x\n", "not UTF-8", id="header not UTF-8"),
        pytest.param(b"id,id,label,clause,question\n1,2,Breach,c,q\n", "column id stands twice", id="column twice"),
        pytest.param(b"id,label,clause,input.clause,question\n", "clause stands twice", id="field twice"),
        pytest.param(b"id,label,input,clause,question\n", "clause stands twice", id="field and input"),
        pytest.param(b'"id"x,label\n', "first line is not well-formed CSV", id="header not CSV"),
        pytest.param(b"id," + b"x" * (MAX_LINE_BYTES + 1), "first line is not well-formed CSV", id="header too long"),
        pytest.param(CSV_HEADER.encode(), "no rows", id="header alone"),
        pytest.param(b"\x1f\x8b", "damaged or cut off", id="two bytes of gzip"),
        pytest.param(b"\x1f\x8bnot gzip at all", "damaged or cut off", id="not gzip"),
    ],
)
def test_an_unreadable_file_says_why(data: bytes, message: str) -> None:
    with pytest.raises(UnreadableFile, match=message) as raised:
        read(data)
    str(raised.value).encode("utf-8")  # it is stored and shown


def test_blank_lines_before_a_late_first_row_are_skipped() -> None:
    assert accepted(b"\n" * 5000 + GOOD)[0].line == 5001
    assert accepted(b"\n\r\n" + CSV_HEADER.encode() + b"a,c,q,Breach,,\n")[0].line == 4


# Gzip.


def test_gzip_is_read_like_the_plain_file() -> None:
    data = many(700)
    assert read(zipped(data)) == read(data)


def test_two_gzip_members_are_one_file() -> None:
    assert [one.row.id for one in accepted(zipped(GOOD + b"\n") + zipped(LAST))] == ["r-1", "r-99"]


@pytest.mark.parametrize("cut", [20, -1, -8, -200])
def test_a_cut_gzip_file_is_refused_after_its_good_rows(cut: int) -> None:
    rows = b"\n".join(big_row(number) for number in range(20))
    with pytest.raises(UnreadableFile, match="damaged or cut off"):
        read(zipped(rows)[:cut])


def test_a_damaged_gzip_file_is_refused() -> None:
    noise = random.Random(2)
    data = bytearray(zipped(json_lines(row(n, rationale=noise.randbytes(500).hex()) for n in range(500))))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(UnreadableFile, match="damaged or cut off"):
        read(bytes(data))


def test_garbage_after_gzip_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="damaged or cut off"):
        read(zipped(GOOD) + b"more")


def _read_through(data: bytes, max_bytes: int) -> tuple[float, str]:
    """Peak memory in MiB beside the file itself, and how the reading ended."""
    stream, ended = io.BytesIO(data), ""
    tracemalloc.start()
    try:
        for _outcome in read_trace_file(stream, labels=LABELS, input_fields=FIELDS, max_bytes=max_bytes):
            pass
    except UnreadableFile as error:
        ended = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1024 / 1024, ended


@pytest.mark.parametrize("head", [b"", GOOD + b"\n", CSV_HEADER.encode(), CSV_HEADER.encode() + b'a,"'])
def test_a_gzip_bomb_is_cut_off_in_bounded_memory(head: bytes) -> None:
    bomb = zipped(head + (b"x" if head else b" ") * (64 * 1024 * 1024))
    peak, ended = _read_through(bomb, max_bytes=32 * 1024 * 1024)
    assert "unpacks to more than" in ended
    assert peak < 12


@pytest.mark.parametrize("line", [b"x" * 1000 + b"\n", b"x" * 500 + b'","', b"\n"])
def test_one_csv_row_without_end_is_cut_off_in_bounded_memory_and_time(line: bytes) -> None:
    data = CSV_HEADER.encode() + b'a,"' + line * (MAX_LINE_BYTES // len(line) + 1)
    started = time.monotonic()
    (rejected,) = (one for one in read(data) if isinstance(one, Rejected) and one.line == 2)
    assert time.monotonic() - started < 20
    assert rejected.reason == "too long"
    if len(line) > 1:  # tracing a million allocations takes too long
        assert _read_through(data, max_bytes=10**9)[0] < 24


# CSV.


def test_csv_rows_have_physical_lines_across_quoted_newlines() -> None:
    data = (
        CSV_HEADER
        + 'a,"one\ntwo\r\nthree",q,Breach,,\n'
        + "\n"
        + 'b,c,"q\n\n",Breach,,\n'
        + "c,c,q,Fine,,\n"
        + "d,c,q,Breach,,\n"
    ).encode()
    outcomes = read(data)
    assert [one.line for one in outcomes] == [2, 6, 9, 10]
    first = outcomes[0]
    assert isinstance(first, Accepted)
    assert first.row.input["clause"] == "one\ntwo\r\nthree"


@pytest.mark.parametrize(
    ("bad", "reason", "message"),
    [
        pytest.param(b"b,c,q,Breach", "not CSV", "4 cells, the header has 6", id="too few cells"),
        pytest.param(b"b,c,q,Breach,,,,", "not CSV", "8 cells, the header has 6", id="too many cells"),
        pytest.param(b'b,"c"d,q,Breach,,', "not CSV", "expected after", id="quote inside"),
        pytest.param(b"b,c\xff,q,Breach,,", "bad UTF-8", "not valid Unicode", id="bad UTF-8"),
        pytest.param(b"b,c\x00,q,Breach,,", "NUL character", "NUL", id="NUL"),
        pytest.param(b"b,c,q,Fine,,", "unknown label", "Fine", id="label"),
        pytest.param(b"b,,q,Breach,,", "invalid field", "input.clause: empty.", id="empty field"),
        pytest.param(b"b," + b"c" * (MAX_LINE_BYTES + 9) + b",q,Breach,,", "too long", "longer than 1024", id="long"),
        pytest.param(b"a,c,q,Breach,,", "duplicate id", "line 2", id="duplicate id"),
    ],
)
def test_a_bad_csv_row_is_rejected_and_its_neighbours_are_taken(bad: bytes, reason: str, message: str) -> None:
    header = CSV_HEADER.encode() + b"a,c,q,Breach,,\n"
    if b"\x00" in bad:
        header += b"pad," + b"x" * 5000 + b",q,Breach,,\n"  # a NUL near the start makes the file binary
    line = header.count(b"\n") + 1
    outcomes = read(header + bad + b"\nz,c,q,Breach,,\n")
    rejected = [one for one in outcomes if isinstance(one, Rejected)]
    assert [(one.line, one.reason) for one in rejected] == [(line, reason)]
    assert message in rejected[0].message
    last = outcomes[-1]
    assert isinstance(last, Accepted)
    assert (last.line, last.row.id) == (line + 1, "z")
    assert rejected[0].excerpt.startswith(bad[:1].decode())


def test_csv_takes_input_as_json_and_metadata_columns() -> None:
    data = (
        b"id,label,input,split,metadata.domain\n"
        b'a,Breach,"{""clause"": ""c"", ""question"": ""q""}",test,legal\n'
        b'b,Breach,"{""clause"": ""c"", ""clause"": ""q""}",test,legal\n'
    )
    outcomes = read(data)
    first, second = outcomes
    assert isinstance(first, Accepted)
    assert first.row.input == {"clause": "c", "question": "q"}
    assert (first.row.split, first.row.metadata) == ("test", {"domain": "legal"})
    assert isinstance(second, Rejected)
    assert "a key stands twice" in second.message


def test_a_quote_that_never_closes_is_one_reject() -> None:
    rejected = only_reject(CSV_HEADER.encode() + b'a,"c,q,Breach,,\nb,c,q,Breach,,\n')
    assert (rejected.line, rejected.reason) == (2, "not CSV")
