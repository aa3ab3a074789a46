"""An audit event in words: a sentence, its reason, and its data as what was before and after."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

if TYPE_CHECKING:
    from pld_app.models import AuditEvent

# Where the general form, "<actor> <verb> <noun> of <object>", would not be how people say it. %(what)s is the object.
_PHRASES: dict[str, str | Promise] = {
    "login.succeeded": gettext_lazy("signed in"),
    "login.failed": gettext_lazy("failed to sign in"),
    "login.ended": gettext_lazy("signed out"),
    "login.locked": gettext_lazy("was locked out after wrong sign-ins"),
    "signature.locked": gettext_lazy("was locked out of signing after wrong proofs"),
    "account.reauthenticated": gettext_lazy("proved who they are"),
    "signature.refused": gettext_lazy("failed to prove who they are"),
    "account.consented": gettext_lazy("accepted what an electronic signature means"),
    "account.role_changed": gettext_lazy("changed the role of %(what)s"),
    "account.password_set": gettext_lazy("set the password of %(what)s"),
    "account.sessions_ended": gettext_lazy("ended the other sessions of %(what)s"),
    "audit.searched": gettext_lazy("searched the audit log"),
    "audit.viewed": gettext_lazy("read an event of the audit log"),
    "audit.exported": gettext_lazy("exported from the audit log"),
    "access_review.exported": gettext_lazy("exported the access review"),
    "audit_alarm.cleared": gettext_lazy("cleared the alarm of the audit log"),
    "retention.proposed": gettext_lazy("proposed another retention period instead of %(what)s"),
    "retention.pruned": gettext_lazy("removed texts whose time was over under %(what)s"),
    "hold.placed": gettext_lazy("placed a legal hold"),
    "erasure.requested": gettext_lazy("asked to erase personal texts"),
    "release.published": gettext_lazy("published %(what)s"),
    "stop.made": gettext_lazy("made an emergency stop in %(what)s"),
    "stop.overdue": gettext_lazy("noted that the second signature under a stop in %(what)s is overdue"),
    "instruction.sent_back": gettext_lazy("sent %(what)s back"),
    "instruction.taken_over": gettext_lazy("took %(what)s over"),
    "instruction.tagged": gettext_lazy("put a tag on %(what)s"),
    "instruction.untagged": gettext_lazy("took a tag off %(what)s"),
    "pair.kept": gettext_lazy("compared %(what)s with another and keeps both"),
    "ruleset.rule_read": gettext_lazy("opened a rule of %(what)s before signing"),
}
# The past verbs of the other actions; one that only another version knows reads as it was written.
_VERBS: dict[str, str | Promise] = {
    "acknowledged": pgettext_lazy("deed", "acknowledged"),
    "approved": pgettext_lazy("deed", "approved"),
    "assigned": pgettext_lazy("deed", "assigned"),
    "cancelled": pgettext_lazy("deed", "cancelled"),
    "changed": pgettext_lazy("deed", "changed"),
    "checked": pgettext_lazy("deed", "checked"),
    "confirmed": pgettext_lazy("deed", "confirmed"),
    "created": pgettext_lazy("deed", "created"),
    "deactivated": pgettext_lazy("deed", "closed"),
    "deferred": pgettext_lazy("deed", "deferred"),
    "deleted": pgettext_lazy("deed", "deleted"),
    "dismissed": pgettext_lazy("deed", "dismissed"),
    "disputed": pgettext_lazy("deed", "disputed"),
    "edited": pgettext_lazy("deed", "edited"),
    "ended": pgettext_lazy("deed", "ended"),
    "exported": pgettext_lazy("deed", "exported"),
    "finished": pgettext_lazy("deed", "finished"),
    "frozen": pgettext_lazy("deed", "froze"),
    "lifted": pgettext_lazy("deed", "lifted"),
    "made": pgettext_lazy("deed", "made"),
    "paused": pgettext_lazy("deed", "paused"),
    "placed": pgettext_lazy("deed", "placed"),
    "proposed": pgettext_lazy("deed", "proposed"),
    "pruned": pgettext_lazy("deed", "pruned"),
    "recorded": pgettext_lazy("deed", "recorded"),
    "refused": pgettext_lazy("deed", "refused"),
    "rejected": pgettext_lazy("deed", "rejected"),
    "released": pgettext_lazy("deed", "released"),
    "reopened": pgettext_lazy("deed", "reopened"),
    "requested": pgettext_lazy("deed", "requested"),
    "retired": pgettext_lazy("deed", "retired"),
    "revoked": pgettext_lazy("deed", "revoked"),
    "rotated": pgettext_lazy("deed", "rotated"),
    "saved": pgettext_lazy("deed", "saved"),
    "scheduled": pgettext_lazy("deed", "scheduled"),
    "set": pgettext_lazy("deed", "set"),
    "signed": pgettext_lazy("deed", "signed"),
    "started": pgettext_lazy("deed", "started"),
    "unassigned": pgettext_lazy("deed", "unassigned"),
    "undone": pgettext_lazy("deed", "took back"),
    "uploaded": pgettext_lazy("deed", "uploaded"),
    "withdrawn": pgettext_lazy("deed", "withdrew"),
}
_REASONS = ("reason", "note", "why", "cause")


def event_sentence(event: "AuditEvent") -> str:
    """`Ana approved instruction “#4”`: actor, deed, object. Names are text of others and stay as they are."""
    what = _("%(kind)s “%(label)s”") % {"kind": event.object_kind, "label": event.object_label}
    phrase = _PHRASES.get(event.action)
    if phrase is not None:
        return f"{event.actor_name} {str(phrase).replace('%(what)s', what)}"
    noun, _dot, past = event.action.partition(".")
    verb = str(_VERBS.get(past, past.replace("_", " ") or noun))
    if noun in {event.object_type, _NOUNS.get(event.object_type)} or not past:
        return f"{event.actor_name} {verb} {what}"
    about = _("%(noun)s of %(what)s") % {"noun": noun.replace("_", " "), "what": what}
    return f"{event.actor_name} {verb} {about}"


# What actions call an object whose type is named otherwise.
_NOUNS = {
    "user": "account",
    "miningrun": "mining",
    "traceimport": "import",
    "evaluationrun": "evaluation",
    "rungroup": "comparison",
    "modelendpoint": "endpoint",
    "prompttoken": "token",
    "webhooktarget": "webhook",
    "savedview": "saved_view",
    "inputtemplate": "input_template",
    "legalhold": "hold",
    "retentionpolicy": "retention",
}


def event_reason(event: "AuditEvent") -> str:
    data = event.data if isinstance(event.data, dict) else {}
    return next((str(data[name]) for name in _REASONS if isinstance(data.get(name), str) and data[name]), "")


@dataclass(frozen=True)
class Change:
    """One fact of an event; `before` is None when it has no earlier value."""

    name: str
    value: Any
    before: Any = None


def event_changes(event: "AuditEvent") -> Iterator[Change]:
    """The facts of an event in order: `before` and `after` (also `x_before` and `x_after`) come as one row."""
    data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
    for name, value in data.items():
        stem, is_before = _stem(name, "before")
        if is_before and f"{stem}after" in data:
            continue
        stem, is_after = _stem(name, "after")
        before = data.get(f"{stem}before") if is_after else None
        shown = stem.rstrip("_") or event.action.partition(".")[2].replace("_", " ") if is_after else name
        yield Change(shown if before is not None else name, value, before)


def _stem(name: str, ending: str) -> tuple[str, bool]:
    if name == ending or name.endswith(f"_{ending}"):
        return name[: -len(ending)], True
    return name, False
