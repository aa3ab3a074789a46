"""The reports of a bundle, for reading: from the bytes of its JSON files alone, so that anybody can draw them again.

The same bytes give the same report. All texts are untrusted: they stand in cells, never as markup, formula or Typst.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

import xlsxwriter

from pld_app.canonical import sha256_hex
from pld_app.spreadsheets import disarm
from rules.export_bundle.pdf import pdf_report
from rules.manifest import Manifest, manifest_read

HTML, PDF, CSV, XLSX = REPORTS = ("report.html", "report.pdf", "report.csv", "report.xlsx")
# What each meaning says to its signer; `rules.models.Meaning` in English.
MEANINGS = {
    "authored": "I composed or worded this",
    "reviewed": "I have reviewed these instructions",
    "approved": "I approve these instructions for release",
    "approved_with_conditions": "I approve these instructions for release on the conditions below",
    "rejected": "I reject these instructions: they must not be released",
}
_CELL_CHARS = 32_000  # a cell of a worksheet holds 32,767
_FIXED_TIME = datetime(1980, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # the program has no zones


@dataclass(frozen=True)
class Table:
    """One part of a report: a heading, names of columns and rows of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Report:
    """What all reports show. `facts` are pairs of name and value."""

    title: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[Table]


def reports_draw(ruleset: bytes, signatures: bytes, decisions: bytes, checkpoint: bytes) -> dict[str, bytes]:
    """The four reports by file name. Raises `pdf.ReportFault` when the PDF cannot be set."""
    manifest = manifest_read(ruleset)
    report = _report(manifest, json.loads(signatures), json.loads(decisions), checkpoint.decode(), ruleset)
    return {
        CSV: _csv(report).encode(),
        HTML: "".join(_html(report)).encode(),
        PDF: pdf_report(report.title, report.facts, [(one.title, one.columns, one.rows) for one in report.tables]),
        XLSX: _xlsx(report),
    }


def _report(
    manifest: Manifest,
    signatures: Sequence[Mapping[str, Any]],
    decisions: Mapping[str, Any],
    checkpoint: str,
    ruleset: bytes,
) -> Report:
    origin, size, *_rest = checkpoint.split("\n")
    facts = [
        ("Task", manifest.task),
        ("Ruleset", f"{manifest.ruleset}: {manifest.name}"),
        ("Instructions", str(len(manifest.instructions))),
        ("Labels", ", ".join(manifest.labels)),
        ("SHA-256 of the signed manifest", sha256_hex(ruleset)),
        ("SHA-256 of the prompt", manifest.prompt_sha256),
        ("Sign-off policy", f"version {manifest.policy.version}, {manifest.policy.signers_required} signers"),
        ("Log", f"{origin}, checkpoint of {size} events"),
    ]
    rules = [
        (
            str(place),
            f"#{one.number}",
            str(one.revision),
            one.label,
            one.text,
            one.author or "as mined",
            one.approved_by,
            one.approved_at,
        )
        for place, one in enumerate(manifest.instructions, start=1)
    ]
    acts = [act for rule in decisions["rules"] for act in rule["acts"]]
    tables = [
        Table("Signatures", _SIGNATURES, [_signature(one) for one in signatures]),
        Table("Instructions", _RULES, rules),
        Table("Decisions", _ACTS, [_act(one) for one in acts]),
        Table("Sign-off policy", _ACTS, [_act(one) for one in decisions["policy"]]),
    ]
    return Report(f"Approval of ruleset {manifest.ruleset} of {manifest.task}", facts, tables)


_SIGNATURES = ("Name", "Role", "Signed at (UTC)", "Meaning", "Conditions", "Proved by", "SHA-256 signed")
_RULES = ("Place", "Number", "Revision", "Label", "Text", "Author", "Approved by", "Approved at (UTC)")
_ACTS = ("Number", "Event", "At (UTC)", "By", "Role", "Reason and note")


def _signature(one: Mapping[str, Any]) -> tuple[str, ...]:
    meaning = f"{one['meaning']}: {MEANINGS[one['meaning']]}"
    facts = (one["name"], one["role"], one["signed_at"], meaning)
    return (*facts, one.get("conditions", ""), one["method"], one["manifest_sha256"])


def _act(one: Mapping[str, Any]) -> tuple[str, ...]:
    said = ". ".join(str(one["data"][name]) for name in ("reason", "note") if one["data"].get(name))
    return (one["object"], one["action"], one["at"], one["actor"], one["role"], said)


def _csv(report: Report) -> str:
    """All parts under each other, a blank line between; opens with the byte order mark spreadsheets want."""
    out = io.StringIO()
    writer = csv.writer(out)
    for table in (Table(report.title, ("Fact", "Value"), report.facts), *report.tables):
        writer.writerow([disarm(table.title)])
        writer.writerow(table.columns)
        writer.writerows([disarm(cell) for cell in row] for row in table.rows)
        writer.writerow([])
    return "\ufeff" + out.getvalue()


_STYLE = """
body{font:1rem/1.5 system-ui,sans-serif;max-width:75rem;margin:auto;padding:1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;width:100%}.wide{overflow-x:auto}th,td{border:1px solid #767676;padding:.3rem .5rem;
text-align:left;vertical-align:top;overflow-wrap:anywhere;white-space:pre-wrap}th{background:#f0f0f0}
@media(prefers-color-scheme:dark){body{color:#eee;background:#121212}th{background:#2a2a2a}}
""".replace("\n", "")


def _html(report: Report) -> Iterator[str]:
    """One page without script, picture or link: it can be opened anywhere and reaches nothing."""
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body><main>"
    yield f"<h1>{escape(report.title)}</h1><dl>"
    for name, value in report.facts:
        yield f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"
    for number, table in enumerate(report.tables):
        yield f'<h2 id="t{number}">{escape(table.title)}</h2>'
        if not table.rows:
            yield "<p>None.</p>"
            continue
        yield f'<div class="wide" role="region" tabindex="0" aria-labelledby="t{number}"><table><thead><tr>'
        yield "".join(f'<th scope="col">{escape(one)}</th>' for one in table.columns)
        yield "</tr></thead><tbody>"
        for row in table.rows:
            yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
        yield "</tbody></table></div>"
    yield "</main></body></html>\n"


def _cut(cell: str) -> str:
    return cell if len(cell) <= _CELL_CHARS else f"{cell[:_CELL_CHARS]} (cut: see report.html)"


def _xlsx(report: Report) -> bytes:
    """A workbook with a sheet a part. Cells are strings, never formulas or links; its times are fixed."""
    out = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    book = xlsxwriter.Workbook(out, options)
    book.set_properties({"title": report.title, "created": _FIXED_TIME})
    bold, wrap = book.add_format({"bold": True}), book.add_format({"text_wrap": True, "valign": "top"})
    for table in (Table("About", ("Fact", "Value"), report.facts), *report.tables):
        sheet = book.add_worksheet(table.title)
        sheet.freeze_panes(1, 0)
        sheet.set_column(0, len(table.columns) - 1, 24)
        for column, name in enumerate(table.columns):
            sheet.write_string(0, column, name, bold)
        for line, row in enumerate(table.rows, start=1):
            for column, cell in enumerate(row):
                sheet.write_string(line, column, _cut(disarm(cell)), wrap)
    book.close()
    return out.getvalue()
