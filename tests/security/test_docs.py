"""docs/security.md and docs/governance.md name a test and a guard for each sentence: they exist, or this fails."""

import ast
import re
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


GOVERNANCE = (ROOT / "docs" / "governance.md").read_text(encoding="utf-8")
# Catalogue numbers that the page must show.
CATALOGUE = {*range(17, 23), *range(24, 43), 54}


def invariants() -> list[tuple[str, str, str]]:
    """Rows of the table under "Always true": invariant, held by, attacked by."""
    section = TEXT.partition("## Always true")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [(row[0], row[1], row[2]) for row in cells[2:]]


def named(text: str, start: str) -> list[str]:
    return [one for one in re.findall(r"`([^`]+)`", text) if one.startswith(start)]


def names_in(path: Path) -> set[str]:
    """Names of a file's tests, those of a class as Class::test."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


def test_every_invariant_is_held_and_attacked() -> None:
    rows = invariants()
    assert len(rows) >= 15
    for invariant, held_by, attacked_by in rows:
        assert invariant
        assert held_by
        assert named(attacked_by, "tests/"), invariant


@pytest.mark.parametrize("row", invariants(), ids=lambda row: row[0][:40])
def test_the_tests_of_an_invariant_exist(row: tuple[str, str, str]) -> None:
    for name in named(row[2], "tests/"):
        file, _, test = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert test in names_in(ROOT / file), name


def test_files_named_elsewhere_exist() -> None:
    for name in [*named(TEXT, "tests/"), *named(TEXT, "rules/"), *named(TEXT, "pld_app/")]:
        assert (ROOT / name.partition("::")[0]).is_file(), name


@pytest.mark.django_db
def test_the_guards_named_stand_in_the_database() -> None:
    guards = {name for _invariant, held_by, _tests in invariants() for name in named(held_by, "pld_")}
    guards = {name for name in guards if "." not in name and "/" not in name}
    with connection.cursor() as cursor:
        cursor.execute("SELECT tgname FROM pg_trigger WHERE tgenabled = 'A' UNION SELECT proname FROM pg_proc")
        standing = {str(row[0]) for row in cursor.fetchall()}
        cursor.execute("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'pld_guard%' AND tgenabled = 'A'")
        all_guards = {str(row[0]) for row in cursor.fetchall()}
    assert guards <= standing, guards - standing
    # And the page leaves out no guard that refuses a row: those of inserting a bare row have no line of their own.
    assert all_guards - guards <= {"pld_guard_instruction_insert", "pld_guard_ruleset_insert"}


def statements() -> list[list[str]]:
    """Cells of every row under "The statements": those of C1 to C37, then those of the test catalogue."""
    section = GOVERNANCE.partition("## The statements")[2]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if re.match(r"\| (C?\d)", line)]
    return [[cell.strip() for cell in row] for row in rows]


def test_every_statement_and_catalogue_number_has_its_row() -> None:
    numbers = {int(number) for row in statements() for number in re.findall(r"\b\d+\b", row[0])}
    stated = {int(row[0][1:]) for row in statements() if row[0].startswith("C")}
    assert set(range(1, 25)) <= stated
    assert numbers >= CATALOGUE


@pytest.mark.parametrize("row", statements(), ids=lambda row: row[0])
def test_the_tests_of_a_statement_exist(row: list[str]) -> None:
    tests = named(row[-1], "tests/")
    assert tests, row[0]
    for name in tests:
        file, _, test = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert test in names_in(ROOT / file), name
