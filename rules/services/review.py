"""What a reviewer does to an instruction: each action one transaction, one decision, one audit event."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, Role, User
from rules.diff import risks_digest, risky_changes
from rules.exceptions import InvalidTransition, Stale
from rules.hidden_text import hidden_in
from rules.models import (
    CardLook,
    Claim,
    Decision,
    DecisionKind,
    Draft,
    Instruction,
    InstructionStatus,
    Revision,
    Ruleset,
    RulesetStatus,
    Verdict,
    Waiting,
)
from rules.selectors.bulk import signed_among
from rules.services.attention import judgement_keep, look_facts, look_of
from rules.services.claims import Held, running_claim_of_another
from rules.services.double_review import Weight, judgement_weigh, opinion_undo
from rules.services.notices import readiness_demand
from rules.services.refusals import database_refusals
from rules.services.review_input import note_text, plain_newlines, reason_code, rule_text
from rules.services.seed_answers import seed_answered
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
    look: CardLook | None

    def demand_open(self) -> None:
        if not self.instruction.is_open:
            status = str(InstructionStatus(self.from_status).label).lower()
            message = _("This instruction is already %(status)s. Reopen it to decide again.")
            raise InvalidTransition(message % {"status": status})

    def decide(self, kind: DecisionKind, said: Mapping[str, Json]) -> None:
        """Record event and decision on the present text, under the version the row is about to have."""
        event = self.event(kind, self.revision.number, self.revision.text_sha256, said)
        self.decision(kind, event, self.revision, said)
        if kind != DecisionKind.REOPEN:
            self.keep(kind, event)

    def judge(self, kind: DecisionKind, verdict: Verdict, status: InstructionStatus, said: Mapping[str, Json]) -> None:
        """Approve or reject: alone where one reviewer is enough, else as an opinion beside another's.

        A first opinion leaves the instruction as it is, so that nothing betrays it to the second reviewer.
        """
        weighed = judgement_weigh(
            instruction=self.instruction, revision=self.revision, reviewer=self.reviewer, verdict=verdict, said=said
        )
        if weighed.event is not None:
            self.keep(kind, weighed.event)
        if weighed.weight is Weight.WAITS:
            # The row stays as it is, but not in this person's hands: another decides next.
            self.release()
        if weighed.weight is Weight.DISPUTES:
            self.dispute()
        if weighed.weight is Weight.DECIDES:
            # Decision before status: the database takes no approval that has none.
            event = self.event(kind, self.revision.number, self.revision.text_sha256, said)
            self.decision(kind, event, self.revision, said)
            if weighed.event is None:
                self.keep(kind, event)
            self.save(status, "")

    def dispute(self) -> None:
        """Two opinions differ: a third person, or a new text, settles it."""
        audit_record(
            "instruction.disputed",
            actor=self.reviewer,
            subject=self.instruction,
            task_slug=self.instruction.task.slug,
            data={
                "number": self.instruction.number,
                "revision": self.revision.number,
                "version": self.instruction.version + 1,
            },
        )
        self.save(InstructionStatus.IN_REVIEW, Waiting.DISPUTED)

    def keep(self, kind: DecisionKind, event: AuditEvent) -> None:
        """Keep how this judgement was made: what had been seen, and how long it took."""
        judgement_keep(
            event=event,
            instruction=self.instruction,
            revision=self.revision,
            user=self.reviewer,
            kind=kind,
            look=self.look,
        )
        if self.instruction.is_seeded:
            reason = str(event.data.get("reason", ""))
            seed_answered(revision=self.revision, reviewer=self.reviewer, kind=kind, reason=reason, event=event)

    def demand_undisputed(self) -> None:
        if self.from_waiting == Waiting.DISPUTED:
            raise InvalidTransition(_("Two reviewers disagree on this. A third settles it, or a new text does."))

    def event(self, kind: DecisionKind, revision: int, text_sha256: str, said: Mapping[str, Json]) -> AuditEvent:
        data: dict[str, Json] = {
            "number": self.instruction.number,
            "revision": revision,
            "text_sha256": text_sha256,
            "from_status": self.from_status,
            "from_waiting": self.from_waiting,
            "version": self.instruction.version + 1,
            **{key: value for key, value in said.items() if value not in ("", [])},
            **look_facts(self.look),
        }
        return audit_record(
            _ACTIONS[kind],
            actor=self.reviewer,
            subject=self.instruction,
            data=data,
            task_slug=self.instruction.task.slug,
        )

    def rewrite(self, text: str, said: Mapping[str, Json]) -> tuple[AuditEvent, Revision]:
        """Make `text` the present one, as this reviewer's revision; the caller saves the row."""
        number, digest = self.revision.number + 1, sha256_hex(text)
        event = self.event(DecisionKind.EDIT, number, digest, said)
        revision = Revision.objects.create(
            instruction=self.instruction,
            number=number,
            text=text,
            text_sha256=digest,
            author=self.reviewer,
            event=event,
        )
        self.instruction.current_revision = revision
        return event, revision

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
        self.release()

    def release(self) -> None:
        """Whoever had it in hand is done with it: what it now waits for is for the next one to take."""
        Claim.objects.filter(instruction=self.instruction).delete()


