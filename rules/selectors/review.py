"""What the queue and the card show: everything loaded here, in a number of queries that does not grow with the rows."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.core.paginator import Page, Paginator
from django.db.models import Q
from django.db.models.functions import Now
from django.shortcuts import get_object_or_404
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.models import AuditEvent, User
from rules.diff import from_shared, mark_shared
from rules.hidden_text import Segment, hidden_in, readable, reveal
from rules.models import (
    Claim,
    Decision,
    DecisionKind,
    Evidence,
    EvidenceRole,
    Instruction,
    InstructionStatus,
    MicroRule,
    ReasonCode,
    Revision,
    Ruleset,
    RulesetStatus,
    Task,
    Trace,
)
from rules.selectors.review_age import Age, age_of, thresholds_of
from rules.selectors.review_compare import Comparison, SimilarView, comparisons_of, label_index, similar_of
from rules.selectors.review_filter import ReviewFilter
from rules.selectors.review_order import review_rows
from rules.selectors.tags import tag_names, tags_of

PAGE_ROWS = 25
OPEN_EVIDENCE = 3
UNDO_DEPTH = 20
_EXCERPT_CHARS = 220
_TIMELINE_ROWS = 50
_COUNTS = frozenset({"members"})
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class QueueRow:
    instruction: Instruction
    excerpt: list[Segment]
    label_index: int | None
    author: User | None
    age: Age | None = None
    holder: User | None = None
    assigned_to: str = ""
    tags: list[str] = field(default_factory=list)


def queue_page(
    task: Task, view: ReviewFilter, user: User, number: str | None
) -> tuple[Page[Instruction], list[QueueRow]]:
    """One page of 25 rows, and the same rows made ready to show."""
    page = Paginator(review_rows(task, view, user), PAGE_ROWS).get_page(number)
    rows = list(page.object_list)
    running = Claim.objects.filter(instruction__in=rows, expires_at__gt=Now()).select_related("holder")
    holders = {claim.instruction_id: claim.holder for claim in running}
    thresholds = thresholds_of(task)
    return page, [_queue_row(task, one, thresholds, holders.get(one.pk)) for one in rows]


def _queue_row(task: Task, instruction: Instruction, thresholds: tuple[int, int], holder: User | None) -> QueueRow:
    revision = instruction.current_revision
    text = revision.text if revision else ""
    return QueueRow(
        instruction=instruction,
        excerpt=reveal(readable(text, _EXCERPT_CHARS)),
        label_index=label_index(task, instruction.label),
        author=revision.author if revision else None,
        age=age_of(instruction, since=_last_decided_at(instruction), thresholds=thresholds),
        holder=holder,
        assigned_to=_assigned_to(instruction),
        tags=tags_of(instruction),
    )


def _last_decided_at(instruction: Instruction) -> datetime | None:
    # Of review_rows alone: an annotation has no place on the model.
    found: datetime | None = getattr(instruction, "came_back_at", None)
    return found


def _assigned_to(instruction: Instruction) -> str:
    assignment = getattr(instruction, "assignment", None)
    if assignment is None or not instruction.is_open:
        return ""
    if assignment.person is not None:
        return str(assignment.person)
    return _("Pool: %(name)s") % {"name": assignment.get_pool_display()}


@dataclass(frozen=True, slots=True)
class TraceView:
    """A trace made ready to show; words it shares with the rule are marked."""

    trace: Trace
    label_index: int | None
    inputs: list[tuple[str, list[Segment]]]
    rationale: list[Segment]
    is_cited: bool = False


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One recorded action on the instruction, newest first on the card."""

    at: datetime
    actor: str
    status: str
    title: str | Promise
    revision: int | None
    reason: str | Promise
    note: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class Card:
    """All that one screen of review shows, apart from its place in the queue."""

    task: Task
    instruction: Instruction
    revision: Revision
    text: list[Segment]
    hidden: list[str]
    label_index: int | None
    comparisons: list[Comparison]
    shared_inputs: list[tuple[str, list[Segment]]]
    supporting: list[TraceView]
    contradicting: list[TraceView]
    looked_through: int
    cluster_traces: int
    timeline: list[TimelineEntry]
    provenance: list[tuple[str, str, bool]]
    rulesets: list[Ruleset] = field(default_factory=list)
    undo: Decision | None = None
    is_own_edit: bool = False
    age: Age | None = None
    similar: list[SimilarView] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    @property
    def alike_count(self) -> int:
        """How many near-duplicates can be approved with it."""
        return sum(bool(one.pairs) for one in self.similar)

    @property
    def suggested(self) -> list[SimilarView]:
        """The similar ones that nobody keeps side by side with it."""
        return [one for one in self.similar if one.kept is None]


