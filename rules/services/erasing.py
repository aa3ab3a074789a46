"""Erasing personal texts: one administrator asks, another person confirms, and the database itself erases."""

from collections.abc import Sequence

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, WrongState
from pld_app.models import Reauthentication, Role, User
from pld_app.notifications import kind_register, notify
from pld_app.reauthentication import Proof, reauthenticate
from rules.models import Erasure, ErasureDecision, ErasureItem, ErasureKind, PolicyVerdict
from rules.selectors.retention import Text, text_to_erase
from rules.services.refusals import database_refusals
from rules.services.retention import DECIDERS, require_second

MOST_ITEMS = 500

kind_register(
    "erasure.requested",
    label=gettext_lazy("An erasure waits for a second person"),
    text=gettext_lazy("%(by)s asks to erase %(count)s texts. Another administrator or a signatory decides."),
)


def texts_to_erase(kind: str, numbers: Sequence[int]) -> list[Text]:
    """The texts as they stand. Raises InvalidInput naming what is not there, erased already, held, or too much."""
    if kind not in ErasureKind.values or not numbers:
        raise InvalidInput(_("Choose what to erase and give its numbers."))
    if len(numbers) > MOST_ITEMS:
        raise InvalidInput(_("At most %(n)s texts in one erasure. Ask for the others in another.") % {"n": MOST_ITEMS})
    found = {number: text_to_erase(kind, number) for number in dict.fromkeys(numbers)}
    missing = [str(number) for number, text in found.items() if text is None]
    if missing:
        words = _("There is nothing to erase under %(numbers)s: unknown, erased already, or (accounts) still open.")
        raise InvalidInput(words % {"numbers": ", ".join(missing[:10])})
    return [text for text in found.values() if text is not None]


@database_refusals()
@transaction.atomic
def erasure_request(*, kind: str, numbers: Sequence[int], reason: str, actor: User) -> Erasure:
    """Ask for an erasure; nothing is erased before another person confirms. `reason` names the ground in law.

    Write no name into it: the reason of an erasure stays.
    """
    require_role(actor, Role.ADMIN)
    if not reason.strip():
        raise InvalidInput(_("Say on what ground it is erased."))
    texts = texts_to_erase(kind, numbers)
    if any(text.is_held for text in texts):
        raise WrongState(_("A legal hold covers this. It is released first, or the text stays."))
    data: dict[str, Json] = {
        "kind": kind,
        "numbers": [text.object_id for text in texts],
        "reason": reason.strip()[:300],
    }
    event = audit_record("erasure.requested", actor=actor, subject=actor, data=data)
    erasure = Erasure.objects.create(
        actor=actor, actor_name=str(actor), actor_role=actor.role, reason=reason.strip()[:300], event=event
    )
    ErasureItem.objects.bulk_create(
        [ErasureItem(erasure=erasure, kind=kind, object_id=text.object_id, sha256=text.sha256) for text in texts]
    )
    others = User.objects.filter(is_active=True, role__in=DECIDERS).exclude(pk=actor.pk)
    url = f"/retention/erasures/{erasure.pk}/"
    notify(others, "erasure.requested", url=url, by=str(actor), count=str(len(texts)))
    return erasure


def erasure_decide(*, erasure_id: int, actor: User, verdict: str, proof: Proof) -> ErasureDecision:
    """Confirm, which erases at once and for good, or refuse; after proving again who one is.

    Raises NotAllowed for who asked for it, WrongState when it was decided, is held, or the texts changed since.
    """
    erasure = Erasure.objects.get(pk=erasure_id)
    require_second(actor, erasure.actor_id, verdict)
    if ErasureDecision.objects.filter(erasure=erasure).exists():
        raise WrongState(_("This was decided already. Reload to see how."))
    proved = reauthenticate(actor=actor, proof=proof, purpose="erasure", subject=erasure)
    return _decide(erasure, actor, verdict, proved)


@database_refusals()
@transaction.atomic
def _decide(erasure: Erasure, actor: User, verdict: str, proved: Reauthentication) -> ErasureDecision:
    data: dict[str, Json] = {"erasure": erasure.pk, "request": erasure.event_id}
    if verdict == PolicyVerdict.CONFIRMED:
        # With the hashes that the sealed bodies have: whoever verifies the log finds here what is missing there.
        events = erasure.items.filter(kind=ErasureKind.EVENT).order_by("object_id")
        data["events"] = [[item.object_id, item.sha256] for item in events]
        data["others"] = erasure.items.exclude(kind=ErasureKind.EVENT).count()
    event = audit_record(f"erasure.{verdict}", actor=actor, subject=erasure, data=data)
    return ErasureDecision.objects.create(
        erasure=erasure,
        verdict=verdict,
        actor=actor,
        actor_name=str(actor),
        actor_role=actor.role,
        reauthentication=proved,
        event=event,
    )
