"""The reports of a bundle: they say what the signed bytes say, the same bytes each time, and nothing in them acts."""

import csv
import io
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from django.test import Client
from django.utils.translation import override
from pypdf import PdfReader
from pytest_django import Settings

from pld_app.models import User
from pld_app.spreadsheets import disarm
from rules.export_bundle.files import Files, zip_read
from rules.export_bundle.pdf import ReportFault, pdf_report
from rules.export_bundle.report import CSV, HTML, MEANINGS, PDF, REPORTS, XLSX, reports_draw
from rules.manifest import Frame, ManifestInstruction, Policy, manifest_build
from rules.models import Meaning, Task
from rules.selectors.signatures import signatures_of
from tests.governance.sealing import Log
from tests.publishing.steps import signed
from tests.publishing.test_bundle import exported

type ClientOf = Callable[[User], Client]
CHECKPOINT = b"log.example/audit\n12\nAAAA\n"


def manifest(*texts: str) -> bytes:
    rules = [
        ManifestInstruction(
            number=number,
            revision=1,
            label="Compliant",
            text=text,
            text_sha256="0" * 64,
            origin="extractive",
            support=3,
            run=None,
            author="",
            approved_by="ana",
            approved_at="2026-01-02T03:04:05.000006Z",
        )
        for number, text in enumerate(texts, start=1)
    ]
    policy = Policy(
        signers_required=2,
        signer_roles=["signatory"],
        version=1,
        signatories_required=0,
        domains=[],
        miners_may_sign=True,
        publisher_may_have_signed=True,
        read_changed_first=False,
    )
    frame = Frame(
        task="nda", ruleset=1, name="First", labels=["Compliant"], policy=policy, preamble="", output_contract="Answer."
    )
    return manifest_build(frame, rules).manifest


def drawn(*texts: str) -> dict[str, bytes]:
    return reports_draw(manifest(*texts), b"[]", b'{"policy":[],"rules":[]}', CHECKPOINT)


def pdf_text(data: bytes) -> str:
    """The text of all pages, without the breaks and the invisible spaces that setting put in."""
    pages = "".join(page.extract_text() for page in PdfReader(io.BytesIO(data)).pages)
    return re.sub(r"[\s\u200b]+", "", pages)


def cells(data: bytes) -> list[openpyxl.cell.cell.Cell]:
    book = openpyxl.load_workbook(io.BytesIO(data))
    return [cell for sheet in book for row in sheet.iter_rows() for cell in row if cell.value is not None]


def test_c6_name_time_and_meaning_are_the_same_everywhere(
    db: None, tmp_path: Path, settings: Settings, task: Task, ana: User, sam: User, sue: User, client_of: ClientOf
) -> None:
    log = Log(tmp_path, settings)
    ruleset = signed(task, ana, sam, sue, count=2)
    log.seal()
    files = zip_read(io.BytesIO(exported(ruleset)))
    page = unescape(client_of(sam).get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode())
    in_json = json.loads(files.read("signatures.json"))
    html, pdf = unescape(files.read(HTML).decode()), pdf_text(files.read(PDF))
    rows = [*csv.reader(io.StringIO(files.read(CSV).decode("utf-8-sig")))]
    values = {str(cell.value) for cell in cells(files.read(XLSX))}
    facts = signatures_of(ruleset)
    assert [one.meaning for one in facts] == ["reviewed", "approved"]
    for one, said in zip(facts, in_json, strict=True):
        meaning = f"{one.meaning}: {one.meaning_label}"
        assert (said["name"], said["signed_at"], said["meaning"]) == (one.name, one.signed_at, one.meaning)
        assert f"<td>{one.name}</td><td>{one.role}</td><td>{one.signed_at}</td><td>{meaning}</td>" in html
        assert "".join((one.name, one.role, one.signed_at, meaning)).replace(" ", "") in pdf.replace(" ", "")
        assert [one.name, one.role, one.signed_at, meaning, one.conditions, one.method, one.manifest_sha256] in rows
        assert {one.name, one.role, one.signed_at, meaning} <= values
        # Screen and print are one page.
        assert one.name in page
        assert f'<time datetime="{one.signed_at}">' in page
        assert one.meaning_label in page


def test_what_meanings_say_is_what_signers_are_shown() -> None:
    with override("en"):
        assert {one.value: str(one.label) for one in Meaning} == MEANINGS


def test_equal_bytes_give_equal_reports() -> None:
    assert drawn("One.", "Two.") == drawn("One.", "Two.")
    assert drawn("One.").keys() == set(REPORTS)


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\N{FULLWIDTH EQUALS SIGN}1"])
def test_no_cell_is_a_formula_or_a_link(start: str) -> None:
    text = f"{start} https://example.org"
    made = drawn(text)
    assert all(cell.data_type == "s" and not cell.hyperlink for cell in cells(made[XLSX]))
    assert disarm(text) in {cell.value for cell in cells(made[XLSX])}
    assert not [
        one for row in csv.reader(io.StringIO(made[CSV].decode("utf-8-sig"))) for one in row if one[:1] in "=+@" and one
    ]


def test_markup_stays_text() -> None:
    hostile = '<script>alert(1)</script> *bold* #panic("x") $x$ \\ @ref'
    made = drawn(hostile)
    assert b"<script" not in made[HTML]
    assert hostile in unescape(made[HTML].decode())
    assert hostile.replace(" ", "") in pdf_text(made[PDF]).replace(" ", "")


def test_the_pdf_is_tagged_and_has_language_and_title() -> None:
    root: Any = PdfReader(io.BytesIO(drawn("One.")[PDF])).trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"].startswith("en")
    assert root["/ViewerPreferences"]["/DisplayDocTitle"]
    assert b'pdfuaid:part="1"' in drawn("One.")[PDF] or b"<pdfuaid:part>1" in drawn("One.")[PDF]


@pytest.mark.parametrize("text", ["Fünf Größen, „Straße“ ß", "Ελληνικό κείμενο Ωμέγα", "Пункт договора"])
def test_european_scripts_are_set(text: str) -> None:
    assert text.replace(" ", "") in pdf_text(drawn(text)[PDF]).replace(" ", "")


def test_what_the_fonts_lack_stands_as_its_code_point_never_as_an_empty_box() -> None:
    text = pdf_text(drawn("若复制则违规 ok")[PDF])
    assert "[U+82E5][U+590D][U+5236][U+5219][U+8FDD][U+89C4]ok" in text
    assert "6charactersofthetexts" in text
    assert "若复制则违规" in drawn("若复制则违规 ok")[HTML].decode()


def test_a_text_that_cannot_be_set_is_refused_in_words() -> None:
    with pytest.raises(ReportFault, match="cannot be set"):
        pdf_report("", [], [])  # PDF/UA asks for a title


def test_a_folder_gives_only_its_files(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a.txt").write_bytes(b"a\nb")
    (tmp_path / "link").symlink_to("/etc/hostname")
    files = Files.folder(tmp_path)
    assert files.names == {"a.txt"}
    with pytest.raises(ValueError, match="cut off"):
        list(files.lines("a.txt"))