def of_batch(batch: int | None) -> dict[str, Json]:
    """What the event of a decision says of the bulk action it is part of: nothing where there is none."""
    return {} if batch is None else {"batch": batch}


def instruction_approve(
    *, instruction_id: int, reviewer: User, version: int, note: str = "", batch: int | None = None
) -> Instruction:
    """Approve the present text.

    Refuses its author, a decided instruction, a page opened on an older version, and a text with invisible characters.
    """
    said = {"note": note_text(note), **of_batch(batch)}
    with _locked(instruction_id, reviewer, version) as review:
        review.demand_open()
        if review.revision.author_id == reviewer.pk:
            raise NotAllowed(_("This text is your own edit: another reviewer approves it. Go on to the next one."))
        hidden = hidden_in(review.revision.text)
        if hidden:
            message = _("This text holds invisible characters (%(codes)s). Edit it to take them out, or reject it.")
            raise InvalidInput(message % {"codes": ", ".join(hidden[:5])})
        review.judge(DecisionKind.APPROVE, Verdict.APPROVE, InstructionStatus.APPROVED, said)
    return review.instruction


class UnreadWarnings(InvalidInput):
    """The edit is dangerous in a way its sender has not been shown; sent again with the warnings read, it is saved."""

    user_message = _lazy("This edit changes words that decide much. Read the warnings; save again if you mean it.")


def instruction_edit(
    *, instruction_id: int, reviewer: User, version: int, text: str, note: str = "", seen: str | None = None
) -> Instruction:
    """Put a new text in place of the present one and endorse it; a second reviewer must approve it.

    Refuses an empty, unchanged or overlong text (4,000 characters) and one with invisible characters. `seen` names the
    warnings its sender has read (rules.diff.risks_digest); an edit with others is refused, once. None: not asked.
    """
    text, said = rule_text(text), {"note": note_text(note)}
    with _locked(instruction_id, reviewer, version) as review:
        review.demand_open()
        if text == plain_newlines(review.revision.text):
            raise InvalidInput(_("The text is unchanged. Edit it, or approve it as it is."))
        if seen is not None:
            risks = risky_changes(plain_newlines(review.revision.text), text, review.instruction.task.labels)
            if risks_digest(risks) not in {"", seen}:
                raise UnreadWarnings
        event, revision = review.rewrite(text, said)
        # Here the decision comes last: it names the new text, which must be the current one by then.
        review.save(InstructionStatus.IN_REVIEW, Waiting.SECOND_REVIEWER)
        review.decision(DecisionKind.EDIT, event, revision, said)
        review.keep(DecisionKind.EDIT, event)
        Draft.objects.filter(instruction=review.instruction, user=reviewer).delete()
    return review.instruction


def instruction_reject(
    *, instruction_id: int, reviewer: User, version: int, reason: str, note: str = "", batch: int | None = None
) -> Instruction:
    """Reject the present text for a reason (a ReasonCode; "other" needs a note)."""
    note = note_text(note)
    said = {"reason": reason_code(reason, note), "note": note, **of_batch(batch)}
    with _locked(instruction_id, reviewer, version) as review:
        review.demand_open()
        review.judge(DecisionKind.REJECT, Verdict.REJECT, InstructionStatus.REJECTED, said)
    return review.instruction


