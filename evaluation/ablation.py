"""What leaving an instruction out did: figures from the answers with and without it. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluation.metrics import Metrics, compare_runs, score_run
from evaluation.schemas import AblationFigures, Flip, LabelChange

FLIPS_KEPT = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """An example and what the student said of it with every instruction; `before` None: no usable answer."""

    example_id: int
    input_sha256: str
    gold: str
    before: str | None


def ablation_figures(
    asked: Sequence[Asked], after: Mapping[str, str | None], labels: Sequence[str], *, prompt_sha256: str, seed: int
) -> AblationFigures:
    """Compare with the answers without one instruction, `after`: by input hash, absent where none came."""
    both = [one for one in asked if one.input_sha256 in after]
    missing = len(asked) - len(both)
    if 2 * missing > len(asked):
        return AblationFigures(
            prompt_sha256=prompt_sha256, missing=missing, flipped=0, paired=None, labels=(), flips=()
        )
    gold = [one.gold for one in both]
    before, now = [one.before for one in both], [after[one.input_sha256] for one in both]
    flips = [(one, new) for one, new in zip(both, now, strict=True) if one.before != new]
    return AblationFigures(
        prompt_sha256=prompt_sha256,
        missing=missing,
        flipped=len(flips),
        paired=compare_runs(gold, before, now, seed=seed),
        labels=_label_changes(gold, before, now, labels),
        flips=tuple(
            Flip(example=one.example_id, gold=one.gold, before=one.before or "", after=new or "")
            for one, new in flips[:FLIPS_KEPT]
        ),
    )


def _label_changes(
    gold: Sequence[str], before: Sequence[str | None], after: Sequence[str | None], labels: Sequence[str]
) -> tuple[LabelChange, ...]:
    def scored(said: Sequence[str | None]) -> Metrics:
        return score_run(gold, said, labels, resamples=1)  # only its scores by label are used

    given_before, given_after = Counter(before), Counter(after)
    return tuple(
        LabelChange(before=old, after=new, given_before=given_before[old.label], given_after=given_after[old.label])
        for old, new in zip(scored(before).by_label, scored(after).by_label, strict=True)
    )
