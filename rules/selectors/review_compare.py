"""The present text beside others: earlier ones of the same instruction, and the rules nearest to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Q
from django.utils.translation import gettext as _

from rules.diff import Pair, Risk, diff_summary, risky_changes, word_diff
from rules.hidden_text import Segment, reveal, spelled
from rules.models import DecisionKind, Instruction, Revision, SimilarKind, SimilarRule, Task


def label_index(task: Task, label: str) -> int | None:
    """The label's place in the task, which picks its colour and pattern; None for one the task no longer has."""
    return task.labels.index(label) if label in task.labels else None


def shown_diff(before: str, after: str) -> list[Pair]:
    """The word diff with invisible characters spelled out as [U+202E], so that it cannot be read in a false order."""
    return [(op, spelled(text)) for op, text in word_diff(before, after)]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The present text against an earlier one: in one text, and each side with its own changes marked."""

    name: str
    title: str
    before_title: str
    pairs: list[Pair]
    summary: str
    risks: list[Risk]

    @property
    def before(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair[0] != "insert"]

    @property
    def after(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair[0] != "delete"]


def comparisons_of(instruction: Instruction, revision: Revision) -> list[Comparison]:
    """With the mined text, and with the text last approved where that is a third one."""
    if revision.number == 1:
        return []
    approved = instruction.decisions.filter(kind=DecisionKind.APPROVE).values("revision")[:1]
    earlier = {one.number: one for one in instruction.revisions.filter(Q(number=1) | Q(pk__in=approved))}
    author = revision.author
    found = [
        _comparison(
            "mined",
            _("Edited by %(author)s, compared with the mined text") % {"author": author},
            _("Mined"),
            texts=(earlier.pop(1).text, revision.text),
            labels=instruction.task.labels,
        )
    ]
    for number, one in earlier.items():
        if number != revision.number:
            title = _("Compared with revision %(number)d, the last one approved") % {"number": number}
            texts = (one.text, revision.text)
            found.append(
                _comparison("approved", title, _("Last approved"), texts=texts, labels=instruction.task.labels)
            )
    return found


def _comparison(
    name: str, title: str, before_title: str, *, texts: tuple[str, str], labels: Sequence[str]
) -> Comparison:
    pairs = shown_diff(*texts)
    return Comparison(name, title, before_title, pairs, diff_summary(pairs), risky_changes(*texts, labels))


@dataclass(frozen=True, slots=True)
class SimilarView:
    """A rule near this one: `percent` of its words weighed alike, and its present text."""

    row: SimilarRule
    text: list[Segment]
    label_index: int | None

    @property
    def percent(self) -> int:
        return round(self.row.similarity * 100)

    @property
    def tone(self) -> str:
        tones = {SimilarKind.CONTRADICTS: "tone-danger", SimilarKind.DUPLICATE: "tone-warn"}
        return tones.get(SimilarKind(self.row.kind), "chip-plain")


def similar_of(instruction: Instruction) -> list[SimilarView]:
    rows = SimilarRule.objects.filter(instruction=instruction).select_related("other__current_revision")
    return [
        SimilarView(
            row,
            reveal(row.other.current_revision.text if row.other.current_revision else ""),
            label_index(instruction.task, row.other.label),
        )
        for row in rows.order_by("rank")
    ]
