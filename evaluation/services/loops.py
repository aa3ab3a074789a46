"""Loops of conflict resolution: estimated, begun, let go on, cancelled. What a worker does is in `resolution`."""

from dataclasses import dataclass
from decimal import ROUND_UP, Decimal

from django.db import transaction
from django.db.models import Max, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from evaluation.models import Dataset, LoopState, PromptKind, ResolutionLoop, ResolutionRound, RoundState, StopReason
from evaluation.resolver import SHOWN_CHARS, SHOWN_FAILURES, SHOWN_SUCCESSES
from evaluation.services.datasets import dataset_current
from evaluation.services.input_templates import require_admin
from evaluation.services.runs import (
    Conditions,
    LookAhead,
    PromptChoice,
    RunEstimate,
    evaluation_run_cancel,
    look_ahead,
    run_estimate,
    run_planned,
    student_usable,
)
from evaluation.services.standing import standing_texts
from evaluation.transitions import loop_move
from pld_app.audit import Json, audit_record
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.errors import InvalidInput
from pld_app.jobs import job_is_running, job_restart
from pld_app.model_edge.budget import price
from pld_app.model_edge.ledger import endpoint_config
from pld_app.models import ModelCall, ModelEndpoint, User
from rules.exceptions import InvalidTransition
from rules.models import Ruleset, Split, Task
from rules.services.mining_budget import RunBudget

JOB_KIND = "resolution_loop"
# A call each: the groups with most failures come first, and people decide on no more at a time.
MOST_GROUPS = 40
MOST_ROUNDS = 10
# The estimate knows of no retries; the budget that is set by itself leaves room for them.
RETRY_SHARE = Decimal("1.25")
_FRAME_TOKENS = 1200


@dataclass(frozen=True, kw_only=True)
class LoopChoice:
    """What a loop is to do. `dataset` None: the task's traces as they are now. `resolver` None: people mend by hand."""

    ruleset: Ruleset
    student: ModelEndpoint | None = None
    resolver: ModelEndpoint | None = None
    dataset: Dataset | None = None
    sample_size: int | None = None
    seed: int = 0
    max_rounds: int = 2
    is_automatic: bool = False
    max_calls: int | None = None
    max_cost: Decimal | None = None


@dataclass(frozen=True)
class LoopEstimate:
    """The most a loop can take: `measurements` of `run` each, and the resolver's calls in every round that proposes.

    `digest` stands for what a person confirms.
    """

    run: RunEstimate
    measurements: int
    resolver_calls: int
    resolver_tokens: int
    resolver_cost: Decimal
    digest: str

    @property
    def calls(self) -> int:
        return self.run.calls * self.measurements + self.resolver_calls

    @property
    def tokens(self) -> int:
        return self.run.tokens * self.measurements + self.resolver_tokens

    @property
    def cost(self) -> Decimal:
        return self.run.cost * self.measurements + self.resolver_cost


def loop_estimate(*, task: Task, choice: LoopChoice) -> LoopEstimate:
    """Count what a loop could come to, without writing or asking anything. Raises InvalidInput, EndpointMisconfigured.

    One measurement more than rounds, none answered from an earlier run, every group of the most asked about, replies
    at full length.
    """
    loop = _loop_planned(task, choice)
    conditions = loop_conditions(loop, choice.dataset)
    ahead = look_ahead(task, conditions)
    standing = standing_texts(loop)
    planned = run_planned(task, loop_prompt(loop), loop.student, conditions, prompt=standing.prompt)
    run = run_estimate(task, planned, ahead)
    calls, tokens, cost = _resolving(loop, ahead, len(standing.items))
    said = [
        *(standing.prompt_sha256, loop.student.pk, choice.resolver.pk if choice.resolver else 0, run.examples),
        *(loop.max_rounds, str(run.cost), calls, str(cost), str(choice.max_calls), str(choice.max_cost)),
    ]
    return LoopEstimate(run, loop.max_rounds + 1, calls, tokens, cost, sha256_hex(canonical_json(said)))


