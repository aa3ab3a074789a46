"""Examples of a run that the instructions of its prompt were mined from: such a figure flatters the prompt."""

from django.db.models import Q

from evaluation.metrics import macro_f1
from evaluation.models import EvaluationRun, Example, ResolutionRound
from evaluation.sampling import input_hash
from evaluation.schemas import Leakage
from rules.models import EvidenceRole, Instruction, RulesetItem, Trace


def leakage_of(run: EvaluationRun) -> Leakage | None:
    """Which examples of the run its instructions rest on; None for a prompt without instructions.

    An instruction rests on the traces of its cluster and on its supporting evidence. An example counts when it is
    such a trace, or when its input fields are equal to those of one.
    """
    numbers = _instructions(run)
    if not numbers:
        return None
    mined = _mined_from(numbers)
    asked = dict(run.predictions.filter(repeat=0).values_list("example_id", "example__trace_id"))
    inputs = dict(Example.objects.filter(pk__in=asked).values_list("pk", "input_sha256"))
    by_trace = {example for example, trace in asked.items() if trace in mined.by_trace}
    by_input = {example for example in asked if inputs[example] in mined.by_input}
    leaked = by_trace | by_input
    using: set[int] = set()
    for example in leaked:
        using |= mined.by_trace.get(asked[example] or 0, set()) | mined.by_input.get(inputs[example], set())
    clean = run.predictions.filter(repeat=0).exclude(example_id__in=leaked).order_by("example_id")
    rows = list(clean.values_list("gold", "label"))
    return Leakage(
        by_trace=len(by_trace),
        by_input=len(by_input),
        examples=len(leaked),
        instructions=tuple(sorted(using)),
        n_without=len(rows),
        macro_f1_without=macro_f1([g for g, _ in rows], [p or None for _, p in rows], run.labels) if rows else None,
    )


class _Mined:
    """Numbers of the instructions by the trace, and by the input, they were mined from."""

    def __init__(self) -> None:
        self.by_trace: dict[int, set[int]] = {}
        self.by_input: dict[str, set[int]] = {}


def _instructions(run: EvaluationRun) -> dict[int, int]:
    """Number by key of the instructions in the run's prompt."""
    measured = ResolutionRound.objects.filter(run=run, is_reused=False).first()
    if measured is not None:
        keys = [instruction for instruction, _revision in measured.items]
        return dict(Instruction.objects.filter(pk__in=keys).values_list("pk", "number"))
    ruleset = run.ruleset_id or (run.release.ruleset_id if run.release is not None else None)
    if ruleset is None:
        return {}
    return dict(RulesetItem.objects.filter(ruleset=ruleset).values_list("instruction_id", "instruction__number"))


def _mined_from(numbers: dict[int, int]) -> _Mined:
    mined = _Mined()
    supporting = Q(evidence__role=EvidenceRole.SUPPORTING)
    of_evidence = Instruction.objects.filter(supporting, pk__in=numbers).values_list("pk", "evidence__trace_id")
    members = Instruction.objects.filter(pk__in=numbers, cluster__members__isnull=False)
    of_cluster = members.values_list("pk", "cluster__members__trace_id")
    for instruction, trace in {*of_evidence, *of_cluster}:
        mined.by_trace.setdefault(trace, set()).add(numbers[instruction])
    inputs = Trace.objects.filter(pk__in=mined.by_trace).values_list("pk", "input").iterator(chunk_size=500)
    for trace, values in inputs:
        mined.by_input.setdefault(input_hash(values), set()).update(mined.by_trace[trace])
    return mined
