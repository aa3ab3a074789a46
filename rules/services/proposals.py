"""What conflict resolution hands to review: texts proposed for standing instructions, and new candidates.

Nothing here changes an instruction's text: `proposal_add` and `candidate_add` run in the transaction of the round that
made them, which writes the audit event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput
from pld_app.models import Role, User
from rules.exceptions import InvalidTransition
from rules.models import (
    Evidence,
    EvidenceRole,
    Instruction,
    InstructionOrigin,
    InstructionStatus,
    Revision,
    RunMatch,
    Task,
    TextProposal,
    Waiting,
)
from rules.services.mining_flags import FlagJson
from rules.services.refusals import database_refusals
from rules.services.review_input import note_text, rule_text
from rules.services.seeds import numbers_with_gaps


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a proposal comes from: numbers of the loop and its round, and the model that wrote it."""

    loop: int
    round: int
    resolver: str


@dataclass(frozen=True, kw_only=True)
class CandidateText:
    """A new instruction to be: `traces` are those it rests on (keys), as far as its examples are traces."""

    label: str
    text: str
    provenance: Mapping[str, object]
    flags: Sequence[FlagJson] = ()
    traces: Sequence[int] = ()
    topic: str = ""
    domain: str = ""
    support: int = 0


@dataclass(frozen=True)
class Added:
    """A row, or why there is none."""

    row: TextProposal | Instruction | None = field(default=None)
    why_not: str = ""


def texts_known(instruction: Instruction) -> set[str]:
    """SHA-256 of each text that was this instruction's, or was proposed for it: none of them is proposed again."""
    dismissed = RunMatch.objects.filter(instruction=instruction, dismissed_at__isnull=False)
    return {
        *instruction.revisions.values_list("text_sha256", flat=True),
        *instruction.proposals.values_list("text_sha256", flat=True),
        *(sha256_hex(text) for text in dismissed.values_list("proposed_text", flat=True)),
    }


def proposal_add(
    *, instruction_id: int, base_id: int, text: str, reason: str, flags: Sequence[FlagJson], source: Source
) -> Added:
    """Put a text beside the one that stands, in the caller's transaction; none if it is known, or that one has gone."""
    # Lock first: a reviewer may give it a new text at this moment.
    row = Instruction.objects.select_for_update(of=("self",)).get(pk=instruction_id)
    if row.current_revision_id != base_id or row.status in {InstructionStatus.REJECTED, InstructionStatus.SUPERSEDED}:
        return Added(why_not=_("The instruction has changed since it was measured."))
    if sha256_hex(text) in texts_known(row):
        return Added(why_not=_("The instruction has had this text, or a reviewer has seen it proposed already."))
    return Added(
        TextProposal.objects.create(
            instruction=row,
            base_id=base_id,
            text=text,
            text_sha256=sha256_hex(text),
            reason=reason,
            resolver=source.resolver,
            loop=source.loop,
            round=source.round,
            flags=list(flags),
        )
    )


def candidate_add(*, task: Task, candidate: CandidateText) -> Added:
    """A new instruction for the queue, in the caller's transaction; none when this label had that very text before."""
    if is_text_known(task, candidate.label, candidate.text):
        return Added(why_not=_("An instruction with this label has had this text already, whatever became of it."))
    row = _instruction_new(task, candidate, InstructionOrigin.RESOLUTION)
    _revision_first(row, candidate.text)
    row.save(update_fields=["current_revision"])
    return Added(row)


def is_text_known(task: Task, label: str, text: str) -> bool:
    """Whether an instruction of this label has ever had this text, rejected and superseded ones included."""
    rows = Revision.objects.filter(instruction__task=task, instruction__label=label, text_sha256=sha256_hex(text))
    return rows.exists()


@database_refusals()
@transaction.atomic
def candidate_write(*, task: Task, reviewer: User, candidate: CandidateText, note: str = "") -> Instruction:
    """A reviewer's own new instruction; its author endorses it by writing it, a second reviewer approves it.

    Raises InvalidInput for a label the task does not have, an empty, overlong or known text, or invisible characters.
    """
    require_role(reviewer, Role.REVIEWER)
    # One at a time is numbered.
    task = Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    text, note = rule_text(candidate.text), note_text(note)
    if candidate.label not in task.labels:
        raise InvalidInput(_("Choose one of the task's labels."))
    if is_text_known(task, candidate.label, text):
        raise InvalidInput(_("An instruction of this label with this very text is there already. Word it differently."))
    row = _instruction_new(task, candidate, InstructionOrigin.PERSON)
    data: dict[str, Json] = {
        "number": row.number,
        "revision": 1,
        "text_sha256": sha256_hex(text),
        "label": row.label,
        "version": row.version + 1,
        "written": True,
    }
    if note:
        data["note"] = note
    event = audit_record("instruction.edited", actor=reviewer, subject=row, task_slug=task.slug, data=data)
    _revision_first(row, text, author=reviewer, event_id=event.pk)
    row.status, row.waiting = InstructionStatus.IN_REVIEW, Waiting.SECOND_REVIEWER
    row.version += 1
    row.save(update_fields=["current_revision", "status", "waiting", "version"])
    return row


def _instruction_new(task: Task, candidate: CandidateText, origin: InstructionOrigin) -> Instruction:
    (number,) = numbers_with_gaps(task, 1)
    row = Instruction.objects.create(
        task=task,
        number=number,
        label=candidate.label,
        topic=candidate.topic[:200],
        domain=candidate.domain,
        origin=origin,
        provenance=dict(candidate.provenance),
        flags=list(candidate.flags),
        support=candidate.support,
    )
    Evidence.objects.bulk_create(
        Evidence(instruction=row, trace_id=trace, role=EvidenceRole.SUPPORTING, rank=rank, is_cited=True)
        for rank, trace in enumerate(candidate.traces, 1)
    )
    return row


def _revision_first(row: Instruction, text: str, *, author: User | None = None, event_id: int | None = None) -> None:
    row.current_revision = Revision.objects.create(
        instruction=row, number=1, text=text, text_sha256=sha256_hex(text), author=author, event_id=event_id
    )


@transaction.atomic
def proposal_dismiss(*, proposal_id: int, reviewer: User) -> TextProposal:
    """Put a proposed text aside for good: no loop proposes it for this instruction again."""
    require_role(reviewer, Role.REVIEWER)
    # Lock first: two reviewers may dismiss at the same moment, and one event is enough.
    rows = TextProposal.objects.select_for_update(of=("self",)).select_related("instruction__task")
    proposal = rows.get(pk=proposal_id)
    if proposal.is_settled:
        raise InvalidTransition(_("Nothing is proposed here any more. Reload to see what happened."))
    proposal.dismissed_at, proposal.dismissed_by = timezone.now(), reviewer
    proposal.save(update_fields=["dismissed_at", "dismissed_by"])
    row = proposal.instruction
    data: dict[str, Json] = {"number": row.number, "loop": proposal.loop, "text_sha256": proposal.text_sha256}
    audit_record("proposal.dismissed", actor=reviewer, subject=row, task_slug=row.task.slug, data=data)
    return proposal
