"""What the signing page shows before somebody signs."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import OuterRef, Q, Subquery

from pld_app.models import User
from rules.changes import Word, word_changes
from rules.models import (
    Comment,
    CommentVersion,
    Conflict,
    ConflictKind,
    Instruction,
    InstructionStatus,
    Revision,
    Ruleset,
)
from rules.selectors.policy import to_be_read


@dataclass(frozen=True)
class Against:
    """The other side of a conflict."""

    number: int
    label: str
    text: str


@dataclass(frozen=True)
class ToRead:
    """An instruction a signer opens first. `mined_words` compares with the mined text; empty when nobody changed it."""

    instruction_id: int
    number: int
    text: str
    author: str
    mined_words: tuple[Word, ...]
    conflicts: tuple[Against, ...]
    is_read: bool


def reading_list(ruleset: Ruleset, reader: User) -> list[ToRead]:
    """Edited and conflicting instructions in the order of the ruleset; five queries whatever their number."""
    wanted = to_be_read(ruleset)
    read = set(ruleset.reads.filter(reader=reader).values_list("instruction_id", flat=True))
    items = ruleset.items.filter(instruction__in=wanted).select_related("instruction", "revision__author")
    mined = dict(Revision.objects.filter(instruction__in=wanted, number=1).values_list("instruction_id", "text"))
    against = _conflicts(wanted)
    return [
        ToRead(
            instruction_id=item.instruction_id,
            number=item.instruction.number,
            text=item.revision.text,
            author=str(item.revision.author) if item.revision.author else "",
            mined_words=word_changes(mined.get(item.instruction_id, ""), item.revision.text)
            if item.revision.author
            else (),
            conflicts=tuple(against.get(item.instruction_id, [])),
            is_read=item.instruction_id in read,
        )
        for item in items.order_by("position")
    ]


def _conflicts(instruction_ids: set[int]) -> dict[int, list[Against]]:
    """Standing conflicts of these instructions, each other side once."""
    rows = Conflict.objects.filter(
        Q(first__in=instruction_ids) | Q(second__in=instruction_ids), kind=ConflictKind.CONFLICT
    ).select_related("first__current_revision", "second__current_revision")
    found: dict[int, dict[int, Against]] = {}
    for row in rows:
        for own, other in ((row.first, row.second), (row.second, row.first)):
            if own.pk in instruction_ids and other.status not in _GONE:
                found.setdefault(own.pk, {})[other.pk] = _against(other)
    return {pk: list(others.values()) for pk, others in found.items()}


@dataclass(frozen=True)
class OpenComment:
    """A thread that is not resolved, on an instruction of the ruleset, by its first words."""

    number: int
    author: str
    words: str


COMMENTS_SHOWN = 50
WORDS_SHOWN = 200


def open_comments(ruleset: Ruleset) -> list[OpenComment]:
    """Unresolved threads in the order of instructions, at most COMMENTS_SHOWN; one query."""
    newest = CommentVersion.objects.filter(comment=OuterRef("pk")).order_by("-number").values("body")[:1]
    threads = (
        Comment.objects.filter(
            instruction__in=ruleset.items.values("instruction"), parent__isnull=True, is_resolved=False
        )
        .annotate(words=Subquery(newest))
        .select_related("author", "instruction")
        .order_by("instruction__number", "pk")
    )
    return [
        OpenComment(one.instruction.number, str(one.author), (one.words or "")[:WORDS_SHOWN])
        for one in threads[:COMMENTS_SHOWN]
    ]


_GONE: Sequence[str] = (InstructionStatus.REJECTED, InstructionStatus.SUPERSEDED)


def _against(other: Instruction) -> Against:
    revision = other.current_revision
    return Against(other.number, other.label, revision.text if revision else "")
