"""Mining again: each candidate is matched to an instruction that stands, and nothing a person worked on is changed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rules.mining.matching import Known, match_known
from rules.models import (
    Decision,
    DoubleReview,
    Instruction,
    InstructionStatus,
    MatchKind,
    MicroRule,
    MiningRun,
    Revision,
    RunMatch,
    Task,
)


@dataclass(frozen=True)
class Offer:
    """A candidate of the new run, as far as matching looks at it; `traces` are keys of its members' traces."""

    label: str
    text: str
    traces: frozenset[int]
    members_sha256: str
    contradictions: int


@dataclass(frozen=True)
class Standing:
    """An instruction of earlier runs. `touched`: a person has decided or edited, so that it stays as it is.

    `mined_text` is its first text, and `cited` the micro-rules that text rests on, by their traces' external ids.
    """

    instruction: Instruction
    known: Known
    touched: bool
    mined_text: str
    cited: Mapping[str, str]


@dataclass(frozen=True)
class Planned:
    """What becomes of one candidate (`place` in the offers) and of one standing instruction; either may be missing."""

    kind: MatchKind
    place: int | None
    standing: Standing | None
    proposed_text: str = ""

    @property
    def keeps(self) -> bool:
        """Whether the standing instruction goes on, so that the candidate needs no row of its own."""
        return self.standing is not None and (self.standing.touched or self.kind in _SAME_TEXT)

    @property
    def refreshes(self) -> bool:
        """Whether an untouched instruction takes over the candidate's evidence."""
        return self.standing is not None and not self.standing.touched and self.kind == MatchKind.EVIDENCE

    @property
    def supersedes(self) -> bool:
        return self.standing is not None and not self.keeps and not self.standing.touched


_SAME_TEXT = (MatchKind.UNCHANGED, MatchKind.EVIDENCE)


def matches_plan(task: Task, offers: Sequence[Offer], still_holds: Callable[[int, Standing], bool]) -> list[Planned]:
    """One entry for each offer, in order, then one for each instruction that no offer matches. Locks what stands.

    `still_holds` says of an offer (its place) and its instruction whether the mined text is as good as the offer's.
    """
    standing = _standing(task)
    fresh = [Known(one.label, (one.text,), one.traces) for one in offers]
    matched = match_known([one.known for one in standing], fresh, labels=task.labels)
    plan = [
        _planned(place, offer, standing[matched[place]], still_holds)
        if place in matched
        else Planned(MatchKind.NEW, place, None)
        for place, offer in enumerate(offers)
    ]
    lost = [
        one for number, one in enumerate(standing) if number not in set(matched.values()) and one.instruction.run_id
    ]
    return plan + [Planned(MatchKind.LOST, None, one) for one in lost]


def _planned(place: int, offer: Offer, standing: Standing, still_holds: Callable[[int, Standing], bool]) -> Planned:
    if offer.text not in standing.known.texts and not still_holds(place, standing):
        return Planned(MatchKind.REWORDED, place, standing, offer.text if standing.touched else "")
    row = standing.instruction
    same = row.provenance.get("members_sha256") == offer.members_sha256 and row.contradictions == offer.contradictions
    return Planned(MatchKind.UNCHANGED if same else MatchKind.EVIDENCE, place, standing)


def _standing(task: Task) -> list[Standing]:
    """Every instruction that is not superseded, with all texts it has had and those a reviewer did not want."""
    rows = Instruction.objects.filter(task=task, is_seeded=False, current_revision__isnull=False)
    rows = rows.exclude(status=InstructionStatus.SUPERSEDED)
    instructions = list(rows.select_for_update(of=("self",)).order_by("pk"))
    decided = set(Decision.objects.filter(instruction__in=instructions).values_list("instruction_id", flat=True))
    # An opinion that waits for another leaves no trace on the row, and is somebody's work all the same.
    judged = DoubleReview.objects.filter(instruction__in=instructions, voided_at__isnull=True)
    decided |= set(judged.values_list("instruction_id", flat=True))
    texts = _texts_of(instructions)
    traces, cited = _traces_of(instructions), _cited_rules(instructions)
    mined = dict(Revision.objects.filter(instruction__in=texts, number=1).values_list("instruction_id", "text"))
    return [
        Standing(
            row,
            Known(row.label, tuple(texts[row.pk]), frozenset(traces.get(row.cluster_id or 0, ()))),
            touched=row.status != InstructionStatus.PROPOSED or row.pk in decided,
            mined_text=mined[row.pk],
            cited={name: cited.get((row.run_id or 0, name), "") for name in row.provenance.get("cited", [])},
        )
        for row in instructions
    ]


