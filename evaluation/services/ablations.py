"""Ablations: planned within a budget, confirmed by an administrator, cancelled, given more budget.

What a worker does with one is in `ablation_execution`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from evaluation.models import Ablation, AblationItem, AblationOrder, EvaluationRun, Example
from evaluation.services.ablation_execution import JOB_KIND, ablation_finish, asked_of, call_scope
from evaluation.services.asking import example_request
from evaluation.services.input_templates import require_admin
from evaluation.services.runs import ESTIMATE_FROM, student_usable
from evaluation.transitions import ablation_move
from pld_app.audit import Json, audit_record
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.errors import InvalidInput
from pld_app.jobs import job_is_running, job_restart
from pld_app.model_edge.estimate import calls_estimate
from pld_app.models import ModelCall, User
from rules.exceptions import InvalidTransition
from rules.manifest import prompt_without
from rules.models import Conflict, ConflictKind, MiningRun, Ruleset, RulesetItem, RunState, Task
from rules.selectors.rulesets import ruleset_items


@dataclass(frozen=True, kw_only=True)
class AblationChoice:
    """What to leave out, and what it may take. `picked`: numbers of instructions, only these; else by `order`."""

    order: AblationOrder = AblationOrder.SUPPORT
    picked: tuple[int, ...] = ()
    max_calls: int
    max_cost: Decimal | None = None


@dataclass(frozen=True)
class PlannedItem:
    """One instruction in prompt order. `recorded`: answers without it that are on record already; `rank` as in
    AblationItem."""

    row: RulesetItem
    prompt_sha256: str
    recorded: int
    rank: int | None


@dataclass(frozen=True)
class AblationPlan:
    """What an ablation would ask. `digest` stands for what a person confirms: what is left out, and the most it costs.

    `examples` are asked about once for each instruction that has a rank; `tokens` are read, `cost` is the most.
    """

    run: EvaluationRun
    ruleset: Ruleset
    choice: AblationChoice
    items: tuple[PlannedItem, ...]
    examples: int
    calls: int
    recorded: int
    tokens: int
    cost: Decimal

    @property
    def measured(self) -> list[PlannedItem]:
        """Those to be left out, in their order."""
        chosen = [(item.rank, item) for item in self.items if item.rank is not None]
        return [item for _rank, item in sorted(chosen, key=lambda one: one[0])]

    @property
    def digest(self) -> str:
        said = [self.run.pk, [item.prompt_sha256 for item in self.measured], self.calls, str(self.cost)]
        limits = [self.choice.max_calls, str(self.choice.max_cost)]
        return sha256_hex(canonical_json([*said, *limits]))


def ablation_plan(run: EvaluationRun, choice: AblationChoice) -> AblationPlan:
    """Choose what fits the budget and count what it takes, without writing or asking anything.

    Raises InvalidInput for a run that cannot be ablated, or where nothing fits.
    """
    ruleset, rows = _rows_of(run)
    inputs = {one.input_sha256: one.example_id for one in asked_of(run)}
    texts = [row.revision.text for row in rows]
    hashes = [sha256_hex(prompt_without(run.prompt, texts, place)) for place in range(len(rows))]
    recorded = _recorded(run, hashes, inputs)
    ranks = _ranks(_ordered(rows, choice), choice.max_calls, lambda place: len(inputs) - recorded[hashes[place]])
    items = tuple(
        PlannedItem(row, sha256, recorded[sha256], ranks.get(place))
        for place, (row, sha256) in enumerate(zip(rows, hashes, strict=True))
    )
    # Two equal texts beside each other leave the same prompt behind: it is asked about once.
    open_prompts = {item.prompt_sha256: item.recorded for item in items if item.rank is not None}
    calls = sum(len(inputs) - known for known in open_prompts.values())
    tokens, cost = _price(run, list(inputs.values())[:ESTIMATE_FROM], calls)
    plan = AblationPlan(
        run=run,
        ruleset=ruleset,
        choice=choice,
        items=items,
        examples=len(inputs),
        calls=calls,
        recorded=sum(open_prompts.values()),
        tokens=tokens,
        cost=cost,
    )
    if not ranks:
        text = _(
            "One instruction takes %(n)d calls, more than the %(most)d allowed. Allow more, or use a smaller sample."
        )
        raise InvalidInput(text % {"n": len(inputs), "most": choice.max_calls})
    return plan


def _rows_of(run: EvaluationRun) -> tuple[Ruleset, list[RulesetItem]]:
    """The ruleset of the run's prompt and its items. Raises InvalidInput."""
    ruleset = run.ruleset or (run.release.ruleset if run.release is not None else None)
    if ruleset is None or run.state != RunState.SUCCEEDED:
        raise InvalidInput(_("Choose a finished run of a ruleset or a release: its answers are what is compared with."))
    if student_usable(run.student).model != run.student_model:
        text = _("The student endpoint now names another model. Evaluate this prompt with it first.")
        raise InvalidInput(text)
    rows = ruleset_items(ruleset)
    try:
        prompt_without(run.prompt, [row.revision.text for row in rows], 0)
    except ValueError as error:
        text = _("The ruleset has changed since run %(n)d. Evaluate it again, then measure its instructions.")
        raise InvalidInput(text % {"n": run.number}) from error
    return ruleset, rows