def _resolving(loop: ResolutionLoop, ahead: LookAhead, instructions: int) -> tuple[int, int, Decimal]:
    """Calls, tokens read and cost of the resolver over all rounds, at most."""
    if loop.resolver is None:
        return 0, 0, Decimal(0)
    config = endpoint_config(loop.resolver, with_key=False)
    sizes = [sum(min(len(text), SHOWN_CHARS) for text in one.values()) for one in ahead.first]
    each = _FRAME_TOKENS + (SHOWN_FAILURES + SHOWN_SUCCESSES) * (max(sizes, default=0) // 3 + 40)
    calls = loop.max_rounds * min(MOST_GROUPS, instructions + 1)
    cost = price(loop.resolver, prompt_tokens=each, completion_tokens=config.max_output_tokens) * calls
    return calls, each * calls, cost


def loop_conditions(loop: ResolutionLoop, dataset: Dataset | None = None) -> Conditions:
    """Under which each round is measured: always on validation, so that the test split stays unseen."""
    return Conditions(split=Split.VALIDATION, dataset=dataset, sample_size=loop.sample_size, seed=loop.seed)


def loop_prompt(loop: ResolutionLoop) -> PromptChoice:
    return PromptChoice(kind=PromptKind.DRAFT, ruleset=loop.ruleset)


def _loop_planned(task: Task, choice: LoopChoice) -> ResolutionLoop:
    """The unsaved loop. Raises InvalidInput for what cannot be."""
    if choice.ruleset.task_id != task.pk:
        raise InvalidInput(_("Choose a ruleset of this task."))
    if not 1 <= choice.max_rounds <= MOST_ROUNDS:
        raise InvalidInput(_("Choose 1 to %(n)d rounds.") % {"n": MOST_ROUNDS})
    student = student_usable(choice.student or task.student)
    resolver = student_usable(choice.resolver) if choice.resolver is not None else None
    return ResolutionLoop(
        task=task,
        ruleset=choice.ruleset,
        student=student,
        student_model=student.model,
        resolver=resolver,
        resolver_model=resolver.model if resolver else "",
        sample_size=choice.sample_size,
        seed=choice.seed,
        max_rounds=choice.max_rounds,
        is_automatic=choice.is_automatic,
        max_calls=choice.max_calls,
        max_cost=choice.max_cost,
    )


@transaction.atomic
def loop_create(*, task: Task, user: User | None, choice: LoopChoice, confirmed: str | None = None) -> ResolutionLoop:
    """Begin a loop. `confirmed` is the digest of the estimate that a person was shown; None only without a person.

    Without limits of its own the budget is the estimate with room for retries. Raises InvalidInput when the estimate
    is another one by now, InvalidTransition beside an open loop, NotAllowed for anyone but an administrator.
    """
    require_admin(user)
    estimate = loop_estimate(task=task, choice=choice)
    if user is not None and estimate.digest != confirmed:
        raise InvalidInput(_("What this takes has changed since it was estimated. Look at the new estimate first."))
    # Numbers have no gaps and no doubles, and one loop of a task is open: one at a time.
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    if task.resolution_loops.exclude(state__in=[one for one in LoopState if one.is_final]).exists():
        raise InvalidTransition(_("A loop of this task is under way. Wait for it, or cancel it first."))
    loop = _loop_planned(task, choice)
    loop.dataset = choice.dataset or dataset_current(task, user)
    loop.number = 1 + (task.resolution_loops.aggregate(last=Max("number"))["last"] or 0)
    loop.created_by = user
    loop.estimate = {"calls": estimate.calls, "tokens": estimate.tokens, "cost": str(estimate.cost)}
    if loop.max_calls is None and loop.max_cost is None:
        loop.max_calls = int(estimate.calls * RETRY_SHARE) + 1
        loop.max_cost = estimate.cost * RETRY_SHARE if estimate.cost else None
    loop.save()
    audit_record("resolution.started", actor=user, subject=loop, task_slug=task.slug, data=_event(loop))
    job_restart(kind=JOB_KIND, subject_id=loop.pk, created_by=user)
    return loop


def _event(loop: ResolutionLoop) -> dict[str, Json]:
    return {
        "ruleset": loop.ruleset.number,
        "dataset": loop.dataset.number,
        "student": loop.student_model,
        "resolver": loop.resolver_model,
        "max_rounds": loop.max_rounds,
        "automatic": loop.is_automatic,
        "estimate": loop.estimate,
        "max_calls": loop.max_calls,
        "max_cost": None if loop.max_cost is None else str(loop.max_cost),
    }


def loop_lock(loop_id: int) -> ResolutionLoop:
    """The row, locked until the transaction ends, with all that belongs to it."""
    related = ("task", "ruleset__task", "dataset", "student", "resolver")
    return ResolutionLoop.objects.select_for_update(of=("self",)).select_related(*related).get(pk=loop_id)


def round_open(loop: ResolutionLoop) -> ResolutionRound | None:
    """The newest round."""
    return loop.rounds.select_related("loop__task", "run").order_by("-number").first()


def open_rows(round_: ResolutionRound) -> int:
    """How many proposals and candidates of the round people have not decided yet."""
    groups = round_.groups.select_related("proposal__instruction", "candidate")
    proposals = sum(group.proposal is not None and not group.proposal.is_settled for group in groups)
    return proposals + sum(group.candidate is not None and group.candidate.is_open for group in groups)


@transaction.atomic
def loop_next(*, loop_id: int, user: User | None) -> ResolutionLoop:
    """Measure the texts that stand now. Raises InvalidTransition while proposals of the round wait for a decision."""
    require_admin(user)
    loop = loop_lock(loop_id)
    round_ = round_open(loop)
    if loop.state != LoopState.WAITING or round_ is None or round_.state != RoundState.WAITING:
        raise InvalidTransition(_("This loop waits for nobody: there is no round to begin."))
    left = open_rows(round_)
    if left:
        text = _("%(n)d proposals of this round wait for a reviewer. Decide them first, or cancel the loop.")
        raise InvalidTransition(text % {"n": left})
    loop_move(loop, LoopState.QUEUED)
    loop.save(update_fields=["state"])
    data: dict[str, Json] = {"after_round": round_.number}
    audit_record("resolution.continued", actor=user, subject=loop, task_slug=loop.task.slug, data=data)
    job_restart(kind=JOB_KIND, subject_id=loop.pk, created_by=user)
    return loop


def budget_preset(loop: ResolutionLoop) -> dict[str, int | Decimal | None]:
    """What the form offers a paused loop: the whole estimate, with room for retries, on top of what is used."""
    calls = loop.calls_used + int(loop.estimate["calls"] * RETRY_SHARE) + 1
    cost = loop.cost_used + Decimal(loop.estimate["cost"]) * RETRY_SHARE
    return {"max_calls": calls, "max_cost": cost.quantize(Decimal("0.01"), ROUND_UP) if cost else None}


@transaction.atomic
def loop_release(*, loop_id: int, user: User, max_calls: int | None, max_cost: Decimal | None) -> ResolutionLoop:
    """Let a loop that ran out of budget go on within this one (None: no limit on it)."""
    require_admin(user)
    loop = loop_lock(loop_id)
    if loop.state != LoopState.PAUSED:
        raise InvalidTransition(_("This loop does not wait for a budget."))
    if max_calls is None and max_cost is None:
        raise InvalidInput(_("Set the most calls, the most money, or both."))
    if (max_calls is not None and max_calls <= loop.calls_used) or (max_cost is not None and max_cost < loop.cost_used):
        text = _("%(calls)d calls and %(cost).2f are used already. Set more than that, or cancel the loop.")
        raise InvalidInput(text % {"calls": loop.calls_used, "cost": loop.cost_used})
    loop_move(loop, LoopState.QUEUED)
    loop.max_calls, loop.max_cost, loop.error = max_calls, max_cost, ""
    loop.save(update_fields=["state", "max_calls", "max_cost", "error"])
    data: dict[str, Json] = {"max_calls": max_calls, "max_cost": None if max_cost is None else str(max_cost)}
    audit_record("resolution.budget_raised", actor=user, subject=loop, task_slug=loop.task.slug, data=data)
    job_restart(kind=JOB_KIND, subject_id=loop.pk, created_by=user)
    return loop


@transaction.atomic
def loop_cancel(*, loop_id: int, user: User) -> ResolutionLoop:
    """Ask a loop to stop before its next call; one that no worker holds ends here. Its proposals stay in review."""
    require_admin(user)
    loop = loop_lock(loop_id)
    if loop.is_final:
        raise InvalidTransition(_("This loop is over already."))
    if loop.cancel_requested_at is None:
        loop.cancel_requested_at = timezone.now()
        loop.save(update_fields=["cancel_requested_at"])
        audit_record("resolution.cancelled", actor=user, subject=loop, task_slug=loop.task.slug)
    round_ = round_open(loop)
    if round_ is not None and not round_.is_reused and not round_.run.is_final:
        evaluation_run_cancel(run_id=round_.run_id, user=user)
    if not job_is_running(kind=JOB_KIND, subject_id=loop.pk):
        loop_close(loop, LoopState.CANCELLED)
    return loop


def loop_close(loop: ResolutionLoop, state: LoopState, *, reason: StopReason | str = "", error: str = "") -> None:
    """End a locked loop with its one event, in the caller's transaction; nothing happens to one that is over."""
    if loop.is_final:
        return
    round_ = round_open(loop)
    if round_ is not None and round_.state != RoundState.OVER:
        round_move(round_, RoundState.OVER)
    loop_move(loop, state)
    loop.stop_reason, loop.error, loop.finished_at = reason, error, timezone.now()
    loop.save(update_fields=["state", "stop_reason", "error", "finished_at"])
    data: dict[str, Json] = {"state": state.value, "reason": str(reason), "error": error, "rounds": loop.rounds.count()}
    audit_record("resolution.finished", actor=None, subject=loop, task_slug=loop.task.slug, data=data)


def round_move(round_: ResolutionRound, to: RoundState) -> None:
    """Move and save; once the measurement is over, what it did not use goes back to the loop's budget."""
    if round_.state == RoundState.MEASURING:
        _settle(round_)
    round_.state = to
    round_.save(update_fields=["state"])


def _settle(round_: ResolutionRound) -> None:
    if not (round_.set_aside_calls or round_.set_aside_cost):
        return
    paid = ModelCall.objects.filter(scope__in=round_.run.call_scopes).aggregate(
        calls=Sum("attempts", default=0), cost=Sum("cost", default=0)
    )
    budget = RunBudget(round_.loop_id, ResolutionLoop)
    budget.returned(round_.set_aside_calls - paid["calls"], round_.set_aside_cost - paid["cost"])