def instruction_get(slug: str, number: int) -> Instruction:
    """The instruction with all its own row points at, or 404 (also for one that a shell left without a text)."""
    rows = Instruction.objects.filter(current_revision__isnull=False).annotate(tag_names=tag_names())
    related = rows.select_related(
        "task", "run", "cluster", "current_revision__author", "assignment__person", "near_duplicate"
    )
    return get_object_or_404(related, task__slug=slug, number=number)


def card_of(
    instruction: Instruction,
    user: User,
    *,
    is_withheld: bool = False,
    figures_shown: bool = True,
    is_alone: bool = False,
) -> Card:
    """The card of one instruction (from `instruction_get`) for this person; withheld, no mark betrays its wording.

    Alone, it is known to have no similar rule.
    """
    task, revision = instruction.task, _text_of(instruction)
    evidence = _evidence(instruction)
    shared = _shared_inputs([row.trace for row in evidence])
    rule = "" if is_withheld else revision.text
    views = [(row.role, _trace_view(task, row.trace, rule, row.is_cited, shared)) for row in evidence]
    return Card(
        task=task,
        instruction=instruction,
        revision=revision,
        text=reveal(revision.text),
        hidden=hidden_in(revision.text),
        label_index=label_index(task, instruction.label),
        comparisons=comparisons_of(instruction, revision),
        shared_inputs=[(name, reveal(value)) for name, value in shared.items()],
        supporting=[view for role, view in views if role == EvidenceRole.SUPPORTING],
        contradicting=[view for role, view in views if role == EvidenceRole.CONTRADICTING],
        looked_through=_looked_through(instruction),
        cluster_traces=instruction.cluster.size if instruction.cluster else 0,
        timeline=timeline_of(instruction),
        provenance=_provenance(instruction, with_counts=figures_shown),
        rulesets=_rulesets_holding(instruction),
        undo=last_decision(task, user),
        is_own_edit=revision.author_id == user.pk,
        similar=[] if is_withheld or is_alone else similar_of(instruction, user),
        tags=tags_of(instruction),
        age=age_of(instruction, since=_came_back_at(instruction), thresholds=thresholds_of(task)),
    )


def _came_back_at(instruction: Instruction) -> datetime | None:
    """When it was last decided on, if it waits again: sent back, deferred, edited or reopened."""
    if instruction.status != InstructionStatus.IN_REVIEW:
        return None
    return instruction.decisions.values_list("at", flat=True).first()


def _text_of(instruction: Instruction) -> Revision:
    # `instruction_get` lets no other one through.
    assert instruction.current_revision is not None
    return instruction.current_revision


def _evidence(instruction: Instruction) -> list[Evidence]:
    """The three closest traces of each side, closest first."""
    rows = Evidence.objects.filter(instruction=instruction, rank__lte=OPEN_EVIDENCE).select_related("trace")
    return list(rows.order_by("role", "rank"))


def _shared_inputs(traces: list[Trace]) -> dict[str, str]:
    """Input fields that read the same in all of these traces (such as the question asked): said once, not six times."""
    if len(traces) < 2:
        return {}
    first: dict[str, str] = traces[0].input
    same = {
        name: str(value) for name, value in first.items() if all(trace.input.get(name) == value for trace in traces)
    }
    return same if len(same) < len(first) else {}


def _trace_view(
    task: Task, trace: Trace, rule: str, is_cited: bool = False, shared: Mapping[str, str] | None = None
) -> TraceView:
    inputs: dict[str, str] = {name: value for name, value in trace.input.items() if name not in (shared or {})}
    known = [name for name in task.input_fields if name in inputs]
    names = known + [name for name in inputs if name not in known]
    marked = [(name, mark_shared(str(inputs[name]), rule)) for name in names]
    return TraceView(
        trace=trace,
        label_index=label_index(task, trace.label),
        # Beside the rule there is room for two lines of each: they begin near the words it shares.
        inputs=marked if shared is None else [(name, from_shared(segments)) for name, segments in marked],
        rationale=mark_shared(trace.rationale, rule),
        is_cited=is_cited,
    )


def _looked_through(instruction: Instruction) -> int:
    """How many traces of the same topic the run compared, so that "no contradiction" says among how many."""
    if instruction.cluster is None:
        return instruction.support + instruction.contradictions
    same_topic = Q(cluster__run=instruction.cluster.run_id, cluster__topic=instruction.cluster.topic)
    return MicroRule.objects.filter(same_topic).count()


def timeline_of(instruction: Instruction, *, after_version: int | None = None) -> list[TimelineEntry]:
    """What was done to an instruction, newest first; with `after_version` only what happened since that version."""
    events = AuditEvent.objects.filter(object_type="instruction", object_id=str(instruction.pk)).order_by("-pk")
    entries = events[:_TIMELINE_ROWS]
    return [
        _timeline_entry(event)
        for event in entries
        if after_version is None or int(event.data.get("version", 0)) > after_version
    ]