def _recorded(run: EvaluationRun, hashes: Sequence[str], inputs: Collection[str]) -> Counter[str]:
    """By prompt, how many of the questions the ledger answers."""
    calls = ModelCall.objects.filter(scope=call_scope(run), prompt_sha256__in=set(hashes), outcome=ModelCall.OK)
    found = calls.values_list("prompt_sha256", "subject").order_by()
    return Counter(sha256 for sha256, subject in found.iterator() if subject in inputs)


def _ordered(rows: Sequence[RulesetItem], choice: AblationChoice) -> list[int]:
    """Places in the order to measure them; only the picked ones if any are. Raises InvalidInput."""
    if choice.picked:
        by_number = {row.instruction.number: place for place, row in enumerate(rows)}
        unknown = [number for number in choice.picked if number not in by_number]
        if unknown:
            text = _("Not in this prompt: %(numbers)s.")
            raise InvalidInput(text % {"numbers": ", ".join(f"#{number}" for number in unknown)})
        return [by_number[number] for number in dict.fromkeys(choice.picked)]
    conflicting = _conflicting(rows) if choice.order == AblationOrder.CONFLICT else set()

    def key(place: int) -> tuple[bool, int, int]:
        instruction = rows[place].instruction
        return instruction.pk not in conflicting, -instruction.support, place

    return sorted(range(len(rows)), key=key)


def _conflicting(rows: Sequence[RulesetItem]) -> set[int]:
    """Those in a conflict of the task's newest mining run with another of these."""
    held = {row.instruction_id for row in rows}
    task = rows[0].instruction.task_id
    newest = MiningRun.objects.filter(task=task, state=RunState.SUCCEEDED).order_by("-number").first()
    both = Q(first__in=held) & Q(second__in=held)
    pairs = Conflict.objects.filter(both, run=newest, kind=ConflictKind.CONFLICT).values_list("first_id", "second_id")
    return {one for pair in pairs for one in pair}


def _ranks(ordered: Iterable[int], max_calls: int, calls_of: Callable[[int], int]) -> dict[int, int]:
    """Turn by place of those that fit the budget; a later one that takes less, its answers being on record, may."""
    ranks: dict[int, int] = {}
    left = max_calls
    for place in ordered:
        if calls_of(place) <= left:
            left -= calls_of(place)
            ranks[place] = len(ranks)
    return ranks


def _price(run: EvaluationRun, example_ids: Sequence[int], calls: int) -> tuple[int, Decimal]:
    """Tokens and cost of so many calls, by the first examples asked with the whole prompt: the most it can be."""
    assert run.student is not None
    examples = Example.objects.only("input").in_bulk(example_ids)
    requests = (example_request(run, str(key), examples[key].input) for key in example_ids)
    asked = calls_estimate(run.student, requests, scope="estimate")
    times = Decimal(calls) / len(example_ids)
    return int(asked.prompt_tokens * times), asked.cost * times


