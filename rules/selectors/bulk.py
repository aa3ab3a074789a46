"""What a bulk action would do to each of many instructions: the preview asks this, and the services ask it again.

All in a number of queries that does not grow with the rows. A reason is a prediction for the person: what a decision
meets in its own service and in the database is asked there once more.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from pld_app.models import Role, User
from rules.diff import risky_changes
from rules.hidden_text import hidden_in
from rules.models import (
    BatchAct,
    BatchItem,
    Claim,
    Decision,
    DecisionKind,
    Instruction,
    InstructionStatus,
    Opinion,
    ReviewPolicy,
    RulesetStatus,
    Signature,
    Task,
    Waiting,
)
from rules.selectors.review_guard import evidence_is_asked, pause_of, withheld_among
from rules.selectors.review_policy import policy_of

# A batch holds up the other writers of its task until its commit: some 21 queries for each decision.
MAX_ROWS = 100
MAX_APPROVED = 10
# Beyond so many the number is typed back.
TYPED_FROM = 20

type Reasons = dict[int, str]


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of all rows at once, by instruction id."""

    user: User
    policy: ReviewPolicy
    holders: dict[int, User]
    judged: set[int]
    withheld: set[int]
    doubled: set[int]


def signed_among(revision_ids: Collection[int]) -> set[int]:
    """Those of these texts that stand in a ruleset somebody has signed and nobody withdrew."""
    standing = Signature.objects.exclude(ruleset__status=RulesetStatus.WITHDRAWN)
    signed = standing.filter(ruleset__items__revision__in=revision_ids)
    return set(signed.values_list("ruleset__items__revision", flat=True)) & set(revision_ids)


def rows_numbered(task: Task, numbers: Collection[int]) -> QuerySet[Instruction]:
    """The instructions of a task with these numbers, with all that a bulk action asks of each; those with a text."""
    rows = Instruction.objects.filter(task=task, number__in=numbers, current_revision__isnull=False)
    return rows.select_related("task", "current_revision", "near_duplicate", "assignment__person")


def decision_reasons(
    task: Task, user: User, act: BatchAct, rows: Sequence[Instruction], *, opened: Instruction | None = None
) -> Reasons:
    """Why each of these rows is not decided in bulk by this person; those that can be are left out.

    Where several people decide, or the evidence is to be looked at, approving in bulk says the same sentence for all
    such reasons: nothing tells a check item or a draw from the others.
    """
    pause = pause_of(task, user)
    if pause is not None:
        said = _("Your queue is paused. An administrator lifts the pause after talking with you.")
        return {row.pk: said for row in rows}
    known = _known(task, user, rows)
    found = {row.pk: _why_not(act, row, known, opened) for row in rows}
    return {pk: why for pk, why in found.items() if why}


def _known(task: Task, user: User, rows: Sequence[Instruction]) -> _Known:
    ids = [row.pk for row in rows]
    held = Claim.objects.filter(instruction__in=ids, expires_at__gt=Now()).exclude(holder=user)
    judged = Opinion.objects.filter(actor=user, double__voided_at=None, double__instruction__in=ids)
    return _Known(
        user=user,
        policy=policy_of(task),
        holders={claim.instruction_id: claim.holder for claim in held.select_related("holder")},
        judged=set(judged.values_list("double__instruction", flat=True)),
        withheld=withheld_among(task, rows, user),
        doubled=_decided_by_two(ids),
    )


def _decided_by_two(ids: list[int]) -> set[int]:
    """Those on which two people decide, as the database works it out."""
    query = "SELECT id FROM unnest(%s::bigint[]) AS id WHERE cardinality(pld_double_bases(id)) > 0"
    with connection.cursor() as cursor:
        cursor.execute(query, [ids])
        return {int(row[0]) for row in cursor.fetchall()}


def _why_not(act: BatchAct, row: Instruction, known: _Known, opened: Instruction | None) -> str:
    return _not_open(row) or _in_other_hands(row, known) or _of_this_act(act, row, known, opened)


def _not_open(row: Instruction) -> str:
    if row.is_open:
        return ""
    return _("It is already %(status)s.") % {"status": InstructionStatus(row.status).label.lower()}


def _in_other_hands(row: Instruction, known: _Known) -> str:
    if row.pk in known.holders:
        return _("%(name)s is working on it.") % {"name": known.holders[row.pk]}
    return ""


def _of_this_act(act: BatchAct, row: Instruction, known: _Known, opened: Instruction | None) -> str:
    if row.waiting == Waiting.DISPUTED:
        return _("Two reviewers disagree on it: it is settled on its card.")
    if act == BatchAct.DEFER:
        return _("It is deferred already.") if row.waiting == Waiting.DEFERRED else ""
    if row.pk in known.judged:
        return _("You have already decided on it; others decide now.")
    if row.pk in known.withheld:
        return _("Say first on its card what the evidence shows.")
    if act == BatchAct.REJECT:
        is_own = row.current_revision is not None and row.current_revision.author_id == known.user.pk
        return _("You worded it; a colleague decides.") if is_own and row.pk in known.doubled else ""
    return _not_approved(row, known, opened)


