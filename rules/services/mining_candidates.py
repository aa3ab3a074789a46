"""Stages 4 and 5: an instruction for each cluster, then all of them handed to review at once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from django.db import transaction
from django.db.models import Max
from pydantic import ValidationError

from pld_app.canonical import sha256_hex
from pld_app.model_edge import CallRequest, Outcome
from pld_app.model_edge.ledger import RecordedCall
from pld_app.models import Domain
from rules.mining.drafts import draft_instruction, supporting_and_contradicting
from rules.models import (
    Cluster,
    Evidence,
    EvidenceRole,
    Instruction,
    InstructionOrigin,
    InstructionStatus,
    Revision,
    RunState,
    Task,
)
from rules.prompts import synthesis_request, system_prompt_sha256
from rules.schemas import SynthesisReply
from rules.services.mining_run import RunContext, run_finish
from rules.services.mining_vectors import mined_of

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


def syntheses_ask(context: RunContext) -> None:
    """Have the teacher write one instruction for each cluster; without one, drafts are quoted at the next stage."""
    if context.run.teacher is None:
        return
    total = context.run.clusters.count()
    for done, _ in enumerate(_syntheses(context), 1):
        context.progress(done, total)


def _syntheses(context: RunContext) -> Iterator[tuple[int, RecordedCall]]:
    """(cluster pk, recorded call) in order of completion; recorded ones are not asked again."""
    assert context.run.teacher is not None
    view = _View(context)
    requests = (view.request(cluster) for cluster in view.clusters)
    calls = context.calls(context.run.teacher, requests)
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

    def candidate(self, cluster: Cluster, call: RecordedCall | None) -> Candidate:
        members = self.members[cluster.pk]
        text, cited, origin, note = self._text(cluster, members, call)
        supporting, contradicting = self.evidence(cluster, MAX_EVIDENCE)
        others = int(np.count_nonzero(self.topics == cluster.topic)) - len(members)
        # What is cited is always among the evidence, however far from the centre.
        supporting = cited + [row for row in supporting if row not in set(cited)]
        return Candidate(
            cluster, text, origin, members, cited, supporting[:MAX_EVIDENCE], contradicting, others, call, note
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
    calls = dict(_syntheses(context)) if context.run.teacher else {}
    view = _View(context)
    candidates = [view.candidate(cluster, calls.get(cluster.pk)) for cluster in view.clusters]
    with transaction.atomic():
        context.check_lease()
        Task.objects.select_for_update(of=("self",)).get(pk=context.run.task_id)
        superseded = _proposed_supersede(context)
        fresh = _without_standing(context, candidates)
        _instructions_write(context, view, fresh)
        figures: dict[str, object] = {
            "candidates": len(fresh),
            "already_standing": len(candidates) - len(fresh),
            "superseded": superseded,
            "failed_extractions": context.run.micro_rules.filter(text="").count(),
        }
        run_finish(context, RunState.SUCCEEDED, "", figures)


def _proposed_supersede(context: RunContext) -> int:
    """Candidates of earlier runs that nobody has touched make room; whatever a person worked on stays."""
    untouched = Instruction.objects.filter(
        task=context.run.task, status=InstructionStatus.PROPOSED, is_seeded=False, decisions__isnull=True
    )
    count = 0
    for instruction in untouched.select_for_update(of=("self",)):
        instruction.status = InstructionStatus.SUPERSEDED
        instruction.version += 1
        instruction.save(update_fields=["status", "version"])
        count += 1
    return count


def _without_standing(context: RunContext, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Leave out texts that a person has already before them, decided or in review."""
    standing = set(
        Instruction.objects.filter(task=context.run.task)
        .exclude(status=InstructionStatus.SUPERSEDED)
        .values_list("label", "current_revision__text_sha256")
    )
    return [one for one in candidates if (one.cluster.label, sha256_hex(one.text)) not in standing]


def _instructions_write(context: RunContext, view: _View, candidates: Sequence[Candidate]) -> None:
    task = context.run.task
    number = Instruction.objects.filter(task=task).aggregate(last=Max("number"))["last"] or 0
    instructions = [_instruction(context, view, one, number + place) for place, one in enumerate(candidates, 1)]
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
    )


def _own_provenance(view: _View, one: Candidate) -> dict[str, object]:
    ids = sorted(view.mined.rules[row].trace.external_id for row in one.members)
    found: dict[str, object] = {
        "cluster": one.cluster.number,
        "topic": one.cluster.topic,
        "members": len(ids),
        "members_sha256": sha256_hex("\n".join(ids)),
        "cited": [view.mined.rules[row].trace.external_id for row in one.cited],
    }
    if one.note:
        found["note"] = one.note
    if one.call is not None:
        found |= {
            "call": one.call.call_id,
            "model_returned": one.call.model_returned,
            "system_prompt_sha256": system_prompt_sha256("synthesize"),
            "prompt_tokens": one.call.prompt_tokens,
            "completion_tokens": one.call.completion_tokens,
        }
    return found


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
