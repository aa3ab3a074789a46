"""Comments as a person may read them: while they judge, others' words wait behind the figures of the card."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from django.core.paginator import Page, Paginator
from django.db import models
from django.db.models import Count, Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext_lazy as _

from pld_app.models import Role, User
from rules.hidden_text import Segment, reveal
from rules.models import (
    CardLook,
    Comment,
    CommentMention,
    CommentTurn,
    CommentVersion,
    Instruction,
    InstructionStatus,
    Opinion,
    Task,
    Waiting,
)
from rules.selectors.review_guard import withheld_among

PAGE_ROWS = 25


@dataclass(frozen=True, slots=True)
class Remark:
    """One comment with its newest words. `number` is that version's; above 1 it was changed."""

    pk: int
    author: str
    at: datetime
    number: int
    body: str
    is_own: bool
    names_reader: bool

    @property
    def key(self) -> str:
        """Its id as the names of its forms end."""
        return str(self.pk)


@dataclass(frozen=True, slots=True)
class Thread:
    """A remark with its answers. `start` to `end` (characters) is its quote in the present text, if it stands there."""

    first: Remark
    replies: list[Remark]
    quote: list[Segment]
    start: int | None
    end: int | None
    is_resolved: bool
    resolved_by: str
    resolved_at: datetime | None

    @property
    def is_on_earlier_text(self) -> bool:
        return bool(self.quote) and self.start is None


@dataclass(frozen=True, slots=True)
class CommentBox:
    """The comments of one instruction for one reader. `withheld` counts what opens later, `names_reader` whether one
    of those names them."""

    open: list[Thread] = field(default_factory=list)
    resolved: list[Thread] = field(default_factory=list)
    withheld: int = 0
    withheld_names_reader: bool = False

    @property
    def count(self) -> int:
        return sum(1 + len(thread.replies) for thread in (*self.open, *self.resolved))


def comments_of(instruction: Instruction, reader: User, *, figures_shown: bool) -> CommentBox:
    """All threads of an instruction, as far as this person may read them; five queries whatever their number.

    A reviewer who still has to judge reads their own words, and others' once the figures are open, which is kept with
    their decision; what a colleague wrote whose opinion is still blind to them opens after their own.
    """
    rows = list(Comment.objects.filter(instruction=instruction).select_related("author").order_by("pk"))
    if not rows:
        return CommentBox()
    blind = blind_authors([instruction], reader).get(instruction.pk, frozenset())
    remarks = _remarks(rows, reader)

    def is_closed(row: Comment) -> bool:
        return row.author_id != reader.pk and (not figures_shown or row.author_id in blind)

    closed = [row for row in rows if is_closed(row)]
    roots = [row for row in rows if row.parent_id is None and not is_closed(row)]
    shown = {row.pk for row in roots}
    answers: dict[int, list[Remark]] = defaultdict(list)
    for row in rows:
        if row.parent_id in shown and not is_closed(row):
            answers[row.parent_id].append(remarks[row.pk])
    turns = {
        turn.comment_id: turn
        for turn in CommentTurn.objects.filter(comment__in=shown).select_related("actor").order_by("pk")
    }
    revision = instruction.current_revision
    text = revision.text if revision else ""
    threads = [_thread(row, remarks[row.pk], answers[row.pk], turns.get(row.pk), text) for row in roots]
    return CommentBox(
        open=[one for one in threads if not one.is_resolved],
        resolved=[one for one in threads if one.is_resolved],
        withheld=len(closed),
        withheld_names_reader=any(remarks[row.pk].names_reader for row in closed),
    )


def blind_authors(instructions: Collection[Instruction], reader: User) -> dict[int, frozenset[int]]:
    """Per instruction id: whose opinion this reviewer must not know yet, for they have to give their own; one query."""
    judging = [
        one.pk
        for one in instructions
        if reader.role == Role.REVIEWER and one.is_open and one.waiting != Waiting.DISPUTED
    ]
    if not judging:
        return {}
    given: dict[int, set[int]] = defaultdict(set)
    rows = Opinion.objects.filter(double__instruction__in=judging, double__voided_at=None)
    for instruction_id, actor_id in rows.values_list("double__instruction", "actor"):
        given[instruction_id].add(actor_id)
    return {pk: frozenset(actors) for pk, actors in given.items() if reader.pk not in actors}


def _remarks(rows: Collection[Comment], reader: User) -> dict[int, Remark]:
    """By comment id, with the newest words; two queries."""
    versions = CommentVersion.objects.filter(comment__in=[row.pk for row in rows]).order_by("number")
    newest = {version.comment_id: version for version in versions}
    named = set(
        CommentMention.objects.filter(version__in=newest.values(), user=reader).values_list("version_id", flat=True)
    )
    return {
        row.pk: Remark(
            pk=row.pk,
            author=str(row.author),
            at=row.created_at,
            number=newest[row.pk].number,
            body=newest[row.pk].body,
            is_own=row.author_id == reader.pk,
            names_reader=newest[row.pk].pk in named or (bool(reader.domain) and reader.domain in newest[row.pk].pools),
        )
        for row in rows
    }


