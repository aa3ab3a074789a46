"""Stages 4 and 5: an instruction for each cluster, then all of them handed to review at once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from django.db import transaction
from pydantic import ValidationError

from pld_app.canonical import sha256_hex
from pld_app.model_edge import CallRequest, Outcome
from pld_app.model_edge.ledger import RecordedCall
from pld_app.models import Domain
from rules.mining.arrays import IntArray
from rules.mining.coverage import LeftOut, left_out_drafts, left_out_rows
from rules.mining.drafts import draft_instruction, supporting_and_contradicting
from rules.models import (
    Cluster,
    Evidence,
    EvidenceRole,
    Instruction,
    InstructionOrigin,
    MatchKind,
    Revision,
    RunState,
    Task,
)
from rules.prompts import synthesis_request, system_prompt_sha256
from rules.schemas import SynthesisReply
from rules.services.mining_findings import findings_of, findings_write
from rules.services.mining_flags import FlagJson, instruction_flags
from rules.services.mining_judgement import opinions_ask
from rules.services.mining_matches import Offer, Planned, Standing, matches_plan, matches_write, standing_supersede
from rules.services.mining_run import Part, RunContext, run_finish
from rules.services.mining_similar import similar_refresh
from rules.services.mining_vectors import mined_of
from rules.services.seed_twins import seeds_follow
from rules.services.seeds import numbers_with_gaps

# A card shows a handful; the whole cluster stays one click away through its micro-rules.
MAX_EVIDENCE = 25
# The paper's clusters hold hundreds of rules: the teacher reads the most central ones.
MAX_RULES_ASKED = 60
MAX_OTHERS_ASKED = 8


@dataclass(frozen=True)
class Candidate:
    """One instruction to be; rows index the run's micro-rules."""

    cluster: Cluster
    text: str
    origin: InstructionOrigin
    members: list[int]
    cited: list[int]
    supporting: list[int]
    contradicting: list[int]
    contradictions: int
    call: RecordedCall | None
    note: str
    is_small: bool = False


def syntheses_ask(context: RunContext, part: Part) -> None:
    """Have the teacher write one instruction for each cluster of this worker's share, for the ledger."""
    clusters = context.run.clusters.values_list("number", flat=True)
    total = sum(part.holds(number) for number in clusters)
    for done, _ in enumerate(_syntheses(context, part), 1):
        context.part_progress(done, total)


def _syntheses(context: RunContext, part: Part) -> Iterator[tuple[int, RecordedCall]]:
    """(cluster pk, recorded call) in order of completion; recorded ones are not asked again."""
    view = _View(context)
    requests = (view.request(cluster) for cluster in view.clusters if part.holds(cluster.number))
    calls = context.calls(part.endpoint, requests)
    for recorded in calls:
        if recorded.outcome is not Outcome.CANCELLED:
            yield int(recorded.request.key), recorded
    context.check_going_on()


