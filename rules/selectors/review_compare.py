"""The present text beside others: earlier ones of the same instruction, and the rules nearest to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Q
from django.utils.translation import gettext as _

from pld_app.models import User
from rules.diff import Pair, Risk, diff_summary, risky_changes, word_diff
from rules.hidden_text import Segment, reveal, spelled
from rules.models import DecisionKind, Instruction, KeptPair, Revision, SimilarKind, SimilarRule, Task
from rules.selectors.bulk import alike_of
from rules.selectors.review_guard import withheld_among


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
    """A rule near this one: `percent` of its words weighed alike where they were compared, and its present text.

    `pairs` is what it changes of this one, for a near-duplicate that can be approved with it; `kept` is who keeps both.
    """

    other: Instruction
    kind: SimilarKind
    percent: int | None
    text: list[Segment]
    label_index: int | None
    pairs: list[Pair]
    is_withheld: bool
    kept: KeptPair | None

    @property
    def tone(self) -> str:
        tones = {SimilarKind.CONTRADICTS: "tone-danger", SimilarKind.DUPLICATE: "tone-warn"}
        return tones.get(self.kind, "chip-plain")

    @property
    def summary(self) -> str:
        return diff_summary(self.pairs)


def similar_of(instruction: Instruction, user: User) -> list[SimilarView]:
    """The five nearest rules, and first the near-duplicates that can be approved with this one; kept pairs last."""
    rows = SimilarRule.objects.filter(instruction=instruction).select_related("other__current_revision")
    near = [(row.other, SimilarKind(row.kind), round(row.similarity * 100)) for row in rows.order_by("rank")]
    alike = {one.pk: one for one in alike_of(instruction, user)}
    known = {other.pk for other, _kind, _percent in near}
    beyond = [one for pk, one in alike.items() if pk not in known]
    if not near and not beyond:
        return []
    withheld = withheld_among(instruction.task, [other for other, _kind, _percent in near], user)
    kept = _kept_beside(instruction)
    found = [
        _similar(
            instruction, other, kind, percent, is_alike=other.pk in alike, is_withheld=other.pk in withheld, kept=kept
        )
        for other, kind, percent in [*near, *((one, SimilarKind.DUPLICATE, None) for one in beyond)]
    ]
    return sorted(found, key=lambda one: (one.kept is not None, not one.pairs))


def _similar(
    instruction: Instruction,
    other: Instruction,
    kind: SimilarKind,
    percent: int | None,
    *,
    is_alike: bool,
    is_withheld: bool,
    kept: dict[int, KeptPair],
) -> SimilarView:
    revision = other.current_revision
    text = "" if revision is None or is_withheld else revision.text
    own = instruction.current_revision.text if instruction.current_revision else ""
    return SimilarView(
        other=other,
        kind=kind,
        percent=percent,
        text=reveal(text),
        label_index=label_index(instruction.task, other.label),
        pairs=shown_diff(own, text) if is_alike else [],
        is_withheld=is_withheld,
        kept=kept.get(revision.pk) if revision else None,
    )


def _kept_beside(instruction: Instruction) -> dict[int, KeptPair]:
    """Who keeps which other text beside the present one, by the id of that text."""
    here = instruction.current_revision_id
    pairs = KeptPair.objects.filter(Q(first=here) | Q(second=here)).select_related("actor")
    return {pair.second_id if pair.first_id == here else pair.first_id: pair for pair in pairs}
