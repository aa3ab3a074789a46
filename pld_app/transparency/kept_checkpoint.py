"""A checkpoint that an auditor kept, compared with the log as it is now: a verdict in words."""

from dataclasses import dataclass

from django.utils.translation import gettext as _

from pld_app.transparency.keyring import KeyRefused
from pld_app.transparency.keys import keyring
from pld_app.transparency.note import MAX_BYTES, NoteError, ParsedCheckpoint, checkpoint_parse
from pld_app.transparency.tree import StoredTree, sealed_count


@dataclass(frozen=True)
class KeptVerdict:
    """`holds`: the present log begins with what the checkpoint covers. `words` say it, and what to do if not."""

    holds: bool
    title: str
    words: str


def kept_compare(text: str) -> KeptVerdict:
    """Whether the log of now has grown from this checkpoint: its signature, and the root at its size.

    Looks at the sealed tree as it is stored, in some dozen reads whatever its size. That the stored leaves are those of
    the events is what `verify_audit --checkpoint` shows, hashing everything again.
    """
    if len(text) > MAX_BYTES:
        return _no_checkpoint(_("It is longer than any checkpoint."))
    try:
        # What a mail or an editor did to the line ends is no change of the note.
        kept = checkpoint_parse(text.replace("\r\n", "\n").strip("\n") + "\n")
    except NoteError as error:
        return _no_checkpoint(str(error))
    try:
        signer = keyring().signer(kept)
    except KeyRefused as error:
        why = _("%(why)s Ask whoever runs this installation which key is the log's, on another way than this page.")
        return KeptVerdict(False, _("Not a checkpoint of this log"), why % {"why": error})
    size = sealed_count()
    if kept.size > size:
        words = _(
            "Your checkpoint covers %(kept)s events, the log here has %(size)s: %(missing)s are missing. An older "
            "backup may have been restored, or the log was cut. Keep your checkpoint and run verify_audit with it."
        )
        counts = {"kept": kept.size, "size": size, "missing": kept.size - size}
        return KeptVerdict(False, _("Events are missing here"), words % counts)
    if not _begins_with(kept):
        words = _(
            "The log here does not begin with the %(kept)s events of your checkpoint: it was changed. Keep your "
            "checkpoint, run verify_audit with it, and tell whoever answers for this installation."
        )
        return KeptVerdict(False, _("The log was changed"), words % {"kept": kept.size})
    words = _(
        "Key %(key)s signed it, and the log here begins with exactly its %(kept)s events; %(more)s came since. "
        "verify_audit with this checkpoint hashes every event again."
    )
    return KeptVerdict(
        True, _("Consistent"), words % {"key": signer.key_id, "kept": kept.size, "more": size - kept.size}
    )


def _begins_with(kept: ParsedCheckpoint) -> bool:
    try:
        return StoredTree().root(kept.size) == kept.root
    except KeyError:  # a hole in what is stored
        return False


def _no_checkpoint(why: str) -> KeptVerdict:
    words = _("%(why)s Paste the whole note, from the origin to the signature.")
    return KeptVerdict(False, _("This is no checkpoint"), words % {"why": why})
