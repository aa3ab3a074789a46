"""What a run was expected to cost, and what the ledger says it did."""

import math
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal

from django.db.models import Count, Sum
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from pld_app.models import ModelCall
from rules.models import MiningRun, MiningStage
from rules.schemas import JUDGE_CONFLICTS, RunEstimate, StageEstimate

# Room for calls that have to be repeated: the estimate knows of no retries.
RETRY_SHARE = 1.25


@dataclass(frozen=True)
class StageRow:
    label: str | Promise
    of: StageEstimate


@dataclass(frozen=True)
class Spending:
    """`calls`, tokens and `cost` are those recorded in the ledger under the run's `name`."""

    name: str
    estimate: RunEstimate
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal

    @property
    def stages(self) -> list[StageRow]:
        return [StageRow(_stage_label(stage.stage), stage) for stage in self.estimate.stages]


def _stage_label(stage: str) -> str | Promise:
    return _("Judge conflicts") if stage == JUDGE_CONFLICTS else MiningStage(stage).label


def run_spending(run: MiningRun) -> Spending:
    paid = ModelCall.objects.filter(run=str(run)).aggregate(
        calls=Count("pk"), read=Sum("prompt_tokens"), written=Sum("completion_tokens"), cost=Sum("cost")
    )
    return Spending(
        name=str(run),
        estimate=RunEstimate.model_validate(run.estimate),
        calls=paid["calls"],
        prompt_tokens=paid["read"] or 0,
        completion_tokens=paid["written"] or 0,
        cost=paid["cost"] or Decimal(0),
    )


def budget_preset(run: MiningRun) -> dict[str, int | Decimal | None]:
    """What the form offers: the estimate with room for retries on top of what is used; money where there is a price."""
    estimate = RunEstimate.model_validate(run.estimate)
    calls = run.calls_used + math.ceil(estimate.calls * RETRY_SHARE)
    cost = run.cost_used + estimate.cost
    return {"max_calls": calls, "max_cost": cost.quantize(Decimal("0.01"), ROUND_UP) if cost else None}
