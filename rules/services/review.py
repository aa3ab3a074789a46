"""What a reviewer does to an instruction: each action one transaction, one decision, one audit event."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, Role, User
from rules.exceptions import InvalidTransition, Stale
from rules.hidden_text import hidden_in
from rules.models import (
    Decision,
    DecisionKind,
    Instruction,
    InstructionStatus,
    Revision,
    Ruleset,
    RulesetStatus,
    Waiting,
)
from rules.services.refusals import database_refusals
from rules.services.review_input import note_text, plain_newlines, reason_code, rule_text
from rules.transitions import instruction_move

_ACTIONS = {
    DecisionKind.APPROVE: "instruction.approved",
    DecisionKind.EDIT: "instruction.edited",
    DecisionKind.REJECT: "instruction.rejected",
    DecisionKind.DEFER: "instruction.deferred",
    DecisionKind.SEND_BACK: "instruction.sent_back",
    DecisionKind.REOPEN: "instruction.reopened",
}
_DECIDED = frozenset({InstructionStatus.APPROVED, InstructionStatus.REJECTED})


@dataclass(frozen=True, slots=True)
class Reopened:
    """An instruction put back into review, and the numbers of the unreleased rulesets this withdrew."""

    instruction: Instruction
    withdrawn: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Review:
    """A locked instruction in one reviewer's hands, and where it stood before."""

    instruction: Instruction
    reviewer: User
    revision: Revision
    from_status: str
    from_waiting: str

    def demand_open(self) -> None:
        if not self.instruction.is_open:
            status = str(InstructionStatus(self.from_status).label).lower()
            message = _("This instruction is already %(status)s. Reopen it to decide again.")
            raise InvalidTransition(message % {"status": status})

    def decide(self, kind: DecisionKind, said: Mapping[str, Json]) -> None:
        """Record event and decision on the present text, under the version the row is about to have."""
        event = self.event(kind, self.revision.number, self.revision.text_sha256, said)
        self.decision(kind, event, self.revision, said)

    def event(self, kind: DecisionKind, revision: int, text_sha256: str, said: Mapping[str, Json]) -> AuditEvent:
        data: dict[str, Json] = {
            "number": self.instruction.number,
            "revision": revision,
            "text_sha256": text_sha256,
            "from_status": self.from_status,
            "from_waiting": self.from_waiting,
            "version": self.instruction.version + 1,
            **{key: value for key, value in said.items() if value not in ("", [])},
        }
        return audit_record(
            _ACTIONS[kind],
            actor=self.reviewer,
            subject=self.instruction,
            data=data,
            task_slug=self.instruction.task.slug,
        )

    def decision(self, kind: DecisionKind, event: AuditEvent, revision: Revision, said: Mapping[str, Json]) -> None:
        Decision.objects.create(
            instruction=self.instruction,
            revision=revision,
            kind=kind,
            reason=str(said.get("reason", "")),
            note=str(said.get("note", "")),
            actor=self.reviewer,
            event=event,
        )

    def save(self, status: InstructionStatus, waiting: str) -> None:
        """Move and write the row; approval and its time follow from the status, the text stays or is the new one."""
        row = self.instruction
        instruction_move(row, status)
        row.waiting = waiting
        row.approved_revision = row.current_revision if status == InstructionStatus.APPROVED else None
        row.decided_at = timezone.now() if status in _DECIDED else None
        row.version += 1
        row.save(
            update_fields=["status", "waiting", "current_revision", "approved_revision", "decided_at", "version"],
        )


