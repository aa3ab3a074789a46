"""Making a bundle: runs where the log's key is (`manage.py export_bundle`), never in web server or worker."""

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.audit import audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import WrongState
from pld_app.models import AuditEvent, Checkpoint, SealedLeaf
from pld_app.transparency.keys import Signer, key_records
from pld_app.transparency.note import ParsedCheckpoint
from pld_app.transparency.tree import StoredTree
from rules.export_bundle.build import Facts, SealedEvent, bundle_files, zip_bytes
from rules.models import Ruleset, RulesetStatus
from rules.selectors.signatures import signatures_of


class NotYetSealed(WrongState):
    """Events of the ruleset are not in a signed tree yet."""


@transaction.atomic
def bundle_export(*, ruleset: Ruleset, signer: Signer, outside: ParsedCheckpoint | None = None) -> bytes:
    """The bundle of a signed ruleset as bytes of a ZIP, and the event that it was taken out.

    It shows the ruleset's events up to the newest checkpoint; `outside` is one the auditor kept, to be proved a
    beginning of it. The same checkpoint, the same bytes: the event of an export is on record but not in this bundle.
    Raises WrongState for a ruleset without its signatures, NotYetSealed while events of it wait for the seal.
    """
    if ruleset.status != RulesetStatus.SIGNED or ruleset.manifest is None:
        raise WrongState(_("Only a signed ruleset can be exported as a bundle. Collect its signatures first."))
    checkpoint = Checkpoint.objects.filter(key=signer.row).order_by("-size", "-pk").first()
    if checkpoint is None:
        raise NotYetSealed(_("Nothing is sealed under this key yet. Run the sealer, then export again."))
    tree = StoredTree()
    facts = Facts(
        manifest=bytes(ruleset.manifest),
        prompt=ruleset.prompt,
        events=_events(ruleset, checkpoint.size, tree),
        checkpoint=checkpoint.note,
        signatures=[one.as_json() for one in signatures_of(ruleset)],
        keys=key_records(),
        consistency=_consistency(outside, checkpoint.size, tree),
    )
    data = zip_bytes(bundle_files(facts, signer.private_key))
    audit_record(
        "ruleset.exported",
        actor=None,
        subject=ruleset,
        task_slug=ruleset.task.slug,
        data={"kind": "bundle", "sha256": sha256_hex(data), "tree_size": checkpoint.size},
    )
    return data


def _events(ruleset: Ruleset, size: int, tree: StoredTree) -> list[SealedEvent]:
    rows = AuditEvent.objects.filter(chain=f"ruleset:{ruleset.pk}").order_by("seq")
    events = list(rows.values_list("pk", "leaf", "body", "action"))
    leaves = SealedLeaf.objects.filter(event_id__in=[pk for pk, *_rest in events], index__lt=size)
    places = dict(leaves.values_list("event_id", "index"))
    waiting = [action for pk, _leaf, _body, action in events if pk not in places]
    if not places or any(action != "ruleset.exported" for action in waiting):
        raise NotYetSealed(_("Some events of this ruleset are not sealed yet. Run the sealer, then export again."))
    return [
        SealedEvent(leaf=bytes(leaf), body=bytes(body), index=places[pk], path=tree.inclusion(places[pk], size))
        for pk, leaf, body, _action in events
        if pk in places
    ]


def _consistency(outside: ParsedCheckpoint | None, size: int, tree: StoredTree) -> tuple[int, list[bytes]] | None:
    if outside is None:
        return None
    if outside.size > size:
        raise WrongState(_("The checkpoint you gave is newer than this log's. Verify the log before you export."))
    return outside.size, tree.consistency(outside.size, size)
