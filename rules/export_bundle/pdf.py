"""The report as a tagged PDF (PDF/UA-1), set by Typst from data: no text of ours or theirs is Typst source.

Only the fonts inside the typesetter are used, never those of the machine, so that all machines set the same bytes. They
hold Latin, Greek and Cyrillic. A character they lack stands as its code point, such as [U+4E2D]: never as an empty box.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import typst

type Rows = Sequence[Sequence[str]]

_SOURCE: Final = Path(__file__).with_name("report.typ").read_bytes()
_PROBE: Final = b"""#set document(title: "probe")
#set text(font: ("Libertinus Serif", "DejaVu Sans Mono"), fallback: false, lang: "en")
#sys.inputs.data
"""
# Set by every font we use; whatever else comes is asked for, character by character.
_PLAIN: Final = re.compile(r"[\n\t -~\u00a0-\u017f]*")
_CUT: Final = re.compile(r"\S{40,}")


class ReportFault(Exception):
    """The PDF cannot be set; the message says which text stands in the way."""


def pdf_report(
    title: str, facts: Sequence[tuple[str, str]], tables: Sequence[tuple[str, Sequence[str], Rows]]
) -> bytes:
    """The PDF. `tables` are (heading, columns, rows). Raises ReportFault."""
    lacking: set[str] = set()

    def shown(text: str) -> str:
        return _breakable(text if _PLAIN.fullmatch(text) else "".join(_shown(one, lacking) for one in text))

    data = {
        "facts": [[shown(name), shown(value)] for name, value in facts],
        "tables": [
            {"title": heading, "columns": list(columns), "rows": [[shown(cell) for cell in row] for row in rows]}
            for heading, columns, rows in tables
        ],
        "title": shown(title),
    }
    data["lacking"] = len(lacking)
    return _set(_SOURCE, json.dumps(data))


def _shown(character: str, lacking: set[str]) -> str:
    if _PLAIN.fullmatch(character) or _has_glyph(character):
        return character
    lacking.add(character)
    return f"[U+{ord(character):04X}]"


@cache
def _has_glyph(character: str) -> bool:
    try:
        _set(_PROBE, f"a{character}a")
    except ReportFault:
        return False
    return True


def _breakable(text: str) -> str:
    """Long words, such as hashes, may break anywhere: an invisible space stands after every 16 characters."""
    return _CUT.sub(lambda word: "\u200b".join(re.findall(r".{1,16}", word[0], re.DOTALL)), text)


@cache
def _fonts() -> typst.Fonts:
    return typst.Fonts(include_system_fonts=False, include_embedded_fonts=True)


def _set(source: bytes, data: str) -> bytes:
    compiler = typst.Compiler(source, font_paths=_fonts(), sys_inputs={"data": data})
    try:
        made = compiler.compile(format="pdf", pdf_standards=["ua-1"], timestamp=0)
    except typst.TypstError as error:
        raise ReportFault(f"report.pdf cannot be set: {error.message}") from error
    assert isinstance(made, bytes)
    return made