def instruction_defer(
    *, instruction_id: int, reviewer: User, version: int, note: str = "", batch: int | None = None
) -> Instruction:
    """Set it aside for later; it stays open, and any reviewer may decide it."""
    said = {"note": note_text(note), **of_batch(batch)}
    with _locked(instruction_id, reviewer, version) as review:
        review.demand_open()
        if review.from_waiting == Waiting.DEFERRED:
            raise InvalidTransition(_("This instruction is already deferred. Go on to the next one."))
        review.demand_undisputed()
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
        review.demand_undisputed()
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


def instruction_undo(*, instruction_id: int, reviewer: User, version: int, batch: int | None = None) -> Reopened:
    """Take back one's own last decision on an instruction, as long as nothing has happened to it since.

    Approve and reject are reopened, defer and send back cleared. An edit is undone by a new revision with the text
    before it: texts on record never go. That revision has the reviewer as its author, so a colleague approves it,
    even where the words are the mined ones again. Refused once a signature stands over the text.
    """
    with _locked(instruction_id, reviewer, version) as review:
        if opinion_undo(instruction=review.instruction, reviewer=reviewer, said=of_batch(batch)):
            return Reopened(review.instruction)
        last = review.instruction.decisions.select_related("event", "revision").first()
        if last is None or last.actor_id != reviewer.pk or last.event.data.get("version") != version:
            raise InvalidTransition(_("There is nothing of yours to undo here: something else has happened since."))
        if last.kind == DecisionKind.REOPEN:
            raise InvalidTransition(_("A reopening cannot be undone. Decide anew."))
        if last.kind == DecisionKind.EDIT:
            return _undo_edit(review, last)
        if signed_among([last.revision_id]):
            raise InvalidTransition(_("Somebody has signed for this text. Reopen it, and say why."))
        return _reopen(review, str(last.event.data["from_waiting"]), {"undone": last.kind, **of_batch(batch)})


def _undo_edit(review: _Review, edit: Decision) -> Reopened:
    before = review.instruction.revisions.get(number=edit.revision.number - 1)
    review.rewrite(before.text, {"undone": DecisionKind.EDIT, "restored": before.number})
    # No decision: taking an edit back endorses nothing.
    review.save(InstructionStatus.IN_REVIEW, Waiting.SECOND_REVIEWER)
    return Reopened(review.instruction)


@contextmanager
def _locked(instruction_id: int, reviewer: User, version: int) -> Iterator[_Review]:
    """The instruction under its row lock, in a transaction, and checked to be what the reviewer saw.

    A database guard that refuses is a refusal in words here; anything else that breaks stays an error.
    """
    require_role(reviewer, Role.REVIEWER)
    with database_refusals(), transaction.atomic():
        # Lock first: two reviewers may decide at the same moment, and the second must be refused.
        rows = Instruction.objects.select_for_update(of=("self",)).select_related("task", "current_revision")
        row = rows.get(pk=instruction_id)
        if row.version != version:
            raise Stale
        if row.current_revision is None:
            raise InvalidTransition(_("This instruction has no text yet."))
        held = running_claim_of_another(row, reviewer)
        if held is not None:
            message = _("%(name)s is working on this instruction. Take it over, or go on to the next one.")
            raise Held(message % {"name": held.holder})
        readiness_demand(instruction=row, reviewer=reviewer)
        look = look_of(row, reviewer)
        yield _Review(row, reviewer, row.current_revision, row.status, row.waiting, look)


def _reopen(review: _Review, waiting: str, said: Mapping[str, Json]) -> Reopened:
    holding = _rulesets_holding(review.instruction)
    if waiting == Waiting.DISPUTED:
        # Reopening voids the opinions that differed: two new ones are needed, and nothing is in dispute.
        waiting = Waiting.SECOND_REVIEWER if review.revision.author_id else ""
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