class _View:
    """The clusters of a run as rows of its micro-rules."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.mined = mined_of(context)
        self.labels = self.mined.labels
        self.clusters = list(context.run.clusters.order_by("number"))
        topic_of = {cluster.pk: cluster.topic for cluster in self.clusters}
        placed = dict(context.run.micro_rules.exclude(cluster=None).values_list("pk", "cluster_id"))
        self.cluster_ids = [placed.get(rule.pk) for rule in self.mined.rules]
        self.topics = np.array([topic_of[pk] if pk else -1 for pk in self.cluster_ids], dtype=np.int64)
        self.members: dict[int, list[int]] = {cluster.pk: [] for cluster in self.clusters}
        for row, pk in enumerate(self.cluster_ids):
            if pk is not None:
                self.members[pk].append(row)

    def evidence(self, cluster: Cluster, k: int) -> tuple[list[int], list[int]]:
        """At most k rows that support and k of the topic that speak for another label, the nearest first."""
        found = supporting_and_contradicting(
            self.mined.vectors, self.topics, self.labels, topic=cluster.topic, label=cluster.label, k=k
        )
        return found.supporting, found.contradicting

    def request(self, cluster: Cluster) -> CallRequest:
        rules, _ = self.evidence(cluster, MAX_RULES_ASKED)
        _, others = self.evidence(cluster, MAX_OTHERS_ASKED)
        return synthesis_request(
            key=str(cluster.pk),
            task=self.context.run.task.preamble,
            label=cluster.label,
            rules=[self.mined.rules[row].text for row in rules],
            others=[(self.labels[row], self.mined.rules[row].text) for row in others],
        )

    def candidates(self, cluster: Cluster, call: RecordedCall | None) -> list[Candidate]:
        """The cluster's instruction, then one for each group of members it leaves out; their members do not overlap."""
        members = self.members[cluster.pk]
        text, cited, origin, note = self._text(cluster, members, call)
        is_small = len(members) < self.context.parameters.min_group
        left_out = [] if is_small else self._left_out(members, cited)
        gone = {row for one in left_out for row in one.covered}
        own = [row for row in members if row not in gone]
        found = [self._candidate(cluster, (text, cited, own), origin, call=call, note=note, is_small=is_small)]
        further = InstructionOrigin.UNCOVERED
        return found + [self._candidate(cluster, (one.text, one.cited, one.covered), further) for one in left_out]

    def _left_out(self, members: list[int], cited: list[int]) -> list[LeftOut]:
        """What the cited rules leave out, in rows of the run."""
        place_of = {row: place for place, row in enumerate(members)}
        drafts = left_out_drafts(
            [self.mined.rules[row].text for row in members],
            self.mined.vectors[members],
            [place_of[row] for row in cited],
            labels=self.context.run.task.labels,
            max_conditions=self.context.parameters.max_conditions,
        )
        return [
            LeftOut(one.text, [members[row] for row in one.cited], [members[row] for row in one.covered])
            for one in drafts
        ]

    def _candidate(
        self,
        cluster: Cluster,
        said: tuple[str, list[int], list[int]],
        origin: InstructionOrigin,
        *,
        call: RecordedCall | None = None,
        note: str = "",
        is_small: bool = False,
    ) -> Candidate:
        """`said` is its text, the rows it cites and all the rows it stands for."""
        text, cited, members = said
        nearest, contradicting = self.evidence(cluster, len(self.members[cluster.pk]))
        others = int(np.count_nonzero(self.topics == cluster.topic)) - len(self.members[cluster.pk])
        # What is cited is always among the evidence, however far from the centre.
        own = set(members) - set(cited)
        supporting = cited + [row for row in nearest if row in own]
        return Candidate(
            cluster,
            text,
            origin,
            members,
            cited,
            supporting[:MAX_EVIDENCE],
            contradicting[:MAX_EVIDENCE],
            others,
            call,
            note,
            is_small,
        )

    def _text(
        self, cluster: Cluster, members: list[int], call: RecordedCall | None
    ) -> tuple[str, list[int], InstructionOrigin, str]:
        written, note = self._written(cluster, call)
        if written is not None:
            return written[0], written[1], InstructionOrigin.TEACHER, ""
        draft = draft_instruction(
            [self.mined.rules[row].text for row in members],
            self.mined.vectors[members],
            labels=self.context.run.task.labels,
            max_conditions=self.context.parameters.max_conditions,
        )
        return draft.text, [members[row] for row in draft.cited], InstructionOrigin.EXTRACTIVE, note

    def _written(self, cluster: Cluster, call: RecordedCall | None) -> tuple[tuple[str, list[int]] | None, str]:
        """The teacher's text with its checked citations, or None and why it could not be used."""
        if call is None:
            return None, ""
        if not call.ok:
            return None, f"The teacher did not answer: {call.error}"
        try:
            reply = SynthesisReply.model_validate_json(call.text)
        except ValidationError:
            return None, "The teacher's reply did not fit its schema."
        asked, _ = self.evidence(cluster, MAX_RULES_ASKED)
        if not all(1 <= number <= len(asked) for number in reply.cited):
            return None, "The teacher cited a rule it was not given."
        return (reply.instruction.strip(), [asked[number - 1] for number in dict.fromkeys(reply.cited)]), ""


