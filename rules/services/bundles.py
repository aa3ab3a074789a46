"""The facts of a bundle, from the database; and making one where the log's key is (`manage.py export_bundle`)."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from django.db import connection, transaction
from django.utils.translation import gettext as _

from pld_app.audit import audit_record
from pld_app.errors import WrongState
from pld_app.models import AuditEvent, AuditKey, Checkpoint, SealedLeaf
from pld_app.transparency.keys import Signer, key_records
from pld_app.transparency.note import ParsedCheckpoint
from pld_app.transparency.tree import StoredTree
from rules.export_bundle.build import ATTESTATION, Facts, SealedEvent, envelope_of, files_build
from rules.export_bundle.files import Files, zip_write
from rules.models import Ruleset, RulesetStatus
from rules.selectors.rulesets import ruleset_manifest
from rules.selectors.signatures import signatures_of

# What is recorded about bundles themselves: a bundle does not wait for the seal of these.
OF_BUNDLES = ("ruleset.exported", "bundle.requested", "bundle.made", "bundle.failed", "bundle.downloaded")

_PAGE = 5000
_EVENTS = f"""
SELECT e.seq, e.leaf, e.body, s.index FROM pld_app_auditevent e
  JOIN pld_app_sealedleaf s ON s.event_id = e.id AND s.index < %s
 WHERE e.chain = %s AND e.seq > %s ORDER BY e.seq LIMIT {_PAGE}
"""  # noqa: S608  # a constant
# All that was recorded about the ruleset's instructions, and about the policy of its task.
_BASIS = """
SELECT e.leaf, e.body, s.index, e.data::text FROM pld_app_auditevent e
  LEFT JOIN pld_app_sealedleaf s ON s.event_id = e.id AND s.index < %s
 WHERE e.chain = %s AND (e.object_type = 'instruction' AND e.object_id = ANY (%s)
                         OR e.object_type = 'task' AND e.action LIKE 'policy.%%')
 ORDER BY e.seq
"""


class NotYetSealed(WrongState):
    """Events of the ruleset are not in a signed tree yet."""


@dataclass(frozen=True)
class Sealed:
    """The newest checkpoint of a key, and how many events of the ruleset and its decisions it covers."""

    checkpoint: Checkpoint
    events: int
    basis: list[SealedEvent]

    @property
    def count(self) -> int:
        return self.events + len(self.basis)


@transaction.atomic
def bundle_export(*, ruleset: Ruleset, signer: Signer, to: IO[bytes], outside: ParsedCheckpoint | None = None) -> None:
    """Write the bundle of a signed ruleset as a ZIP, and the event that it was taken out.

    It shows the ruleset's events up to the newest checkpoint; `outside` is one the auditor kept, to be proved a
    beginning of it. The same checkpoint, the same bytes: the event of an export is on record but not in this bundle.
    Raises WrongState for a ruleset without its signatures, NotYetSealed while events of it wait for the seal.
    """
    sealed = sealed_of(ruleset, signer.row)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        statement = files_build(facts_of(ruleset, sealed, outside), folder)
        (folder / ATTESTATION).write_bytes(envelope_of(statement, signer.private_key))
        zip_write(Files.folder(folder), to)
    audit_record(
        "ruleset.exported",
        actor=None,
        subject=ruleset,
        task_slug=ruleset.task.slug,
        data={"kind": "bundle", "tree_size": sealed.checkpoint.size},
    )


def check_exportable(ruleset: Ruleset) -> None:
    """Raises WrongState for a ruleset without its signatures."""
    if ruleset.status != RulesetStatus.SIGNED or ruleset.manifest is None:
        raise WrongState(_("Only a signed ruleset can be exported as a bundle. Collect its signatures first."))


def sealed_of(ruleset: Ruleset, key: AuditKey) -> Sealed:
    """What the newest checkpoint of `key` covers of the ruleset. Raises WrongState, NotYetSealed."""
    check_exportable(ruleset)
    checkpoint = Checkpoint.objects.filter(key=key).order_by("-size", "-pk").first()
    if checkpoint is None:
        raise NotYetSealed(_("Nothing is sealed under this key yet. Run the sealer, then export again."))
    events = AuditEvent.objects.filter(chain=_chain(ruleset))
    covered = SealedLeaf.objects.filter(event__chain=_chain(ruleset), index__lt=checkpoint.size).count()
    # Those that wait are the newest ones, so there are few of them.
    waiting = events.order_by("-seq").values_list("action", flat=True)[: events.count() - covered]
    basis = [*_basis(ruleset, checkpoint.size)]
    if not covered or any(action not in OF_BUNDLES for action in waiting) or None in basis:
        raise NotYetSealed(_("Some events of this ruleset are not sealed yet. Run the sealer, then export again."))
    return Sealed(checkpoint, covered, [one for one in basis if one is not None])


def facts_of(ruleset: Ruleset, sealed: Sealed, outside: ParsedCheckpoint | None = None) -> Facts:
    """What the bundle of this ruleset holds at this checkpoint. Raises WrongState."""
    checkpoint = sealed.checkpoint
    return Facts(
        manifest=bytes(ruleset.manifest or b""),
        prompt=ruleset.prompt,
        events=_events(ruleset, checkpoint.size),
        basis=sealed.basis,
        checkpoint=checkpoint.note,
        signatures=[one.as_json() for one in signatures_of(ruleset)],
        keys=key_records(),
        consistency=_consistency(outside, checkpoint.size),
    )


def _chain(ruleset: Ruleset) -> str:
    return f"ruleset:{ruleset.pk}"


def _events(ruleset: Ruleset, size: int) -> Iterator[SealedEvent]:
    """All of the ruleset's chain that is sealed, read 5,000 at a time: there may be a million."""
    tree, seq = StoredTree(), 0
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_EVENTS, [size, _chain(ruleset), seq])
            rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
        for seq, leaf, body, index in rows:  # noqa: B007  # the last one begins the next page
            yield SealedEvent(leaf=bytes(leaf), body=bytes(body), index=index, path=tree.inclusion(index, size))
        if len(rows) < _PAGE:
            return


def _basis(ruleset: Ruleset, size: int) -> Iterator[SealedEvent | None]:
    """The events of the task's chain that the ruleset rests on; None for one that is not sealed."""
    manifest, tree = ruleset_manifest(ruleset), StoredTree()
    numbers = [one.number for one in manifest.instructions] if manifest else []
    ids = ruleset.task.instructions.filter(number__in=numbers).values_list("pk", flat=True)
    values: list[Any] = [size, f"task:{ruleset.task.slug}", [str(pk) for pk in ids]]
    with connection.cursor() as cursor:
        cursor.execute(_BASIS, values)
        rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
    for leaf, body, index, data in rows:
        if index is None:
            yield None
            continue
        path = tree.inclusion(index, size)
        yield SealedEvent(leaf=bytes(leaf), body=bytes(body), index=index, path=path, data=json.loads(data))


def _consistency(outside: ParsedCheckpoint | None, size: int) -> tuple[int, list[bytes]] | None:
    if outside is None:
        return None
    if outside.size > size:
        raise WrongState(_("The checkpoint you gave is newer than this log's. Verify the log before you export."))
    return outside.size, StoredTree().consistency(outside.size, size)