def _cited_rules(instructions: Sequence[Instruction]) -> dict[tuple[int, str], str]:
    """The micro-rules that instructions cite, by run and the trace's external id."""
    names = {name for row in instructions for name in row.provenance.get("cited", [])}
    runs = {row.run_id for row in instructions if row.run_id}
    rules = MicroRule.objects.filter(run__in=runs, trace__external_id__in=names)
    found = rules.values_list("run_id", "trace__external_id", "text")
    return {(run, name): text for run, name, text in found}


def _texts_of(instructions: Iterable[Instruction]) -> dict[int, list[str]]:
    """The newest text first; at the end proposals that were dismissed, so that none is made twice."""
    texts: dict[int, list[str]] = {row.pk: [] for row in instructions}
    for pk, text in (
        Revision.objects.filter(instruction__in=texts).order_by("-number").values_list("instruction_id", "text")
    ):
        texts[pk].append(text)
    dismissed = RunMatch.objects.filter(instruction__in=texts, dismissed_at__isnull=False)
    for pk, text in dismissed.order_by("pk").values_list("instruction_id", "proposed_text"):
        texts[pk].append(text)
    return texts


def _traces_of(instructions: Iterable[Instruction]) -> dict[int, set[int]]:
    """Traces by cluster."""
    clusters = {row.cluster_id for row in instructions if row.cluster_id}
    found: dict[int, set[int]] = {}
    for cluster, trace in MicroRule.objects.filter(cluster__in=clusters).values_list("cluster_id", "trace_id"):
        found.setdefault(cluster or 0, set()).add(trace)
    return found


def standing_supersede(plan: Sequence[Planned]) -> int:
    """Candidates of earlier runs that nobody has touched make room for what replaces them."""
    count = 0
    for one in plan:
        if one.supersedes and one.standing is not None:
            row = one.standing.instruction
            row.status = InstructionStatus.SUPERSEDED
            row.version += 1
            row.save(update_fields=["status", "version"])
            count += 1
    return count


def matches_write(
    run: MiningRun, plan: Sequence[Planned], offers: Sequence[Offer], written: Mapping[int, Instruction]
) -> dict[str, int]:
    """One row for each entry of the plan; `written` are the instructions of the offers. Counts by kind."""
    rows = [_row(run, one, offers, written) for one in plan]
    RunMatch.objects.bulk_create(rows, batch_size=1000)
    return {kind.value: sum(row.kind == kind for row in rows) for kind in MatchKind}


def _row(run: MiningRun, one: Planned, offers: Sequence[Offer], written: Mapping[int, Instruction]) -> RunMatch:
    offer = None if one.place is None else offers[one.place]
    standing = one.standing
    instruction = standing.instruction if standing and (one.keeps or offer is None) else written[one.place or 0]
    after = offer.traces if offer else frozenset()
    shared = len(standing.known.traces & after) if standing else 0
    # Its cluster may hold more than it stands for: what it left out has an instruction of its own.
    before = standing.instruction.support if standing else 0
    return RunMatch(
        run=run,
        instruction=instruction,
        kind=one.kind,
        proposed_text=one.proposed_text,
        replaces=standing.instruction if standing and instruction is not standing.instruction else None,
        traces_before=before,
        traces_after=len(after),
        shared=min(shared, before),
    )
