"""What a run finds in its own micro-rules once the candidates are known: conflicts, and labels that look wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rules.mining.arrays import IntArray
from rules.mining.conflicts import Conditions, Overlap, find_overlaps
from rules.mining.suspects import SuspectRow, find_suspects
from rules.models import Conflict, ConflictExample, Instruction, MiningRun, Suspect
from rules.services.mining_judgement import Opinion, opinions_write
from rules.services.mining_vectors import Mined

# More than people can look at; the strongest come first.
MAX_CONFLICTS = 500
MAX_SUSPECTS = 100


@dataclass(frozen=True)
class Findings:
    """In numbers of candidates and rows of micro-rules, until both have rows of their own."""

    overlaps: list[Overlap]
    suspects: list[SuspectRow]


def findings_of(mined: Mined, groups: IntArray, topics: IntArray, labels: Sequence[str]) -> Findings:
    """Look through the micro-rules of a run; `groups` names the candidate each one stands behind (-1: none).

    Slow (a second for 1,000 micro-rules), so it is done before the transaction that writes.
    """
    conditions = Conditions(mined.texts, mined.vectors, labels)
    overlaps = find_overlaps(conditions, groups, topics, mined.labels)[:MAX_CONFLICTS]
    return Findings(overlaps, find_suspects(conditions, topics, mined.labels, most=MAX_SUSPECTS))


def findings_write(
    run: MiningRun,
    mined: Mined,
    findings: Findings,
    written: Mapping[int, Instruction],
    opinions: Mapping[tuple[int, int], Opinion],
) -> dict[str, object]:
    """Write the rows, `written` naming the instruction of each candidate. Figures for the run."""
    conflicts = [_conflict(run, one, written) for one in findings.overlaps]
    Conflict.objects.bulk_create(conflicts, batch_size=1000)
    by_numbers = {(one.first, one.second): row for one, row in zip(findings.overlaps, conflicts, strict=True)}
    examples = [
        example
        for row, one in zip(conflicts, findings.overlaps, strict=True)
        for example in _examples(row, one, mined, written)
    ]
    ConflictExample.objects.bulk_create(examples, batch_size=1000)
    Suspect.objects.bulk_create(_suspect(run, rank, one, mined) for rank, one in enumerate(findings.suspects, 1))
    return {
        "conflicts": sum(one.kind == "conflict" for one in findings.overlaps),
        "boundaries": sum(one.kind == "boundary" for one in findings.overlaps),
        "suspects": len(findings.suspects),
    } | opinions_write(by_numbers, opinions, written, run.teacher.model if run.teacher else "")


def _in_order(one: Overlap, written: Mapping[int, Instruction]) -> bool:
    """Whether the overlap's first candidate is also the row with the lower key, as the table wants it."""
    return written[one.first].pk < written[one.second].pk


def _conflict(run: MiningRun, one: Overlap, written: Mapping[int, Instruction]) -> Conflict:
    ends = (written[one.first], written[one.second])
    first, second = ends if _in_order(one, written) else ends[::-1]
    return Conflict(
        run=run,
        first=first,
        second=second,
        kind=one.kind,
        strength=min(1.0, one.strength),
        same_pairs=one.same,
        opposed_pairs=one.opposed,
    )


def _examples(row: Conflict, one: Overlap, mined: Mined, written: Mapping[int, Instruction]) -> list[ConflictExample]:
    swap = not _in_order(one, written)
    return [
        ConflictExample(
            conflict=row,
            rank=rank,
            first_trace=mined.rules[pair.second if swap else pair.first].trace,
            second_trace=mined.rules[pair.first if swap else pair.second].trace,
            similarity=pair.similarity,
        )
        for rank, pair in enumerate(one.pairs, 1)
    ]


def _suspect(run: MiningRun, rank: int, one: SuspectRow, mined: Mined) -> Suspect:
    return Suspect(
        run=run,
        rank=rank,
        trace=mined.rules[one.row].trace,
        neighbour=mined.rules[one.neighbour].trace,
        others=one.others,
        looked_at=one.looked_at,
        similarity=one.similarity,
    )
