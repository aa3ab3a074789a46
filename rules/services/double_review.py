"""Two people for one decision: opinions that wait for each other, without either seeing the other's.

Which instructions need it is for the database to say (pld_double_bases); which outcome counts too (pld_double_outcome).
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.audit import Json, audit_record
from pld_app.errors import NotAllowed, WrongState
from pld_app.models import AuditEvent, User
from rules.models import DoubleReview, Instruction, Opinion, Revision, Verdict


class Weight(enum.Enum):
    """What a judgement does to the instruction."""

    DECIDES = "decides"
    WAITS = "waits"
    DISPUTES = "disputes"


@dataclass(frozen=True, slots=True)
class Weighed:
    weight: Weight
    # The event of the opinion this judgement became; None where one reviewer decides alone.
    event: AuditEvent | None = None


def double_bases(instruction: Instruction) -> list[str]:
    """Why two people decide on it, as the database works it out; empty where one is enough."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pld_double_bases(%s)", [instruction.pk])
        row = cursor.fetchone()
    return list(row[0]) if row else []


def double_in_force(instruction: Instruction, reviewer: User) -> DoubleReview | None:
    """The round of opinions on its present text; of a check item the reviewer's own."""
    reader = reviewer if instruction.is_seeded else None
    return DoubleReview.objects.filter(instruction=instruction, reader=reader, voided_at__isnull=True).first()


def judgement_weigh(
    *, instruction: Instruction, revision: Revision, reviewer: User, verdict: Verdict, said: Mapping[str, Json]
) -> Weighed:
    """Record the judgement as an opinion where two people decide, and say what follows. The caller holds the row lock.

    Raises WrongState for a second judgement of the same person, NotAllowed for an author's on their own edit.
    """
    double = double_in_force(instruction, reviewer)
    if double is None and not double_bases(instruction):
        return Weighed(Weight.DECIDES)
    if revision.author_id == reviewer.pk:
        raise NotAllowed(
            _("You endorsed this text by writing it; a colleague decides. Edit it again if you think otherwise.")
        )
    if double is None:
        double = _opened(instruction, revision, reviewer)
    given = list(double.opinions.all())
    if any(one.actor_id == reviewer.pk for one in given):
        raise WrongState(_("You have already decided on this; others decide now. Go on to the next one."))
    event = audit_record(
        "opinion.recorded",
        actor=reviewer,
        subject=double,
        task_slug=instruction.task.slug,
        data=_facts(instruction, revision) | {"verdict": verdict, "seat": len(given) + 1} | _said(said),
    )
    opinion = Opinion.objects.create(
        double=double,
        seat=len(given) + 1,
        actor=reviewer,
        verdict=verdict,
        reason=str(said.get("reason", "")),
        note=str(said.get("note", "")),
        event=event,
    )
    return Weighed(Weight.WAITS if instruction.is_seeded else _weight([*given, opinion]), event)


def _opened(instruction: Instruction, revision: Revision, reviewer: User) -> DoubleReview:
    double = DoubleReview.objects.create(
        instruction=instruction, revision=revision, reader=reviewer if instruction.is_seeded else None
    )
    if revision.author_id is not None and revision.event_id is not None:
        # Whoever wrote a text stands for it: their edit is the first opinion.
        Opinion.objects.create(
            double=double, seat=1, actor_id=revision.author_id, verdict=Verdict.APPROVE, event_id=revision.event_id
        )
    return double


def _weight(opinions: Sequence[Opinion]) -> Weight:
    if len(opinions) == 1:
        return Weight.WAITS
    if len(opinions) == 2 and opinions[0].verdict != opinions[1].verdict:
        return Weight.DISPUTES
    return Weight.DECIDES


def opinion_undo(*, instruction: Instruction, reviewer: User, said: Mapping[str, Json]) -> bool:
    """Take back one's own opinion while it waits for another; False where there is none. The caller holds the lock."""
    double = double_in_force(instruction, reviewer)
    if double is None or not instruction.is_open:
        return False
    own = [one for one in double.opinions.all() if one.event_id != _edit_event(instruction)]
    if len(own) != 1 or own[0].actor_id != reviewer.pk:
        return False
    revision = instruction.current_revision
    assert revision is not None
    facts = _facts(instruction, revision) | {"undone": own[0].verdict} | _said(said)
    audit_record("opinion.undone", actor=reviewer, subject=double, task_slug=instruction.task.slug, data=facts)
    double.voided_at, double.voided_why = timezone.now(), "undone"
    double.save(update_fields=["voided_at", "voided_why"])
    return True


def _edit_event(instruction: Instruction) -> int | None:
    return instruction.current_revision.event_id if instruction.current_revision else None


def _facts(instruction: Instruction, revision: Revision) -> dict[str, Json]:
    return {
        "instruction": instruction.number,
        "revision": revision.number,
        "text_sha256": revision.text_sha256,
    }


def _said(said: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in said.items() if value not in ("", [])}
