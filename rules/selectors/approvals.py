"""For each rule of a frozen ruleset: who approved this very text, when, why, and on which traces."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from rules.models import Decision, DecisionKind, Evidence, EvidenceRole, Opinion, Ruleset, RulesetItem
from rules.selectors.rulesets import ruleset_items

TRACES_SHOWN = 12


@dataclass(frozen=True)
class ApprovedRule:
    """One rule as it was frozen. Where two people had to agree, `opinions` has the words of each.

    `traces` are the closest supporting ones, of `supporting` in all; `against` counts those that contradict it.
    """

    item: RulesetItem
    decisions: list[Decision] = field(default_factory=list)
    opinions: list[Opinion] = field(default_factory=list)
    traces: list[Evidence] = field(default_factory=list)
    supporting: int = 0
    against: int = 0


def approved_rules(ruleset: Ruleset) -> list[ApprovedRule]:
    """The rules of a ruleset in order, with the approvals of the texts in it. Five queries."""
    items = ruleset_items(ruleset)
    decisions, opinions = _approvals(items), _opinions(items)
    evidence = _evidence(items)
    return [
        ApprovedRule(
            item=item,
            decisions=decisions[item.revision_id],
            opinions=opinions[item.revision_id],
            traces=evidence[item.instruction_id, EvidenceRole.SUPPORTING][:TRACES_SHOWN],
            supporting=len(evidence[item.instruction_id, EvidenceRole.SUPPORTING]),
            against=len(evidence[item.instruction_id, EvidenceRole.CONTRADICTING]),
        )
        for item in items
    ]


def _approvals(items: Iterable[RulesetItem]) -> defaultdict[int, list[Decision]]:
    found = defaultdict[int, list[Decision]](list)
    approvals = Decision.objects.filter(kind=DecisionKind.APPROVE, revision__in=[item.revision_id for item in items])
    for one in approvals.select_related("actor").order_by("pk"):
        found[one.revision_id].append(one)
    return found


def _opinions(items: Iterable[RulesetItem]) -> defaultdict[int, list[Opinion]]:
    found = defaultdict[int, list[Opinion]](list)
    said = Opinion.objects.filter(double__revision__in=[item.revision_id for item in items])
    for one in said.select_related("actor", "double").order_by("pk"):
        found[one.double.revision_id].append(one)
    return found


def _evidence(items: Iterable[RulesetItem]) -> defaultdict[tuple[int, str], list[Evidence]]:
    found = defaultdict[tuple[int, str], list[Evidence]](list)
    rows = Evidence.objects.filter(instruction__in=[item.instruction_id for item in items]).select_related("trace")
    for one in rows.only("instruction", "role", "rank", "is_cited", "trace__external_id", "trace__label"):
        found[one.instruction_id, one.role].append(one)
    return found
