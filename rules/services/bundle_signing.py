"""Signing bundles: runs in the sealer's process alone, which has the log's key and reads no table of ours but these.

It signs nothing it has not checked: the files as the strict verifier reads them, all events of the log that belong in
them by its own look, the reports drawn again, the statement made again. So a worker that was taken over gets no
signature under a bundle that leaves something out or says something else.
"""

import json
import shutil
import tempfile
from pathlib import Path

import structlog
from django.db import connection

from pld_app.canonical import canonical_json
from pld_app.transparency.keys import Signer
from rules.export_bundle.build import ATTESTATION, NAMES, README, SCRIPT, envelope_of, statement_of
from rules.export_bundle.files import Files
from rules.export_bundle.pdf import ReportFault
from rules.export_bundle.report import reports_draw
from rules.export_bundle.verify import claims_verify
from rules.models import BundleRequest, BundleSignature, BundleState
from rules.services.bundle_requests import files_path

log = structlog.get_logger(__name__)

_OF_RULESET = """
SELECT count(*) FROM pld_app_auditevent e JOIN pld_app_sealedleaf s ON s.event_id = e.id AND s.index < %s
 WHERE e.chain = %s
"""
_OF_TASK = """
SELECT count(*) FROM pld_app_auditevent e JOIN pld_app_sealedleaf s ON s.event_id = e.id AND s.index < %s
 WHERE e.chain = %s AND (e.object_type = 'instruction' AND e.object_id = ANY (%s)
                         OR e.object_type = 'task' AND e.action LIKE 'policy.%%')
"""


class NotSigned(Exception):
    """Why the log's key does not stand for these files."""


def bundles_sign(signer: Signer) -> None:
    """Sign, or refuse with a reason, every bundle that waits."""
    waiting = BundleRequest.objects.filter(state=BundleState.SIGNING, signature=None).select_related("checkpoint__key")
    for request in waiting:
        envelope, fault = None, ""
        try:
            envelope = envelope_of(_checked(request, signer), signer.private_key)
        except NotSigned as refused:
            fault = str(refused)[:500]
        except OSError as error:
            fault = f"The sealer cannot read the files in {files_path(request)}: {error.strerror}."[:500]
        BundleSignature.objects.create(request=request, key=signer.row, envelope=envelope, fault=fault)
        log.info("bundle.signed" if envelope else "bundle.refused", request=request.pk, fault=fault)


def _checked(request: BundleRequest, signer: Signer) -> bytes:
    """The statement to sign. Works on a copy of its own: what it checks is what it signs. Raises NotSigned, OSError."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        shutil.copytree(files_path(request), folder)
        files = Files.folder(folder)
        _hold(files.names == NAMES - {ATTESTATION}, "The folder does not hold the files of a bundle.")
        checkpoint = request.checkpoint
        _hold(
            checkpoint is not None and checkpoint.key_id == signer.row.pk,
            "The log's key was replaced meanwhile. Request the bundle again.",
        )
        assert checkpoint is not None
        _hold(files.read("checkpoint.txt") == checkpoint.note.encode(), "The checkpoint is not the log's.")
        _hold(files.read("README.txt") == README and files.read("verify.py") == SCRIPT, "A fixed file was changed.")
        report = claims_verify(files, public_key=signer.private_key.public_key().public_bytes_raw())
        _hold(not report.verdict, f"The files do not verify: {report.fault}.")
        _all_there(files, request.ruleset_id, checkpoint.size)
        _hold(_reports(files), "The reports are not those of the files.")
        statement = canonical_json(statement_of(files))
        _hold(statement == bytes(request.statement or b""), "The statement is not that of the files.")
        return statement


def _all_there(files: Files, ruleset_id: int, size: int) -> None:
    """Every event of the log that belongs in the bundle is in it: the log is asked, not the bundle."""
    chains: dict[str, int] = {}
    ids: set[str] = set()
    for leaf, body in zip(files.lines("events.jsonl"), files.lines("bodies.jsonl"), strict=True):
        chain, about = json.loads(leaf)["chain"], json.loads(body)["object"]
        chains[chain] = chains.get(chain, 0) + 1
        if about["type"] == "instruction":
            ids.add(about["id"])
    own = f"ruleset:{ruleset_id}"
    others = chains.keys() - {own}
    _hold(len(others) == 1, "The events are not those of one ruleset and its task.")
    (task,) = others
    with connection.cursor() as cursor:
        cursor.execute(_OF_RULESET, [size, own])
        of_ruleset = cursor.fetchone()[0]
        cursor.execute(_OF_TASK, [size, task, sorted(ids)])
        of_task = cursor.fetchone()[0]
    counted = (chains.get(own, 0), chains.get(task, 0))
    _hold(counted == (of_ruleset, of_task), "Events of the log that belong in the bundle are not in it.")


def _reports(files: Files) -> bool:
    names = ("ruleset.json", "signatures.json", "decisions.json", "checkpoint.txt")
    try:
        drawn = reports_draw(*(files.read(name) for name in names))
    except ReportFault as fault:
        raise NotSigned(str(fault)) from fault
    return all(files.read(name) == data for name, data in drawn.items())


def _hold(right: bool, words: str) -> None:
    if not right:
        raise NotSigned(words)
