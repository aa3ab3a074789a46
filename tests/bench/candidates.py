"""A task with many candidates, each with evidence on both sides, written in bulk as a mining run writes them."""

from itertools import batched, islice
from typing import Any

from django.db import connection
from django.utils import timezone

from pld_app.canonical import sha256_hex
from rules.models import (
    Cluster,
    Evidence,
    EvidenceRole,
    Instruction,
    InstructionOrigin,
    MicroRule,
    MicroRuleOrigin,
    MiningRun,
    MiningStage,
    Revision,
    RunState,
    Task,
    Trace,
)
from rules.services.mining_candidates import MAX_EVIDENCE
from tests.bench import generator
from tests.bench.loading import import_lines
from tests.factories import make_task

TRACES_EACH = 5


def make_candidates(count: int) -> Task:
    """`count` proposed candidates over 5 traces each; three labels share a topic and contradict each other there."""
    task = make_task("review", **generator.TASK_FIELDS)
    labels = generator.LABELS
    # In files of a size that an import takes.
    for lines in batched(generator.generated_lines(count * TRACES_EACH), 20_000):
        import_lines(task, lines)
    run = MiningRun.objects.create(
        task=task, number=1, state=RunState.SUCCEEDED, stage=MiningStage.PUBLISH, finished_at=timezone.now()
    )
    traces = iter(Trace.objects.filter(task=task).only("pk", "instruction"))
    clusters = Cluster.objects.bulk_create([_cluster(run, number, labels) for number in range(count)])
    members = [list(islice(traces, TRACES_EACH)) for _ in clusters]
    MicroRule.objects.bulk_create(
        [
            MicroRule(run=run, trace=trace, origin=MicroRuleOrigin.IMPORTED, text=trace.instruction, cluster=cluster)
            for cluster, own in zip(clusters, members, strict=True)
            for trace in own
        ],
        batch_size=2000,
    )
    instructions = _instructions(run, clusters, [own[0].instruction for own in members])
    _evidence(instructions, members, len(labels))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # as autovacuum does within a minute
    return task


def _cluster(run: MiningRun, number: int, labels: tuple[str, ...]) -> Cluster:
    topic = number // len(labels) + 1
    terms = f"topic {topic:04d}, retention, copies, notice"
    label = labels[number % len(labels)]
    return Cluster(run=run, number=number + 1, topic=topic, terms=terms, label=label, size=TRACES_EACH)


def _instructions(run: MiningRun, clusters: list[Cluster], texts: list[str]) -> list[Instruction]:
    rows = Instruction.objects.bulk_create(
        [
            Instruction(
                task=run.task,
                number=cluster.number,
                run=run,
                cluster=cluster,
                label=cluster.label,
                topic=cluster.terms,
                origin=InstructionOrigin.EXTRACTIVE,
                support=TRACES_EACH,
                contradictions=2 * TRACES_EACH,
                provenance=_provenance(cluster),
            )
            for cluster in clusters
        ]
    )
    revisions = Revision.objects.bulk_create(
        [
            Revision(instruction=row, number=1, text=text, text_sha256=sha256_hex(text))
            for row, text in zip(rows, texts, strict=True)
        ]
    )
    for row, revision in zip(rows, revisions, strict=True):
        row.current_revision = revision
    Instruction.objects.bulk_update(rows, ["current_revision"], batch_size=500)
    return rows


def _provenance(cluster: Cluster) -> dict[str, Any]:
    return {
        "run": 1,
        "parameters": {"method": "leiden", "neighbours": 15, "seed": 0},
        "embedding": "TF-IDF and truncated SVD, 64 dimensions, computed here",
        "cluster": cluster.number,
        "topic": cluster.topic,
        "members_sha256": sha256_hex(str(cluster.number)),
    }


def _evidence(instructions: list[Instruction], members: list[list[Trace]], labels: int) -> None:
    """For each its own traces, and as contradictions those of its topic's other labels, as far as mining keeps them."""
    rows = []
    for place, instruction in enumerate(instructions):
        first = place - place % labels
        others = [trace for other in range(first, first + labels) if other != place for trace in _of(members, other)]
        for role, traces in ((EvidenceRole.SUPPORTING, members[place]), (EvidenceRole.CONTRADICTING, others)):
            rows += [
                Evidence(instruction=instruction, trace=trace, role=role, rank=rank, is_cited=rank == 1)
                for rank, trace in enumerate(traces[:MAX_EVIDENCE], 1)
            ]
    Evidence.objects.bulk_create(rows, batch_size=2000)


def _of(members: list[list[Trace]], place: int) -> list[Trace]:
    return members[place] if place < len(members) else []