@transaction.atomic
def ablation_create(
    *, run: EvaluationRun, user: User | None, choice: AblationChoice, confirmed: str | None
) -> Ablation:
    """Queue an ablation of a finished run. `confirmed` is the digest of the plan that was shown; None: none was.

    Raises InvalidInput as `ablation_plan` does, for a plan beyond the limit on money, and when it is another by now.
    """
    require_admin(user)
    task = Task.objects.select_for_update(no_key=True).get(pk=run.task_id)  # one at a time is numbered
    plan = ablation_plan(run, choice)
    if confirmed is not None and confirmed != plan.digest:
        raise InvalidInput(_("What this takes has changed since it was estimated. Look at the new estimate first."))
    if plan.choice.max_cost is not None and plan.cost > plan.choice.max_cost:
        text = _("This may cost %(cost).4f, more than the %(most).4f allowed. Allow more, or fewer calls.")
        raise InvalidInput(text % {"cost": plan.cost, "most": plan.choice.max_cost})
    waiting = run.ablations.filter(state__in=[RunState.QUEUED, RunState.RUNNING, RunState.PAUSED]).first()
    if waiting is not None:
        text = _("Ablation %(n)d of this run is under way. Wait for it, or cancel it first.")
        raise InvalidTransition(text % {"n": waiting.number})
    estimate: dict[str, Json] = {
        "calls": plan.calls,
        "recorded": plan.recorded,
        "tokens": plan.tokens,
        "cost": str(plan.cost),
    }
    ablation = Ablation.objects.create(
        task=task,
        number=1 + (task.ablations.aggregate(last=Max("number"))["last"] or 0),
        run=run,
        ruleset=plan.ruleset,
        ruleset_version=plan.ruleset.version,
        order=AblationOrder.PICKED if choice.picked else choice.order,
        total=plan.examples * len(plan.measured),
        max_calls=choice.max_calls,
        max_cost=choice.max_cost,
        estimate=estimate,
        created_by=user,
    )
    AblationItem.objects.bulk_create(_item(ablation, place, item) for place, item in enumerate(plan.items, start=1))
    data: dict[str, Json] = {
        "run": run.number,
        "prompt_sha256": run.prompt_sha256,
        "student": run.student_model,
        "split": run.split,
        "n": plan.examples,
        "instructions": [item.row.instruction.number for item in plan.measured],
        "not_measured": len(plan.items) - len(plan.measured),
        "max_calls": choice.max_calls,
        "max_cost": None if choice.max_cost is None else str(choice.max_cost),
        "estimate": estimate,
    }
    audit_record("ablation.started", actor=user, subject=ablation, task_slug=task.slug, data=data)
    job_restart(kind=JOB_KIND, subject_id=ablation.pk, created_by=user)
    return ablation


def _item(ablation: Ablation, place: int, item: PlannedItem) -> AblationItem:
    return AblationItem(
        ablation=ablation,
        position=place,
        rank=item.rank,
        instruction_id=item.row.instruction_id,
        revision_id=item.row.revision_id,
        prompt_sha256=item.prompt_sha256,
    )


@transaction.atomic
def ablation_raise(*, ablation_id: int, user: User, max_calls: int, max_cost: Decimal | None) -> Ablation:
    """Let a paused ablation go on within a higher budget (`max_cost` None: no limit on money).

    Raises InvalidTransition in any other state, InvalidInput for a budget that is used up already.
    """
    require_admin(user)
    ablation = _locked(ablation_id)
    if ablation.state != RunState.PAUSED:
        text = _("This ablation is %(state)s: it waits for no budget.")
        raise InvalidTransition(text % {"state": ablation.get_state_display().lower()})
    if max_calls <= ablation.calls_used or (max_cost is not None and max_cost <= ablation.cost_used):
        text = _("%(calls)d calls and %(cost).4f are used already. Set more than that, or cancel the ablation.")
        raise InvalidInput(text % {"calls": ablation.calls_used, "cost": ablation.cost_used})
    ablation_move(ablation, RunState.QUEUED)
    ablation.max_calls, ablation.max_cost, ablation.error = max_calls, max_cost, ""
    ablation.save(update_fields=["state", "max_calls", "max_cost", "error"])
    data: dict[str, Json] = {"max_calls": max_calls, "max_cost": None if max_cost is None else str(max_cost)}
    data |= {"calls_used": ablation.calls_used, "cost_used": str(ablation.cost_used)}
    audit_record("ablation.budget_raised", actor=user, subject=ablation, task_slug=ablation.task.slug, data=data)
    job_restart(kind=JOB_KIND, subject_id=ablation.pk, created_by=user)
    return ablation


@transaction.atomic
def ablation_cancel(*, ablation_id: int, user: User) -> Ablation:
    """Ask it to stop before its next call; one that no worker holds ends here. What is measured and paid is kept."""
    require_admin(user)
    ablation = _locked(ablation_id)
    if ablation.is_final:
        text = _("This ablation is %(state)s already.")
        raise InvalidTransition(text % {"state": ablation.get_state_display().lower()})
    if ablation.cancel_requested_at is None:
        ablation.cancel_requested_at = timezone.now()
        ablation.save(update_fields=["cancel_requested_at"])
        audit_record("ablation.cancelled", actor=user, subject=ablation, task_slug=ablation.task.slug)
    if not job_is_running(kind=JOB_KIND, subject_id=ablation.pk):
        ablation_finish(ablation.pk, None, RunState.CANCELLED)
        ablation.refresh_from_db()
    return ablation


def _locked(ablation_id: int) -> Ablation:
    return Ablation.objects.select_for_update(of=("self",)).select_related("task").get(pk=ablation_id)
