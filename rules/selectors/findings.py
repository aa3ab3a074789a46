"""What the pages show of a run's findings: conflicts, what became of standing instructions, suspect labels."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from pld_app.models import User
from rules.diff import Pair, Risk, diff_summary, risky_changes
from rules.hidden_text import Segment, reveal
from rules.models import (
    Conflict,
    ConflictExample,
    ConflictJudgement,
    ConflictKind,
    Instruction,
    InstructionStatus,
    MatchKind,
    MicroRule,
    MiningRun,
    Revision,
    RunMatch,
    RunState,
    Seed,
    Suspect,
    Task,
    Trace,
)
from rules.selectors.review_compare import label_index, shown_diff
from rules.selectors.review_guard import figures_open_among, withheld_among

PAGE_ROWS = 25
# A conflict is two whole texts and their traces: ten fill a long page.
PAGE_CONFLICTS = 10
CARD_CONFLICTS = 3
_GONE = frozenset({InstructionStatus.REJECTED, InstructionStatus.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Held:
    """What a reviewer who has not judged yet may not see of instructions, on whatever page they stand: as on the card.

    `wording`: ids whose text waits for a look at the evidence; `figures`: ids whose counts the person has not opened.
    """

    wording: frozenset[int] = frozenset()
    figures: frozenset[int] = frozenset()


def held_from(task: Task, instructions: Collection[Instruction], user: User) -> Held:
    """By the guards of the card; four queries at most, however many there are."""
    closed = {one.pk for one in instructions} - figures_open_among(instructions, user)
    return Held(frozenset(withheld_among(task, instructions, user)), frozenset(closed))


@dataclass(frozen=True, slots=True)
class Side:
    """One instruction of a conflict, and its text made ready to show; None while its wording is held back."""

    instruction: Instruction
    text: list[Segment] | None
    label_index: int | None
    figures_shown: bool

    @property
    def written_at(self) -> datetime:
        """When its present text was written."""
        revision = self.instruction.current_revision
        return revision.created_at if revision else self.instruction.created_at


@dataclass(frozen=True, slots=True)
class TraceText:
    """A trace by what was drawn from it: its micro-rule in that run."""

    trace: Trace
    text: list[Segment]
    label_index: int | None


@dataclass(frozen=True, slots=True)
class ConflictView:
    """A conflict from the side of `own` (on a list: its first instruction)."""

    conflict: Conflict
    own: Side
    other: Side
    examples: list[tuple[TraceText, TraceText]]

    @property
    def figures_shown(self) -> bool:
        """Counts of the pair and the teacher's opinion are about both: shown where neither is still to be judged."""
        return self.own.figures_shown and self.other.figures_shown

    @property
    def both(self) -> tuple[Side, ...]:
        return (self.own, self.other)

    @property
    def other_only(self) -> tuple[Side, ...]:
        return (self.other,)

    @property
    def is_boundary(self) -> bool:
        return self.conflict.kind == ConflictKind.BOUNDARY

    @property
    def edited(self) -> tuple[Side, ...]:
        """Those of the two whose text is younger than the finding: it spoke of another one."""
        found_at = self.conflict.run.finished_at
        return tuple(side for side in self.both if found_at is not None and side.written_at > found_at)

    @property
    def judgement(self) -> ConflictJudgement | None:
        """The teacher's opinion, where the run asked for it."""
        return getattr(self.conflict, "judgement", None)

    @property
    def judged_reason(self) -> list[Segment]:
        return reveal(self.judgement.reason) if self.judgement else []

    @property
    def judged_other_words(self) -> bool:
        """Whether one of the two texts is not the one the teacher read."""
        row, one = self.conflict, self.judgement
        if one is None:
            return False
        present = [
            side.current_revision.text_sha256 if side.current_revision else "" for side in (row.first, row.second)
        ]
        return present != [one.first_sha256, one.second_sha256]

    @property
    def state(self) -> str:
        """Resolved when one of the two is out; edited when a text is new since; approved when both stand; else open."""
        statuses = {self.own.instruction.status, self.other.instruction.status}
        if statuses & _GONE:
            return "resolved"
        if self.edited:
            return "edited"
        return "approved" if statuses == {InstructionStatus.APPROVED} else "open"

    @property
    def state_label(self) -> str | Promise:
        return {
            "resolved": _("Resolved"),
            "edited": _("Edited since it was found"),
            "approved": _("Both approved"),
            "open": _("Open"),
        }[self.state]


