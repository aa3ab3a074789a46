"""What a check item shares with its twin, when it is made and after each later mining run."""

from typing import Any

from rules.models import Evidence, Instruction, InstructionStatus, MatchKind, MiningRun, RunMatch, Seed

# What a run writes on a candidate; the rest of a check item never changes.
_OF_A_RUN = ("run", "cluster", "topic", "provenance", "support", "contradictions")


def evidence_fields(twin: Instruction, text: str) -> dict[str, Any]:  # columns by name, each of its own type
    """The twin's run, topic, figures and origins, and its flags but those on words that `text` does not hold."""
    words = twin.current_revision.text if twin.current_revision else ""
    flags = [flag for flag in twin.flags if flag["text"] in text or flag["text"] not in words]
    return {name: getattr(twin, name) for name in _OF_A_RUN} | {"flags": flags}


def evidence_copy(twin: Instruction, row: Instruction) -> None:
    """Show the twin's evidence under `row` as well."""
    Evidence.objects.bulk_create(
        Evidence(instruction=row, trace_id=one.trace_id, role=one.role, rank=one.rank, is_cited=one.is_cited)
        for one in Evidence.objects.filter(instruction=twin)
    )


def match_copy(match: RunMatch, row: Instruction) -> None:
    """List `row` where the run lists its twin. Nothing is proposed for it: a new wording of the twin is not its own."""
    kind, counts = match.kind, (match.traces_before, match.traces_after, match.shared)
    if kind == MatchKind.REWORDED:
        kind = MatchKind.NEW if match.replaces_id else MatchKind.UNCHANGED
    if kind == MatchKind.NEW:
        counts = (0, match.traces_after, 0)
    before, after, shared = counts
    RunMatch.objects.create(
        run=match.run, instruction=row, kind=kind, traces_before=before, traces_after=after, shared=shared
    )


def seeds_follow(run: MiningRun) -> None:
    """Let the open check items of a task go through a run as their twins did; part of the run's own transaction.

    A run that named every candidate but these, or moved all but these to its evidence, would point at them.
    """
    seeds = Seed.objects.filter(instruction__task=run.task_id).exclude(instruction__status=InstructionStatus.SUPERSEDED)
    related = ("instruction__current_revision", "source__current_revision", "evidence_of__current_revision")
    for seed in seeds.select_related(*related).order_by("pk"):
        row, twin = seed.instruction, seed.twin
        touched = row.status != InstructionStatus.PROPOSED or row.double_reviews.exists()
        match = RunMatch.objects.filter(run=run, instruction=twin).select_related("run").first()
        if twin.status == InstructionStatus.SUPERSEDED and not touched:
            _supersede(row)
        elif twin.status == InstructionStatus.SUPERSEDED:
            RunMatch.objects.create(run=run, instruction=row, kind=MatchKind.LOST, traces_before=row.support)
        elif match is not None:
            match_copy(match, row)
            if not touched and twin.run_id == run.pk and match.kind == MatchKind.EVIDENCE:
                _refresh(row, twin)


def _supersede(row: Instruction) -> None:
    row.status = InstructionStatus.SUPERSEDED
    row.version += 1
    row.save(update_fields=["status", "version"])


def _refresh(row: Instruction, twin: Instruction) -> None:
    text = row.current_revision.text if row.current_revision else ""
    fields = evidence_fields(twin, text)
    for name, value in fields.items():
        setattr(row, name, value)
    row.version += 1
    row.save(update_fields=[*fields, "version"])
    row.evidence.all().delete()
    evidence_copy(twin, row)