def _thread(row: Comment, first: Remark, replies: list[Remark], turn: CommentTurn | None, text: str) -> Thread:
    stands = row.start is not None and row.end is not None and text[row.start : row.end] == row.quote
    return Thread(
        first=first,
        replies=replies,
        quote=reveal(row.quote),
        start=row.start if stands else None,
        end=row.end if stands else None,
        is_resolved=row.is_resolved,
        resolved_by=str(turn.actor) if turn and row.is_resolved else "",
        resolved_at=turn.at if turn and row.is_resolved else None,
    )


class CommentTab(models.TextChoices):
    OPEN = "open", _("Open")
    NAMED = "named", _("Naming you")
    OWN = "own", _("Yours")
    RESOLVED = "resolved", _("Resolved")


def _within(tab: CommentTab, rows: QuerySet[Comment], reader: User) -> QuerySet[Comment]:
    match tab:
        case CommentTab.OPEN:
            return rows.filter(parent__isnull=True, is_resolved=False)
        case CommentTab.RESOLVED:
            return rows.filter(parent__isnull=True, is_resolved=True)
        case CommentTab.OWN:
            return rows.filter(author=reader)
        case CommentTab.NAMED:
            newer = CommentVersion.objects.filter(comment=OuterRef("comment"), number__gt=OuterRef("number"))
            naming = Q(mentions__user=reader) | (Q(pools__contains=[reader.domain]) if reader.domain else Q())
            latest = CommentVersion.objects.filter(naming, comment=OuterRef("pk")).filter(~Exists(newer))
            return rows.filter(Exists(latest))


@dataclass(frozen=True, slots=True)
class CommentRow:
    """A line of a task's list. `is_closed`: its words open on the card, once the reader has judged."""

    instruction: Instruction
    remark: Remark
    quote: list[Segment]
    answers: int
    is_resolved: bool
    is_closed: bool


def comment_counts(task: Task, reader: User) -> list[tuple[CommentTab, int]]:
    """How many comments each tab holds; one query a tab."""
    rows = Comment.objects.filter(instruction__task=task)
    return [(tab, _within(tab, rows, reader).count()) for tab in CommentTab]


def comment_page(
    task: Task, tab: CommentTab, reader: User, number: str | None
) -> tuple[Page[Comment], list[CommentRow]]:
    """25 comments of a tab, the newest first, and the same made ready to show, in a fixed number of queries."""
    rows = _within(tab, Comment.objects.filter(instruction__task=task), reader)
    rows = rows.select_related("author", "instruction__current_revision", "instruction__task").order_by("-pk")
    page = Paginator(rows, PAGE_ROWS).get_page(number)
    found = list(page.object_list)
    remarks = _remarks(found, reader)
    answered = Comment.objects.filter(parent__in=found).values("parent").annotate(count=Count("pk")).order_by()
    answers = dict(answered.values_list("parent", "count"))
    instructions = {row.instruction_id: row.instruction for row in found}.values()
    closed = _closed_to(task, list(instructions), reader)
    blind = blind_authors(list(instructions), reader)
    return page, [
        CommentRow(
            instruction=row.instruction,
            remark=remarks[row.pk],
            quote=reveal(row.quote),
            answers=answers.get(row.pk, 0),
            is_resolved=row.is_resolved,
            is_closed=row.author_id != reader.pk
            and (row.instruction_id in closed or row.author_id in blind.get(row.instruction_id, frozenset())),
        )
        for row in found
    ]


def _closed_to(task: Task, instructions: list[Instruction], reader: User) -> set[int]:
    """Ids of those whose figures this reviewer has not opened yet, or whose wording they may not read."""
    if reader.role != Role.REVIEWER:
        return set()
    judging = {one.pk: one.version for one in instructions if one.is_open}
    looks = CardLook.objects.filter(user=reader, instruction__in=judging, insight_at__isnull=False)
    opened = {pk for pk, version in looks.values_list("instruction_id", "version") if judging[pk] == version}
    return (judging.keys() - opened) | withheld_among(task, instructions, reader)


def open_count(instructions: Iterable[int]) -> int:
    """How many threads are open on these instructions."""
    return (
        Comment.objects.filter(instruction__in=instructions, parent__isnull=True, is_resolved=False)
        .exclude(instruction__status=InstructionStatus.SUPERSEDED)
        .count()
    )