_TITLES: dict[str, tuple[str, str | Promise]] = {
    "instruction.proposed": ("proposed", gettext_lazy("Proposed by mining")),
    "instruction.approved": ("approve", gettext_lazy("Approved")),
    "instruction.edited": ("edited", gettext_lazy("Edited; a second reviewer approves")),
    "instruction.rejected": ("reject", gettext_lazy("Rejected")),
    "instruction.deferred": ("defer", gettext_lazy("Deferred")),
    "instruction.sent_back": ("send_back", gettext_lazy("Sent back")),
    "instruction.reopened": ("in_review", gettext_lazy("Reopened")),
    "instruction.superseded": ("superseded", gettext_lazy("Superseded")),
    "proposal.dismissed": ("rejected", gettext_lazy("Proposed text dismissed")),
    "instruction.tagged": ("", gettext_lazy("Tagged")),
    "instruction.untagged": ("", gettext_lazy("Tag taken off")),
    "pair.kept": ("", gettext_lazy("Kept beside another")),
    "impact.measured": ("", gettext_lazy("Measured by leaving it out")),
}


def _timeline_entry(event: AuditEvent) -> TimelineEntry:
    status, title = _TITLES.get(event.action, ("", event.action))
    if event.data.get("written"):
        title = _("Written; a second reviewer approves")
    undone = event.data.get("undone")
    if undone in DecisionKind.values:
        title = _("Undone: %(what)s") % {"what": str(DecisionKind(undone).label).lower()}
    reason = event.data.get("reason", "")
    return TimelineEntry(
        at=event.at,
        actor=event.actor_name,
        status=status,
        title=title,
        revision=event.data.get("revision"),
        reason=ReasonCode(reason).label if reason in ReasonCode.values else str(reason),
        note=str(event.data.get("note", "")) or _of_tag_or_pair(event),
        is_final=event.action in {"instruction.approved", "instruction.rejected"},
    )


def _of_tag_or_pair(event: AuditEvent) -> str:
    beside = event.data.get("beside")
    return f"#{beside}" if beside else str(event.data.get("tag", ""))


def _provenance(instruction: Instruction, *, with_counts: bool) -> list[tuple[str, str, bool]]:
    """(name, value, is a hash) of everything recorded about where the text came from, nested keys joined by a dot.

    Without counts, which are among the figures, where the person has not opened those.
    """
    rows = _flat(instruction.provenance)
    shown = (row for row in rows if with_counts or row[0] not in _COUNTS)
    return [(name, value, bool(_HASH.fullmatch(value))) for name, value in shown]


def _flat(value: object, name: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name} · {_words(key)}" if name else _words(key))
    elif isinstance(value, list):
        yield name, ", ".join(str(inner) for inner in value) or "-"
    elif value not in (None, ""):
        yield name, str(value)


def _words(key: object) -> str:
    return str(key).replace("_", " ")


def _rulesets_holding(instruction: Instruction) -> list[Ruleset]:
    """Frozen, unreleased rulesets that reopening would withdraw."""
    if instruction.status != InstructionStatus.APPROVED:
        return []
    frozen = Ruleset.objects.filter(status__in=[RulesetStatus.IN_SIGN_OFF, RulesetStatus.SIGNED], release__isnull=True)
    return list(frozen.filter(items__instruction=instruction).defer("manifest", "prompt").order_by("number"))


def last_decision(task: Task, user: User) -> Decision | None:
    """This person's newest decision in the task that can still be undone, of their last 20, with its instruction."""
    decisions = Decision.objects.filter(actor=user, instruction__task=task).exclude(kind=DecisionKind.REOPEN)
    newest = decisions.select_related("instruction", "event").order_by("-pk")[:UNDO_DEPTH]
    # Whatever happened to an instruction since raised its version: an undo of this one, or a colleague's decision.
    return next((one for one in newest if one.event.data.get("version") == one.instruction.version), None)


def cluster_traces(
    instruction: Instruction, number: str | None, *, is_withheld: bool = False
) -> tuple[Page[Trace], list[TraceView]]:
    """The traces of an instruction's cluster, 25 a page; withheld, no mark betrays its wording."""
    traces = Trace.objects.filter(task=instruction.task).order_by("pk")
    if instruction.cluster_id:
        traces = traces.filter(micro_rules__cluster=instruction.cluster_id)
    else:
        traces = traces.filter(pk__in=Evidence.objects.filter(instruction=instruction).values("trace"))
    page = Paginator(traces, PAGE_ROWS).get_page(number)
    rule = "" if is_withheld else _text_of(instruction).text
    return page, [_trace_view(instruction.task, trace, rule) for trace in page.object_list]