def _not_approved(row: Instruction, known: _Known, opened: Instruction | None) -> str:
    revision, card = row.current_revision, opened.current_revision if opened else None
    if opened is None or revision is None or card is None:
        return _("Open a card to approve it.")
    checks = [
        (bool(hidden_in(revision.text)), _("It holds invisible characters: edit it, or reject it.")),
        (
            revision.author_id is not None or card.author_id is not None,
            _("Somebody worded it: it is decided on its card."),
        ),
    ]
    if row.pk != opened.pk:
        needs_card = row.pk in known.doubled or row.waiting != "" or evidence_is_asked(row, known.user, known.policy)
        checks += [
            (not are_alike(row, opened), _("It is no near-duplicate of the card you opened.")),
            (
                _differs_in_much(row, card.text),
                _("A word that decides much, a number or a label differs: it is decided on its card."),
            ),
            (needs_card, _("It is decided on its card.")),
        ]
    return next((why for holds, why in checks if holds), "")


def are_alike(one: Instruction, other: Instruction) -> bool:
    """Near-duplicates of one label, as the newest mining run compared them."""
    families = [getattr(getattr(row, "near_duplicate", None), "family", None) for row in (one, other)]
    return one.label == other.label and one.task_id == other.task_id and families[0] == families[1] is not None


def alike_of(instruction: Instruction, user: User) -> list[Instruction]:
    """The open near-duplicates of a card that can be offered with it, at most nine, the lowest number first.

    Left out is what this person may not read yet, whose words would show beside the card's, and what differs from it in
    a word that decides much.
    """
    family = getattr(getattr(instruction, "near_duplicate", None), "family", None)
    revision = instruction.current_revision
    if family is None or not instruction.is_open or revision is None or revision.author_id is not None:
        return []
    rows = Instruction.objects.filter(task=instruction.task_id, label=instruction.label, near_duplicate__family=family)
    mined = rows.awaiting_review().filter(current_revision__author__isnull=True).exclude(pk=instruction.pk)
    found = list(mined.select_related("task", "current_revision").order_by("number"))
    withheld = withheld_among(instruction.task, found, user) if found else set()
    near = [row for row in found if row.pk not in withheld and not _differs_in_much(row, revision.text)]
    return near[: MAX_APPROVED - 1]


def _differs_in_much(row: Instruction, text: str) -> bool:
    return row.current_revision is None or bool(risky_changes(text, row.current_revision.text, row.task.labels))


def assignable_reasons(user: User, rows: Sequence[Instruction]) -> Reasons:
    """Why each of these rows is not for this person to assign."""
    found = {row.pk: _not_open(row) for row in rows if not row.is_open}
    if user.role != Role.ADMIN:
        foreign = [row.pk for row in rows if row.domain not in {user.domain, ""}]
        found |= dict.fromkeys(foreign, _("It is of another domain than yours."))
    return found


def assignment_reasons(
    user: User, rows: Sequence[Instruction], *, person: User | None, pool: str, due_on: object
) -> Reasons:
    """Why each of these rows is not given to this reviewer or pool, or is theirs already."""
    wanted = (person.pk if person else None, pool, due_on)
    found: Reasons = {}
    for row in rows:
        current = getattr(row, "assignment", None)
        has = (current.person_id, current.pool, current.due_on) if current else (None, "", None)
        if has == wanted:
            found[row.pk] = _("It is theirs already.") if current else _("It is nobody's in particular already.")
    return found | assignable_reasons(user, rows)


def undo_reasons(items: Sequence[BatchItem], actor: User) -> Reasons:
    """Why the decision of an item is not taken back any more; those that can be are left out. Items with their event
    and instruction loaded.
    """
    newest = _newest_decisions([item.instruction_id for item in items])
    opinions = {one.event_id: one for one in _opinions_of(items)}
    signed = signed_among([one.revision_id for one in newest.values()])
    found: Reasons = {}
    for item in items:
        last, opinion = newest.get(item.instruction_id), opinions.get(item.event_id)
        if not _stands(item, last, opinion, actor):
            found[item.instruction_id] = _("Something else has happened to it since.")
        elif last is not None and last.event_id >= item.event_id and last.revision_id in signed:
            found[item.instruction_id] = _("Somebody has signed for this text. Reopen it on its card, and say why.")
    return found


def _newest_decisions(ids: list[int]) -> dict[int, Decision]:
    newest = Decision.objects.filter(instruction__in=ids).order_by("instruction_id", "-pk").distinct("instruction_id")
    return {one.instruction_id: one for one in newest.select_related("event")}


def _opinions_of(items: Sequence[BatchItem]) -> QuerySet[Opinion]:
    given = Opinion.objects.filter(event__in=[item.event_id for item in items])
    return given.select_related("double__revision").prefetch_related("double__opinions")


def _stands(item: BatchItem, last: Decision | None, opinion: Opinion | None, actor: User) -> bool:
    """Whether the decision or opinion of an item is still the newest thing that happened to its instruction."""
    row = item.instruction
    if opinion is None or not row.is_open:
        is_ours = last is not None and last.actor_id == actor.pk and last.kind != DecisionKind.REOPEN
        if last is None or not is_ours or last.event.data.get("version") != row.version:
            return False
        # An opinion that settled it has the decision's event right behind its own.
        return last.event_id == item.event_id or (opinion is not None and opinion.double.voided_at is None)
    blind = [one for one in opinion.double.opinions.all() if one.actor_id != opinion.double.revision.author_id]
    return opinion.double.voided_at is None and [one.pk for one in blind] == [opinion.pk]
