"""A frozen ruleset as files: JSON with the exact signed manifest, CSV for people, the prompt itself. No queries."""

import csv
from collections.abc import Iterator, Sequence
from typing import Any

from pld_app.canonical import canonical_json
from pld_app.spreadsheets import Echo, disarm
from rules.manifest import Manifest, ManifestInstruction
from rules.models import Release, Ruleset
from rules.selectors.rulesets import utc_text
from rules.selectors.signatures import SignatureFacts

COLUMNS = (
    "place",
    "number",
    "revision",
    "label",
    "text",
    "text_sha256",
    "origin",
    "support",
    "run",
    "author",
    "approved_by",
    "approved_at",
    "manifest_sha256",
    "signed_by",
)


def ruleset_json(
    ruleset: Ruleset, manifest: Manifest, signatures: Sequence[SignatureFacts], release: Release | None
) -> bytes:
    """Canonical JSON: the manifest as it was signed (its own bytes appear in it), its hash, signatures and release.

    To check it: the canonical form of `manifest` hashes to `manifest_sha256`, and every signature names that hash.
    """
    content: dict[str, Any] = {  # JSON values
        "schema": "ruleset-export/v1",
        "status": str(ruleset.status),
        "withdrawn_reason": ruleset.withdrawn_reason,
        "frozen_at": utc_text(ruleset.frozen_at) if ruleset.frozen_at else None,
        "composed_by": ruleset.composed_by.username,
        "manifest": manifest.content(),
        "manifest_sha256": ruleset.manifest_sha256,
        "prompt": ruleset.prompt,
        "signatures": [one.as_json() for one in signatures],
        "release": _release(release) if release else None,
    }
    return canonical_json(content) + b"\n"


def _release(release: Release) -> dict[str, str | int]:
    return {
        "version": release.version,
        "prompt_sha256": release.prompt_sha256,
        "manifest_sha256": release.manifest_sha256,
        "created_at": utc_text(release.created_at),
    }


def ruleset_csv(ruleset: Ruleset, manifest: Manifest, signatures: Sequence[SignatureFacts]) -> Iterator[str]:
    """One line per instruction in order; no cell is a formula. Opens with the byte order mark spreadsheets want."""
    writer = csv.writer(Echo())
    signed_by = "; ".join(one.line for one in signatures)
    yield "\ufeff" + writer.writerow(COLUMNS)
    for place, instruction in enumerate(manifest.instructions, start=1):
        yield writer.writerow([disarm(cell) for cell in _cells(place, instruction, ruleset, signed_by)])


def _cells(place: int, instruction: ManifestInstruction, ruleset: Ruleset, signed_by: str) -> list[str]:
    return [
        str(place),
        str(instruction.number),
        str(instruction.revision),
        instruction.label,
        instruction.text,
        instruction.text_sha256,
        instruction.origin,
        str(instruction.support),
        "" if instruction.run is None else str(instruction.run),
        instruction.author,
        instruction.approved_by,
        instruction.approved_at,
        ruleset.manifest_sha256,
        signed_by,
    ]
