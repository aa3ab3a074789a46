"""Reading `trace.v1` files, JSON Lines or CSV, plain or gzipped, as a stream: one outcome a row, never the whole file.

A bad row becomes a `Rejected` with its line and what to do about it; the rows around it are unharmed. What makes the
whole file useless (empty, binary, another encoding, a header without the needed columns) raises `UnreadableFile`.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, NoReturn, Self, cast

from pydantic import ValidationError

from rules.limits import MAX_JSON_DEPTH, MAX_LINE_BYTES
from rules.schemas import TraceRow

_GZIP_MAGIC = b"\x1f\x8b"
_COLUMNS = ("id", "label", "rationale", "instruction", "teacher", "split")
_PEEK = 4096
_ROW_BYTES = MAX_LINE_BYTES + len(b"\r\n")
_EXCERPT_BYTES = 400
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONGEST_INT = 20  # digits; longer ones cost quadratic time, and none fits a column


class UnreadableFile(Exception):
    """The file as a whole cannot be read; the message says why and what would help."""


@dataclass(frozen=True)
class Accepted:
    line: int
    row: TraceRow


@dataclass(frozen=True)
class Rejected:
    line: int
    reason: str
    message: str
    excerpt: str


type Outcome = Accepted | Rejected


class _BadRow(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class _Capped(io.RawIOBase):
    """A reader that refuses to give more than `limit` bytes: what a small gzip file may unpack to."""

    def __init__(self, inner: IO[bytes], limit: int) -> None:
        self.inner, self.left = inner, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # typeshed has no public name for a writable buffer here
        data = self.inner.read(len(buffer))
        self.left -= len(data)
        if self.left < 0:
            raise UnreadableFile("The file unpacks to more than the limit. Split it into smaller files.")
        buffer[: len(data)] = data
        return len(data)


type _Reader = io.BufferedReader[_Capped]


def read_trace_file(
    stream: IO[bytes], *, labels: Sequence[str], input_fields: Sequence[str], max_bytes: int
) -> Iterator[Outcome]:
    """Yield one outcome for each row, in file order, with physical line numbers from 1.

    `max_bytes` caps the unpacked size. Ids already seen in this file are rejected. Raises UnreadableFile, and what it
    yielded until then still stands.
    """
    first_line_of: dict[str, int] = {}
    check = _row_checker(labels, input_fields)
    seen = False
    try:
        start, blank_lines, reader = _open(stream, max_bytes)
        rows = _json_rows if start.lstrip().startswith(b"{") else _csv_rows
        for line, raw, make in rows(reader, input_fields):
            seen = True
            yield _outcome(blank_lines + line, raw, make, check, first_line_of)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UnreadableFile("The gzip file is damaged or cut off. Upload it again.") from error
    if not seen:
        raise UnreadableFile("The file has no rows.")


def _open(stream: IO[bytes], max_bytes: int) -> tuple[bytes, int, _Reader]:
    """The first bytes that say something, how many blank lines stood before them, and a reader that stands there."""
    head = stream.read(2)
    stream.seek(0)
    plain = cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if head == _GZIP_MAGIC else stream
    reader = io.BufferedReader(_Capped(plain, max_bytes), 256 * 1024)
    start = reader.peek(_PEEK)[:_PEEK]
    if start[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise UnreadableFile("The file is UTF-16. Save it as UTF-8.")
    if start.startswith(b"\xef\xbb\xbf"):
        reader.read(3)
    blank_lines = 0
    while (start := reader.peek(_PEEK)[:_PEEK]) and not start.strip():
        blank_lines += start.count(b"\n")
        reader.read(len(start))
    if not start:
        raise UnreadableFile("The file is empty.")
    if b"\x00" in start:
        raise UnreadableFile("This is a binary file. JSON Lines or CSV in UTF-8 is expected, plain or gzipped.")
    return start, blank_lines, reader


type _Made = dict[str, Any]  # parsed JSON: any shape until pydantic has seen it
type _Row = tuple[int, bytes, Callable[[], _Made]]


def _json_rows(reader: _Reader, _fields: Sequence[str]) -> Iterator[_Row]:
    line = 0
    while raw := reader.readline(MAX_LINE_BYTES + 1):
        line += 1
        if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
            _skip_line(reader)
            yield line, raw, _too_long
        elif raw.strip():
            yield line, raw, partial(_parse_json, raw)


def _skip_line(reader: _Reader) -> None:
    while (rest := reader.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass


def _too_long() -> NoReturn:
    raise _BadRow("too long", f"The row is longer than {MAX_LINE_BYTES // 1024} KiB.")


def _parse_json(raw: bytes) -> _Made:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _BadRow("bad UTF-8", f"Byte {error.start + 1} of the row is not UTF-8.") from error
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_int)
    except RecursionError as error:
        raise _BadRow("too deep", f"The JSON is nested more than {MAX_JSON_DEPTH} deep.") from error
    except ValueError as error:
        raise _BadRow("not JSON", f"The row is not a JSON object: {str(error)[:200]}.") from error
    if not isinstance(value, dict):
        raise _BadRow("not JSON", "The row is not a JSON object.")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> _Made:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _int(digits: str) -> int:
    if len(digits) > _LONGEST_INT:
        raise ValueError("a number has too many digits")
    return int(digits)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


class _CsvLines:
    """Physical lines for csv.reader, which may join several to one row: counted, and cut off at the row's limit.

    Bytes that are not UTF-8 travel as surrogates, so that one bad cell rejects its row and not the file.
    """

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader
        self.number = 0
        self.row_starts()
        self._pending: deque[bytes] = deque()

    def row_starts(self) -> None:
        self.row = b""  # only what an excerpt shows
        self._row_bytes = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if not self._pending:
            # A lone carriage return ends a line too, as csv.reader expects.
            self._pending.extend(self.reader.readline(_ROW_BYTES + 1).splitlines(keepends=True))
        if not self._pending:
            raise StopIteration
        raw = self._pending.popleft()
        self.number += 1
        self.row = (self.row + raw[:_EXCERPT_BYTES])[:_EXCERPT_BYTES]
        self._row_bytes += len(raw)
        if self._row_bytes > _ROW_BYTES:
            if not raw.endswith((b"\n", b"\r")):
                _skip_line(self.reader)
            _too_long()
        return raw.decode("utf-8", "surrogateescape")


def _csv_rows(reader: _Reader, fields: Sequence[str]) -> Iterator[_Row]:
    csv.field_size_limit(MAX_LINE_BYTES + 1)
    lines = _CsvLines(reader)
    rows = csv.reader(lines, strict=True)
    header = _header(rows, fields)
    while True:
        line = lines.number + 1
        lines.row_starts()
        make: Callable[[], _Made]
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            make = partial(_bad_csv, str(error))
        except _BadRow:
            make = _too_long
        else:
            if not cells:
                continue
            make = partial(_parse_csv, header, cells, fields)
        yield line, lines.row, make


def _header(rows: Iterator[list[str]], fields: Sequence[str]) -> list[str]:
    try:
        header = next((cells for cells in rows if cells), [])
    except (csv.Error, _BadRow) as error:
        raise UnreadableFile(
            f"Neither JSON Lines nor CSV: the first line is not well-formed CSV ({str(error)[:100]})."
        ) from error
    _check_header(header, fields)
    return header


def _check_header(header: list[str], fields: Sequence[str]) -> None:
    known = {*_COLUMNS, *fields, "input", *(f"input.{name}" for name in fields)}
    missing = [name for name in ("id", "label") if name not in header]
    if "input" not in header:
        missing += [name for name in fields if name not in header and f"input.{name}" not in header]
    if missing:
        raise UnreadableFile(
            f"Neither JSON Lines nor a CSV with the needed columns: the first line lacks {', '.join(missing)}."
        )
    if any(_SURROGATE.search(name) for name in header):
        raise UnreadableFile("The first line is not UTF-8. Save the file as UTF-8.")
    unknown = [name for name in header if name not in known and not name.startswith("metadata.")]
    if unknown:
        raise UnreadableFile(
            f"Unknown column {unknown[0][:60]!r}. Put further columns under metadata., as in metadata.domain."
        )
    _check_columns_once(header, fields)


def _check_columns_once(header: list[str], fields: Sequence[str]) -> None:
    """Refuse two columns for one thing: the second would overwrite the first in silence."""
    own = {f"input.{name}": name for name in fields if name not in _COLUMNS}
    named = Counter(own.get(name, name) for name in header)
    named.update(name for name in fields if "input" in named and name not in _COLUMNS)
    twice = [name for name, times in named.items() if times > 1]
    if twice:
        raise UnreadableFile(f"The column {twice[0][:60]} stands twice. Take one away.")


def _bad_csv(message: str) -> _Made:
    raise _BadRow("not CSV", f"The row is not well-formed CSV: {message[:200]}.")


def _parse_csv(header: list[str], cells: list[str], fields: Sequence[str]) -> _Made:
    if len(cells) != len(header):
        raise _BadRow("not CSV", f"The row has {len(cells)} cells, the header has {len(header)}.")
    by_name = dict(zip(header, cells, strict=True))
    made: _Made = {name: by_name[name] for name in _COLUMNS if by_name.get(name)}
    if by_name.get("input"):
        made["input"] = _parse_json(by_name["input"].encode("utf-8", "surrogateescape"))
    else:
        made["input"] = {name: by_name.get(f"input.{name}", by_name.get(name, "")) for name in fields}
    metadata = {name.removeprefix("metadata."): text for name, text in by_name.items() if name.startswith("metadata.")}
    return made | {"metadata": metadata}


def _row_checker(labels: Sequence[str], input_fields: Sequence[str]) -> Callable[[_Made], TraceRow]:
    known_labels, needed = set(labels), set(input_fields)

    def check(made: _Made) -> TraceRow:
        _check_text(made, depth=0)
        row = _validated(made)
        if row.label not in known_labels:
            raise _BadRow("unknown label", f"The label {row.label!r} is not one of: {', '.join(labels)}.")
        if set(row.input) != needed:
            raise _BadRow("input fields", f"The input must have exactly the fields {', '.join(input_fields)}.")
        return row

    return check


def _check_text(value: Any, depth: int) -> None:
    if depth > MAX_JSON_DEPTH:
        raise _BadRow("too deep", f"The JSON is nested more than {MAX_JSON_DEPTH} deep.")
    if isinstance(value, str):
        if "\x00" in value:
            raise _BadRow("NUL character", "The row holds a NUL character, which no text needs.")
        if _SURROGATE.search(value):
            raise _BadRow("bad UTF-8", "The row holds bytes or escapes that are not valid Unicode.")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _check_text(key, depth + 1)
            _check_text(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner, depth + 1)


# By field ("" for any) and kind of error: pydantic's own words speak of patterns and strings.
_WRONG = {
    ("", "missing"): "missing",
    ("", "extra_forbidden"): "not a field of a trace. Put it under metadata or leave it out",
    ("", "string_type"): "must be text",
    ("", "string_too_short"): "empty",
    ("", "string_too_long"): "longer than {max_length} characters",
    ("", "string_pattern_mismatch"): "blank",
    ("split", "string_pattern_mismatch"): "must be train, validation or test",
}


def _validated(made: _Made) -> TraceRow:
    try:
        return TraceRow.model_validate(made)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "row"
        words = _WRONG.get((where, first["type"])) or _WRONG.get(("", first["type"]))
        said = words.format(**first.get("ctx", {})) if words else first["msg"][:200]
        raise _BadRow("invalid field", f"{where[:80]}: {said}.") from error


def _outcome(
    line: int, raw: bytes, make: Callable[[], _Made], check: Callable[[_Made], TraceRow], first_line_of: dict[str, int]
) -> Outcome:
    try:
        row = check(make())
        if row.id in first_line_of:
            raise _BadRow("duplicate id", f"The id {row.id[:80]!r} stands already on line {first_line_of[row.id]}.")
    except _BadRow as bad:
        return Rejected(line, bad.reason, bad.message[:300], _excerpt(raw))
    first_line_of[row.id] = line
    return Accepted(line, row)


def _excerpt(raw: bytes) -> str:
    return raw[:_EXCERPT_BYTES].decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}").strip()[:200]
