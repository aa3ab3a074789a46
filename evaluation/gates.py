"""What each gate says about figures: pure rules, without Django's database. Figures are compared at six decimals.

Floors and ceilings bound the estimate. The drop is bounded at the lower end of the paired 95% interval of the change: a
drop that cannot be ruled out is not passed. What there is no evidence for is "not shown", which never passes.
"""

from dataclasses import dataclass
from decimal import Decimal

from django.utils.translation import gettext as _

from evaluation.metrics import Metrics, PairedComparison

PASSED, FAILED, NOT_SHOWN = "passed", "failed", "not_shown"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of one run. `unusable`: malformed or missing answers; abstentions are answers.

    `compared` None: there is another release in production (`has_reference`) that was not evaluated over the same
    examples. `tokens_by`: whose tokenizer counted; empty is the approximation.
    """

    metrics: Metrics
    unusable: int
    tokens: int
    tokens_by: str
    has_reference: bool
    compared: PairedComparison | None


type Result = dict[str, str | int | None]


def result_of(gate: str, label: str, threshold: str, evidence: Evidence, minimum_n: int) -> Result:
    """One gate's result, as `rules.models.GateVerdict.results` keeps it."""
    judge = {
        "macro_f1": _macro_f1,
        "drop": _drop,
        "malformed": _malformed,
        "prompt_tokens": _prompt_tokens,
        "label_f1": _label_f1,
    }[gate]
    said = judge(evidence, Decimal(threshold), label)
    n = evidence.metrics.n
    if n < minimum_n and gate != "prompt_tokens" and not (gate == "drop" and not evidence.has_reference):
        why = _("Only %(n)d examples; the gates ask for %(least)d.") % {"n": n, "least": minimum_n}
        said = _Said(NOT_SHOWN, said.value, said.low, said.high, why)
    return {
        "gate": gate,
        "label": label,
        "threshold": threshold,
        "outcome": said.outcome,
        "value": said.value,
        "low": said.low,
        "high": said.high,
        "n": n,
        "why": said.why[:300],
    }


@dataclass(frozen=True)
class _Said:
    outcome: str
    value: str | None = None
    low: str | None = None
    high: str | None = None
    why: str = ""


def six(value: float) -> str:
    """The figure as it is kept and compared."""
    return f"{Decimal(repr(value)):.6f}"


def _outcome(holds: bool) -> str:
    return PASSED if holds else FAILED


def _macro_f1(evidence: Evidence, threshold: Decimal, _label: str) -> _Said:
    metrics = evidence.metrics
    value, interval = six(metrics.macro_f1), metrics.macro_f1_interval
    return _Said(_outcome(Decimal(value) >= threshold), value, six(interval.low), six(interval.high))


def _drop(evidence: Evidence, threshold: Decimal, _label: str) -> _Said:
    if not evidence.has_reference:
        return _Said(PASSED, why=_("Production serves no other release, so there is nothing to drop from."))
    compared = evidence.compared
    if compared is None:
        why = _("The release in production has no finished evaluation over the same examples by the same student.")
        return _Said(NOT_SHOWN, why=why)
    interval = compared.macro_f1_change_interval
    low, value = six(interval.low), six(compared.macro_f1_change)
    holds = Decimal(low) >= -threshold
    why = "" if holds else _("A drop of more than the threshold cannot be ruled out.")
    return _Said(_outcome(holds), value, low, six(interval.high), why)


def _malformed(evidence: Evidence, threshold: Decimal, _label: str) -> _Said:
    value = six(evidence.unusable / evidence.metrics.n)
    why = _("%(k)d of %(n)d answers.") % {"k": evidence.unusable, "n": evidence.metrics.n}
    return _Said(_outcome(Decimal(value) <= threshold), value, why=why)


def _prompt_tokens(evidence: Evidence, threshold: Decimal, _label: str) -> _Said:
    by = evidence.tokens_by
    why = _("Counted by %(model)s.") % {"model": by} if by else _("Approximate: characters over four.")
    return _Said(_outcome(Decimal(evidence.tokens) <= threshold), str(evidence.tokens), why=why)


def _label_f1(evidence: Evidence, threshold: Decimal, label: str) -> _Said:
    score = next((one for one in evidence.metrics.by_label if one.label == label), None)
    if score is None or score.f1 is None or not score.support:
        return _Said(NOT_SHOWN, why=_("No example of this label was asked about."))
    value = six(score.f1)
    why = _("%(n)d examples of this label.") % {"n": score.support}
    return _Said(_outcome(Decimal(value) >= threshold), value, why=why)