def latest_run(task: Task) -> MiningRun | None:
    """The newest run that succeeded: what it found is what the pages speak of."""
    return _newest_first(task).first()


def _newest_first(task: Task) -> QuerySet[MiningRun]:
    return MiningRun.objects.filter(task=task, state=RunState.SUCCEEDED).order_by("-number")


def conflict_page(
    run: MiningRun, kind: str, user: User, number: str | None
) -> tuple[Page[Conflict], list[ConflictView]]:
    """A page of conflicts of one kind, strongest first, with both texts and their closest traces."""
    rows = _conflicts().filter(run=run, kind=kind)
    page = Paginator(rows, PAGE_CONFLICTS).get_page(number)
    return page, _views(run.task, page.object_list, user)


def conflict_counts(run: MiningRun) -> dict[str, int]:
    """How many of each kind."""
    found = run.conflicts.order_by().values_list("kind").annotate(n=Count("pk"))
    return dict.fromkeys(ConflictKind.values, 0) | dict(found)


def conflicts_of(instruction: Instruction, user: User) -> tuple[list[ConflictView], int]:
    """The strongest conflicts of an instruction in the latest run, seen from its side, and how many there are."""
    newest = _newest_first(instruction.task).values("pk")[:1]
    seeds = Seed.objects.filter(instruction=instruction).select_related("source", "evidence_of")
    seed = seeds.first() if instruction.is_seeded else None
    # A check item shows its twin's: a card without the conflicts that most others have would stand out.
    row = seed.twin if seed else instruction
    involved = Conflict.objects.filter(Q(first=row) | Q(second=row), run=newest)
    found = list(involved.values_list("pk", flat=True))
    if not found:  # most have none: the rows with all they point at are dear to ask for
        return [], 0
    views = _views(instruction.task, _conflicts().filter(pk__in=found[:CARD_CONFLICTS]), user, own=row)
    if seed:
        held = held_from(instruction.task, [instruction], user)
        views = [replace(one, own=_side(instruction.task, instruction, held)) for one in views]
    return views, len(found)


def _conflicts() -> QuerySet[Conflict]:
    return Conflict.objects.select_related("run", "judgement", "first__current_revision", "second__current_revision")


def _views(task: Task, conflicts: Iterable[Conflict], user: User, own: Instruction | None = None) -> list[ConflictView]:
    rows = list(conflicts)
    held = held_from(task, [one for row in rows for one in (row.first, row.second)], user)
    examples = list(
        ConflictExample.objects.filter(conflict__in=rows).select_related("first_trace", "second_trace").order_by("rank")
    )
    traces = {pk for one in examples for pk in (one.first_trace_id, one.second_trace_id)}
    runs = {row.run_id for row in rows}
    texts = dict(MicroRule.objects.filter(run__in=runs, trace__in=traces).values_list("trace_id", "text"))
    return [
        _view(task, row, [one for one in examples if one.conflict_id == row.pk], texts, held=held, own=own)
        for row in rows
    ]


def _view(
    task: Task,
    row: Conflict,
    examples: Sequence[ConflictExample],
    texts: dict[int, str],
    *,
    held: Held,
    own: Instruction | None,
) -> ConflictView:
    swap = own is not None and own.pk == row.second_id
    sides = [_side(task, one, held) for one in (row.first, row.second)]
    pairs = [
        [_trace_text(task, trace, texts) for trace in (example.first_trace, example.second_trace)]
        for example in examples
    ]
    if swap:
        sides.reverse()
        for pair in pairs:
            pair.reverse()
    return ConflictView(row, sides[0], sides[1], [(pair[0], pair[1]) for pair in pairs])