def candidates_write(context: RunContext) -> None:
    """Write every candidate with its evidence and close the run, in one transaction."""
    teacher = context.run.teacher
    calls = dict(_syntheses(context, Part(teacher))) if teacher else {}
    view = _View(context)
    candidates = [one for cluster in view.clusters for one in view.candidates(cluster, calls.get(cluster.pk))]
    offers = [_offer(view, one) for one in candidates]
    findings = findings_of(view.mined, _groups(view, candidates), view.topics, context.run.task.labels)
    opinions = opinions_ask(context, findings.overlaps, [(one.cluster.label, one.text) for one in candidates])
    with transaction.atomic():
        context.check_lease()
        Task.objects.select_for_update(of=("self",)).get(pk=context.run.task_id)
        plan = matches_plan(context.run.task, offers, lambda place, one: _still_holds(view, one, candidates[place]))
        _quotations_keep(view, plan, candidates)
        superseded = standing_supersede(plan)
        written = _plan_write(context, view, plan, candidates)
        counts = matches_write(context.run, plan, offers, written)
        seeds_follow(context.run)
        kept = sum(one.keeps and one.place is not None for one in plan)
        figures: dict[str, object] = {
            "candidates": len(candidates),
            "already_standing": kept,
            "written": len(candidates) - kept,
            "superseded": superseded,
            "matches": counts,
            "uncovered": sum(one.origin == InstructionOrigin.UNCOVERED for one in candidates),
            "small_groups": sum(one.is_small for one in candidates),
            "failed_extractions": context.run.micro_rules.filter(text="").count(),
        }
        figures |= findings_write(context.run, view.mined, findings, written, opinions)
        run_finish(context, RunState.SUCCEEDED, "", figures)
    # Slow at thousands, so after the commit; a worker killed here leaves the neighbours of the run before.
    similar_refresh(context.run.task)


def _offer(view: _View, one: Candidate) -> Offer:
    traces = frozenset(view.mined.rules[row].trace_id for row in one.members)
    return Offer(one.cluster.label, one.text, traces, _members_sha256(view, one), one.contradictions)


def _still_holds(view: _View, standing: Standing, one: Candidate) -> bool:
    """Whether the draft that stands is as good as a new one: all it quotes is still there, and it leaves nothing out.

    More traces would otherwise put other quotations into most drafts, and tell reviewers of changes that are none.
    """
    drafts = InstructionOrigin.EXTRACTIVE, InstructionOrigin.UNCOVERED
    if one.origin not in drafts or standing.instruction.origin not in drafts or not standing.cited:
        return False
    rules = {view.mined.rules[row].trace.external_id: view.mined.rules[row].text for row in one.members}
    if any(rules.get(name) != text for name, text in standing.cited.items()):
        return False
    places = [place for place, name in enumerate(rules) if name in standing.cited]
    return not left_out_rows(view.mined.vectors[one.members], places)


def _quotations_keep(view: _View, plan: Sequence[Planned], candidates: list[Candidate]) -> None:
    """Where the draft that stands goes on, the candidate cites what that draft quotes."""
    for one in plan:
        if one.place is None or one.standing is None or one.kind == MatchKind.REWORDED:
            continue
        candidate = candidates[one.place]
        if candidate.text in one.standing.known.texts:
            continue
        row_of = {view.mined.rules[row].trace.external_id: row for row in candidate.members}
        cited = [row_of[name] for name in one.standing.cited]
        supporting = (cited + [row for row in candidate.supporting if row not in cited])[:MAX_EVIDENCE]
        candidates[one.place] = replace(candidate, text=one.standing.mined_text, cited=cited, supporting=supporting)


def _groups(view: _View, candidates: Sequence[Candidate]) -> IntArray:
    """For each micro-rule the place of the candidate that stands for it, -1 for noise."""
    groups = np.full(len(view.mined.rules), -1, dtype=np.int64)
    for place, one in enumerate(candidates):
        groups[one.members] = place
    return groups


def _plan_write(
    context: RunContext, view: _View, plan: Sequence[Planned], candidates: Sequence[Candidate]
) -> dict[int, Instruction]:
    """Write what the plan asks for. The instruction of each candidate, by its place."""
    offered = [(one.place, one) for one in plan if one.place is not None]
    fresh = [place for place, one in offered if not one.keeps]
    written = dict(zip(fresh, _instructions_write(context, view, [candidates[place] for place in fresh]), strict=True))
    for place, one in offered:
        if one.keeps and one.standing is not None:
            written[place] = one.standing.instruction
            if one.refreshes:
                _evidence_refresh(context, view, written[place], candidates[place])
    return written


