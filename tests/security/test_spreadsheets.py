"""CSV files as a spreadsheet reads them, set to the comma, the semicolon or the tab: no cell of theirs is a formula."""

import csv
import io

import pytest

from pld_app.spreadsheets import disarm

FORMULA = "=cmd|' /C calc'!A0"
WIDE_EQUALS = "\N{FULLWIDTH EQUALS SIGN}"
DANGEROUS = ("=", "+", "-", "@", WIDE_EQUALS, "\N{FULLWIDTH PLUS SIGN}", "\N{FULLWIDTH COMMERCIAL AT}")


def cells_seen(text: str, separator: str) -> list[str]:
    """Cells of a row with this text in its middle, as a program splits it that is set to this separator."""
    line = io.StringIO()
    csv.writer(line).writerow(["t-1", disarm(text), "Compliant"])
    return [cell for row in csv.reader(line.getvalue().splitlines(), delimiter=separator) for cell in row]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "text",
    [
        FORMULA,
        f"x;{FORMULA};y",
        f"x;;{FORMULA};y",
        f"x\t{FORMULA}\ty",
        f"x\n{FORMULA}\ny",
        f"x\r{FORMULA};y",
        f"x\r\n{FORMULA}",
        f";{FORMULA}",
        f'x"{FORMULA}',
        f'x;"{FORMULA}"',
        "x;@SUM(A1)",
        "x;+1+1;",
        "x;-1+1;",
        f"x;{WIDE_EQUALS}1+1;",
    ],
)
def test_no_cell_is_a_formula_whatever_the_separator(text: str, separator: str) -> None:
    assert not [cell for cell in cells_seen(text, separator) if cell.startswith(DANGEROUS)]


@pytest.mark.parametrize(
    "text",
    ["a; -b", "1-2", "a=b; c=d", "If x, then label A; otherwise B.", "first\nsecond", "x@y.example", "a;b;c", ""],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert disarm(text) == text