def instruction_approve(*, instruction_id: int, reviewer: User, version: int, note: str = "") -> Instruction:
    """Approve the present text.

    Refuses its author, a decided instruction, a page opened on an older version, and a text with invisible characters.
    """
    said = {"note": note_text(note)}
    with _locked(instruction_id, reviewer, version) as review:
        review.demand_open()
        if review.revision.author_id == reviewer.pk:
            raise NotAllowed(_("This text is your own edit: another reviewer approves it. Go on to the next one."))
        hidden = hidden_in(review.revision.text)
        if hidden:
            message = _("This text holds invisible characters (%(codes)s). Edit it to take them out, or reject it.")
            raise InvalidInput(message % {"codes": ", ".join(hidden[:5])})
        # Decision before status: the database takes no approval that has none.
        review.decide(DecisionKind.APPROVE, said)
        review.save(InstructionStatus.APPROVED, "")
    return review.instruction


def instruction_edit(*, instruction_id: int, reviewer: User, version: int, text: str, note: str = "") -> Instruction:
    """Put a new text in place of the present one and endorse it; a second reviewer must approve it.

    Refuses an empty, unchanged or overlong text (4,000 characters) and one with invisible characters.
    """
    text, said = rule_text(text), {"note": note_text(note)}
    with _locked(instruction_id, reviewer, version) as review:
        review.demand_open()
        if text == plain_newlines(review.revision.text):
            raise InvalidInput(_("The text is unchanged. Edit it, or approve it as it is."))
        number, digest = review.revision.number + 1, sha256_hex(text)
        event = review.event(DecisionKind.EDIT, number, digest, said)
        revision = Revision.objects.create(
            instruction=review.instruction, number=number, text=text, text_sha256=digest, author=reviewer, event=event
        )
        review.instruction.current_revision = revision
        # Here the decision comes last: it names the new text, which must be the current one by then.
        review.save(InstructionStatus.IN_REVIEW, Waiting.SECOND_REVIEWER)
        review.decision(DecisionKind.EDIT, event, revision, said)
    return review.instruction


def instruction_reject(
    *, instruction_id: int, reviewer: User, version: int, reason: str, note: str = ""
) -> Instruction:
    """Reject the present text for a reason (a ReasonCode; "other" needs a note)."""
    note = note_text(note)
    said = {"reason": reason_code(reason, note), "note": note}
    with _locked(instruction_id, reviewer, version) as review:
        review.demand_open()
        review.decide(DecisionKind.REJECT, said)
        review.save(InstructionStatus.REJECTED, "")
    return review.instruction


def instruction_defer(*, instruction_id: int, reviewer: User, version: int, note: str = "") -> Instruction:
    """Set it aside for later; it stays open, and any reviewer may decide it."""
    said = {"note": note_text(note)}
    with _locked(instruction_id, reviewer, version) as review:
        review.demand_open()
        if review.from_waiting == Waiting.DEFERRED:
            raise InvalidTransition(_("This instruction is already deferred. Go on to the next one."))
        review.decide(DecisionKind.DEFER, said)
        review.save(InstructionStatus.IN_REVIEW, Waiting.DEFERRED)
    return review.instruction


def instruction_send_back(
    *, instruction_id: int, reviewer: User, version: int, reason: str, note: str = ""
) -> Instruction:
    """Return an edit to its author, or a mined text to all reviewers, with a reason; it stays open."""
    note = note_text(note)
    said = {"reason": reason_code(reason, note), "note": note}
    with _locked(instruction_id, reviewer, version) as review:
        review.demand_open()
        if review.from_waiting == Waiting.SENT_BACK:
            raise InvalidTransition(_("This instruction has already been sent back. Go on to the next one."))
        if review.revision.author_id == reviewer.pk:
            raise NotAllowed(_("This text is your own edit: edit it again instead of sending it back to yourself."))
        review.decide(DecisionKind.SEND_BACK, said)
        review.save(InstructionStatus.IN_REVIEW, Waiting.SENT_BACK)
    return review.instruction