def _side(task: Task, instruction: Instruction, held: Held) -> Side:
    text = instruction.current_revision.text if instruction.current_revision else ""
    return Side(
        instruction,
        None if instruction.pk in held.wording else reveal(text),
        label_index(task, instruction.label),
        figures_shown=instruction.pk not in held.figures,
    )


def _trace_text(task: Task, trace: Trace, texts: dict[int, str]) -> TraceText:
    return TraceText(trace, reveal(texts.get(trace.pk) or trace.instruction), label_index(task, trace.label))


@dataclass(frozen=True, slots=True)
class ChangeView:
    """What a run says of one instruction, with the change of text where there is one and it is not held back."""

    match: RunMatch
    pairs: list[Pair]
    summary: str
    risks: list[Risk]
    label_index: int | None
    text_shown: bool
    figures_shown: bool

    @property
    def is_waiting(self) -> bool:
        """Whether a reviewer may still take the proposed text over or dismiss it."""
        return bool(self.match.proposed_text and self.pairs and self.match.dismissed_at is None)


def change_page(run: MiningRun, kind: str, user: User, number: str | None) -> tuple[Page[RunMatch], list[ChangeView]]:
    """25 instructions of one kind, in their order."""
    rows = _matches().filter(run=run, kind=kind)
    page = Paginator(rows, PAGE_ROWS).get_page(number)
    held = held_from(run.task, [match.instruction for match in page.object_list], user)
    return page, [_change(run.task, match, held) for match in page.object_list]


def match_counts(run: MiningRun) -> dict[str, int]:
    """How many instructions of each kind, every kind named, in the order of MatchKind."""
    found = dict(run.matches.order_by().values_list("kind").annotate(n=Count("pk")))
    return {kind: found.get(kind, 0) for kind in MatchKind.values}


def change_of(instruction: Instruction, user: User) -> ChangeView | None:
    """What the latest run that knew this instruction says has changed; None where nothing has."""
    latest = RunMatch.objects.filter(instruction=instruction).order_by("-run__number").values_list("pk", "kind").first()
    if latest is None or latest[1] in {MatchKind.UNCHANGED, MatchKind.NEW}:
        return None
    match = _matches().get(pk=latest[0])
    change = _change(instruction.task, match, held_from(instruction.task, [instruction], user))
    settled = match.kind == MatchKind.REWORDED and not change.is_waiting and match.replaces is None
    return None if settled else change


def _matches() -> QuerySet[RunMatch]:
    return RunMatch.objects.select_related(
        "run", "instruction__current_revision", "replaces__current_revision", "dismissed_by"
    ).order_by("instruction__number")


def _change(task: Task, match: RunMatch, held: Held) -> ChangeView:
    """A proposal is compared with the present text; a fresh candidate with the text it replaces."""
    text_shown = match.instruction_id not in held.wording
    present = _text(match.instruction.current_revision)
    before, after = present, match.proposed_text or present
    if match.replaces is not None:
        before, after = _text(match.replaces.current_revision), present
    pairs = shown_diff(before, after) if text_shown and before != after else []
    return ChangeView(
        match,
        pairs,
        diff_summary(pairs) if pairs else "",
        risky_changes(before, after, task.labels) if pairs else [],
        label_index(task, match.instruction.label),
        text_shown=text_shown,
        figures_shown=match.instruction_id not in held.figures,
    )


def _text(revision: Revision | None) -> str:
    return revision.text if revision else ""


@dataclass(frozen=True, slots=True)
class SuspectView:
    suspect: Suspect
    trace: TraceText
    neighbour: TraceText


def suspect_page(run: MiningRun, number: str | None) -> tuple[Page[Suspect], list[SuspectView]]:
    """25 traces whose label looks wrong, the most contradicted first."""
    page = Paginator(run.suspects.select_related("trace", "neighbour"), PAGE_ROWS).get_page(number)
    rows = list(page.object_list)
    traces = {pk for one in rows for pk in (one.trace_id, one.neighbour_id)}
    texts = dict(MicroRule.objects.filter(run=run, trace__in=traces).values_list("trace_id", "text"))
    views = [
        SuspectView(one, _trace_text(run.task, one.trace, texts), _trace_text(run.task, one.neighbour, texts))
        for one in rows
    ]
    return page, views
