"""Handing out a frozen ruleset; each export is on the audit log."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.audit import audit_record
from pld_app.errors import WrongState
from pld_app.models import User
from rules.exports import ruleset_csv, ruleset_json
from rules.models import Release, Ruleset
from rules.selectors.rulesets import ruleset_manifest
from rules.selectors.signatures import signatures_of


class ExportKind(StrEnum):
    """What is handed out; the value is the ending of the file name."""

    JSON = "json"
    CSV = "csv"
    PROMPT = "txt"
    MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Export:
    file_name: str
    content_type: str
    chunks: Iterable[bytes | str]


_CONTENT_TYPES = {
    ExportKind.JSON: "application/json",
    ExportKind.CSV: "text/csv; charset=utf-8",
    ExportKind.PROMPT: "text/plain; charset=utf-8",
    ExportKind.MANIFEST: "application/json",
}


@transaction.atomic
def ruleset_export(*, ruleset: Ruleset, kind: ExportKind, actor: User | None) -> Export:
    """The file of a frozen ruleset, and the event that it was taken out (`actor` None: from the command line).

    Raises WrongState for a ruleset that was never frozen: a draft is not evidence of anything.
    """
    manifest = ruleset_manifest(ruleset)
    if manifest is None:
        raise WrongState(_("Only a frozen ruleset can be exported. Freeze it first."))
    signatures = signatures_of(ruleset)
    release = Release.objects.filter(ruleset=ruleset).first()
    chunks: Iterable[bytes | str]
    match kind:
        case ExportKind.JSON:
            chunks = [ruleset_json(ruleset, manifest, signatures, release)]
        case ExportKind.CSV:
            chunks = ruleset_csv(ruleset, manifest, signatures)
        case ExportKind.PROMPT:
            chunks = [ruleset.prompt.encode()]
        case ExportKind.MANIFEST:
            chunks = [bytes(ruleset.manifest or b"")]
    data = {"kind": kind.value, "manifest_sha256": ruleset.manifest_sha256}
    audit_record("ruleset.exported", actor=actor, subject=ruleset, task_slug=ruleset.task.slug, data=data)
    name = f"{ruleset.task.slug}-ruleset-{ruleset.number}.{kind.value}"
    return Export(name, _CONTENT_TYPES[kind], chunks)