def _evidence_refresh(context: RunContext, view: _View, row: Instruction, one: Candidate) -> None:
    """Put a candidate nobody has touched on the evidence of this run; its text, number and origin stay."""
    row.run, row.cluster, row.topic = context.run, one.cluster, one.cluster.terms
    row.support, row.contradictions = len(one.members), one.contradictions
    row.provenance = context.provenance() | _own_provenance(view, one)
    row.flags = _flags(context, view, one)
    row.version += 1
    row.save(update_fields=["run", "cluster", "topic", "support", "contradictions", "provenance", "flags", "version"])
    row.evidence.all().delete()
    Evidence.objects.bulk_create(_evidence(view, row, one))


def _instructions_write(context: RunContext, view: _View, candidates: Sequence[Candidate]) -> list[Instruction]:
    task = context.run.task
    numbers = numbers_with_gaps(task, len(candidates))
    instructions = [_instruction(context, view, one, place) for place, one in zip(numbers, candidates, strict=True)]
    Instruction.objects.bulk_create(instructions)
    revisions = [
        Revision(instruction=row, number=1, text=one.text, text_sha256=sha256_hex(one.text))
        for row, one in zip(instructions, candidates, strict=True)
    ]
    Revision.objects.bulk_create(revisions)
    for row, revision in zip(instructions, revisions, strict=True):
        row.current_revision = revision
    Instruction.objects.bulk_update(instructions, ["current_revision"], batch_size=500)
    evidence = [entry for row, one in zip(instructions, candidates, strict=True) for entry in _evidence(view, row, one)]
    Evidence.objects.bulk_create(evidence, batch_size=2000)
    return instructions


def _instruction(context: RunContext, view: _View, one: Candidate, number: int) -> Instruction:
    return Instruction(
        task=context.run.task,
        number=number,
        run=context.run,
        cluster=one.cluster,
        label=one.cluster.label,
        topic=one.cluster.terms,
        domain=_domain(context.run.task, view, one.members),
        origin=one.origin,
        support=len(one.members),
        contradictions=one.contradictions,
        provenance=context.provenance() | _own_provenance(view, one),
        flags=_flags(context, view, one),
    )


def _flags(context: RunContext, view: _View, one: Candidate) -> list[FlagJson]:
    rules = view.mined.rules
    return instruction_flags(
        one.text,
        cited=[rules[row] for row in one.cited],
        shown=[rules[row] for row in (*one.supporting, *one.contradicting)],
        known=context.vocabulary,
        labels=context.run.task.labels,
    )


def _own_provenance(view: _View, one: Candidate) -> dict[str, object]:
    found: dict[str, object] = {
        "cluster": one.cluster.number,
        "topic": one.cluster.topic,
        "members": len(one.members),
        "members_sha256": _members_sha256(view, one),
        "cited": [view.mined.rules[row].trace.external_id for row in one.cited],
    }
    if one.note:
        found["note"] = one.note
    if one.is_small:
        found["small_group"] = True
    if one.call is not None:
        found |= {
            "call": one.call.call_id,
            "model_returned": one.call.model_returned,
            "system_prompt_sha256": system_prompt_sha256("synthesize"),
            "prompt_tokens": one.call.prompt_tokens,
            "completion_tokens": one.call.completion_tokens,
        }
    return found


def _members_sha256(view: _View, one: Candidate) -> str:
    return sha256_hex("\n".join(sorted(view.mined.rules[row].trace.external_id for row in one.members)))


def _domain(task: Task, view: _View, members: Sequence[int]) -> str:
    """The domain most of the members name, where it is one reviewers work in."""
    if not task.domain_field:
        return ""
    named = Counter(str(view.mined.rules[row].trace.metadata.get(task.domain_field, "")) for row in members)
    most = named.most_common(1)[0][0] if named else ""
    return most if most in Domain.values else ""


def _evidence(view: _View, instruction: Instruction, one: Candidate) -> Iterator[Evidence]:
    cited = set(one.cited)
    for role, rows in ((EvidenceRole.SUPPORTING, one.supporting), (EvidenceRole.CONTRADICTING, one.contradicting)):
        for rank, row in enumerate(rows, 1):
            trace = view.mined.rules[row].trace
            yield Evidence(instruction=instruction, trace=trace, role=role, rank=rank, is_cited=row in cited)
