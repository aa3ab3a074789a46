"""One round of the sealer: compare with the copy outside, seal, send copies."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pld_app.models import Checkpoint
from pld_app.transparency.copies import CopyDiffers, CopyFailed, FolderSink, Sink, copies_send
from pld_app.transparency.keyring import KeyRefused
from pld_app.transparency.keys import Signer, keyring, signer_load
from pld_app.transparency.note import ParsedCheckpoint
from pld_app.transparency.sealing import Blocked, Sealed, alarm_raise, seal
from pld_app.transparency.tree import StoredTree, sealed_count

log = structlog.get_logger(__name__)

# What else the log's key signs once everything is sealed: other packages add theirs, this one knows none of them.
AFTER_SEAL: list[Callable[[Signer], None]] = []


@dataclass(frozen=True)
class Round:
    """How it went; `is_current` says that everything is sealed and every copy has arrived."""

    sealed: Sealed
    are_copies_sent: bool

    @property
    def is_current(self) -> bool:
        return self.are_copies_sent and not self.sealed.is_held_up


def seal_round(sinks: list[Sink]) -> Round:
    """Seal and copy once, then sign what else waits for the key.

    Raises KeyFault, SealerBusy, or Blocked when log and copy outside disagree.

    The copy is compared before anything new is signed: a database restored from an older backup would else grow a
    second history from there.
    """
    signer = signer_load()
    for sink in sinks:
        if isinstance(sink, FolderSink):
            _compare(sink)
    sealed = seal(signer)
    try:
        sent = copies_send(sinks)
    except CopyDiffers as error:
        alarm_raise(str(error))
        raise Blocked(str(error)) from error
    for act in AFTER_SEAL:
        act(signer)
    return Round(sealed, sent)


def _compare(sink: FolderSink) -> None:
    try:
        outside = sink.newest()
    except CopyFailed as error:
        log.warning("audit.copy_unreadable", error=str(error))
        return
    if outside is None:
        return
    newest = Checkpoint.objects.order_by("-pk").values_list("size", "root").first()
    if newest is not None and (newest[0], bytes(newest[1])) == (outside.size, outside.root):
        return
    difference = difference_with(outside)
    if difference:
        alarm_raise(difference)
        raise Blocked(difference)


def difference_with(outside: ParsedCheckpoint) -> str:
    """What is wrong between the sealed log and a checkpoint from outside; "" when it is a state this log has had.

    A checkpoint that no key of this log signed proves nothing and is reported as such.
    """
    try:
        keyring().signer(outside)
    except KeyRefused as error:
        return f"The copy outside does not count: {error}"
    size = sealed_count()
    if outside.size > size:
        missing = outside.size - size
        return f"The copy outside has {outside.size} events, this database {size}: {missing} are missing here."
    if StoredTree().root(outside.size) != outside.root:
        return f"The first {outside.size} events here are not those of the copy outside."
    return ""