def instruction_reopen(*, instruction_id: int, reviewer: User, version: int, note: str) -> Reopened:
    """Put a decided instruction back into review; the note says why.

    Rulesets that hold its text and are not released are withdrawn; the answer names them.
    """
    note = note_text(note)
    if not note:
        raise InvalidInput(_("Say why you reopen it."))
    with _locked(instruction_id, reviewer, version) as review:
        if review.from_status not in _DECIDED:
            raise InvalidTransition(_("This instruction is still in review: there is nothing to reopen."))
        return _reopen(review, Waiting.SECOND_REVIEWER if review.revision.author_id else "", {"note": note})


def instruction_undo(*, instruction_id: int, reviewer: User, version: int) -> Reopened:
    """Take back one's own last decision, as long as nothing has happened to the instruction since.

    Approve and reject are reopened, defer and send back cleared. An edit is not undone: its text is on record.
    """
    with _locked(instruction_id, reviewer, version) as review:
        last = review.instruction.decisions.select_related("event").first()
        if last is None or last.actor_id != reviewer.pk or last.event.data.get("version") != version:
            raise InvalidTransition(_("There is nothing of yours to undo here: something else has happened since."))
        if last.kind in {DecisionKind.EDIT, DecisionKind.REOPEN}:
            raise InvalidTransition(_("An edit or a reopening cannot be undone. Edit again, or decide anew."))
        return _reopen(review, str(last.event.data["from_waiting"]), {"undone": last.kind})


@contextmanager
def _locked(instruction_id: int, reviewer: User, version: int) -> Iterator[_Review]:
    """The instruction under its row lock, in a transaction, and checked to be what the reviewer saw.

    A database guard that refuses is a refusal in words here; anything else that breaks stays an error.
    """
    if not reviewer.is_active or reviewer.role != Role.REVIEWER:
        raise NotAllowed
    with database_refusals(), transaction.atomic():
        # Lock first: two reviewers may decide at the same moment, and the second must be refused.
        rows = Instruction.objects.select_for_update(of=("self",)).select_related("task", "current_revision")
        row = rows.get(pk=instruction_id)
        if row.version != version:
            raise Stale
        if row.current_revision is None:
            raise InvalidTransition(_("This instruction has no text yet."))
        yield _Review(row, reviewer, row.current_revision, row.status, row.waiting)


def _reopen(review: _Review, waiting: str, said: Mapping[str, Json]) -> Reopened:
    holding = _rulesets_holding(review.instruction)
    if review.from_status in _DECIDED:
        review.decide(DecisionKind.REOPEN, said)
    else:
        # The decision table knows no reopening of what is still open: this lifts a deferral, and the event says so.
        review.event(DecisionKind.REOPEN, review.revision.number, review.revision.text_sha256, said)
    review.save(InstructionStatus.IN_REVIEW, waiting)
    withdrawn = Ruleset.objects.filter(pk__in=[ruleset.pk for ruleset in holding], status=RulesetStatus.WITHDRAWN)
    numbers = tuple(_withdrawal_recorded(ruleset, review) for ruleset in withdrawn.order_by("number"))
    return Reopened(review.instruction, numbers)


def _rulesets_holding(instruction: Instruction) -> list[Ruleset]:
    """Frozen rulesets with its text, locked: none is released between this look and the trigger that withdraws them."""
    frozen = [RulesetStatus.IN_SIGN_OFF, RulesetStatus.SIGNED]
    rulesets = Ruleset.objects.filter(items__instruction=instruction, status__in=frozen).only("pk")
    return list(rulesets.order_by("pk").select_for_update(of=("self",)))


def _withdrawal_recorded(ruleset: Ruleset, review: _Review) -> int:
    """The trigger moved the row; the event of that move belongs in the same transaction."""
    data: dict[str, Json] = {
        "number": ruleset.number,
        "manifest_sha256": ruleset.manifest_sha256,
        "instruction": review.instruction.number,
        "reason": ruleset.withdrawn_reason,
        "released": False,
    }
    slug = review.instruction.task.slug
    audit_record("ruleset.withdrawn", actor=review.reviewer, subject=ruleset, data=data, task_slug=slug)
    return ruleset.number
