"""What a worker does with a loop: measure, group, ask the resolver, hand to review; then people, then again."""

from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from evaluation.models import (
    EvaluationRun,
    LoopState,
    PromptKind,
    ResolutionLoop,
    ResolutionRound,
    RoundState,
    StopReason,
)
from evaluation.schemas import RunFigures
from evaluation.services.execution import MAX_WAIT, AlreadyOver
from evaluation.services.grouping import groups_find, groups_write
from evaluation.services.input_templates import input_template_of
from evaluation.services.loops import (
    loop_close,
    loop_conditions,
    loop_lock,
    loop_prompt,
    open_rows,
    round_move,
    round_open,
)
from evaluation.services.proposing import Asker, outcomes_write
from evaluation.services.runs import look_ahead, run_create, run_estimate, run_planned
from evaluation.services.standing import Standing, standing_texts
from evaluation.services.writing import Cancelled, SliceOver, StopQuestion
from evaluation.transitions import loop_move
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, PutOff
from pld_app.model_edge import BudgetExhausted, EndpointMisconfigured, ModelUnavailable
from pld_app.models import ModelCall
from rules.exceptions import InvalidTransition
from rules.models import RunState, Split
from rules.services.mining_budget import RunBudget

# A measurement is a job of its own; this one looks whether it is over.
LOOK_AGAIN = timedelta(seconds=2)
# People take hours: an automatic loop looks whether they are done.
LOOK_FOR_DECISIONS = timedelta(seconds=60)


class Work:
    """One worker's turn with one loop."""

    def __init__(self, loop_id: int, lease: Lease) -> None:
        self.loop_id = loop_id
        self.lease = lease
        self.stop = StopQuestion(ResolutionLoop(pk=loop_id), lease)

    def locked(self) -> ResolutionLoop:
        """The loop under its row lock, in the caller's transaction. Raises LeaseLost, Cancelled."""
        self.lease.check()
        loop = loop_lock(self.loop_id)
        if loop.is_final:
            raise AlreadyOver
        if loop.cancel_requested_at is not None:
            raise Cancelled
        return loop


def loop_execute(loop_id: int, lease: Lease) -> JobResult:
    """Carry the loop on from where its rows say it is, until it waits for people or is over."""
    work = Work(loop_id, lease)
    try:
        _start(work)
        while _step(work):
            work.stop.check()
    except AlreadyOver:
        return JobResult.DONE
    except SliceOver:
        return JobResult.AGAIN
    except Cancelled:
        _end(work, LoopState.CANCELLED)
        return JobResult.CANCELLED
    except ModelUnavailable as error:
        _put_off_or_fail(work, error)
    except BudgetExhausted as error:
        _pause(work, str(error))
    except (EndpointMisconfigured, InvalidInput, InvalidTransition) as error:
        _end(work, LoopState.FAILED, error=str(error))
    return JobResult.DONE


@transaction.atomic
def loop_failed(loop_id: int, error: str) -> None:
    """The job was given up: say so on the loop."""
    loop_close(loop_lock(loop_id), LoopState.FAILED, error=error)


@transaction.atomic
def _end(work: Work, state: LoopState, *, reason: StopReason | str = "", error: str = "") -> None:
    work.lease.check()
    loop_close(loop_lock(work.loop_id), state, reason=reason, error=error)


@transaction.atomic
def _pause(work: Work, why: str) -> None:
    """Stop for want of budget; it goes on from the same place once it may spend more."""
    loop = work.locked()
    loop_move(loop, LoopState.PAUSED)
    loop.error = why
    loop.save(update_fields=["state", "error"])
    data: dict[str, Json] = {"error": why, "calls_used": loop.calls_used, "cost_used": str(loop.cost_used)}
    audit_record("resolution.paused", actor=None, subject=loop, task_slug=loop.task.slug, data=data)


def _put_off_or_fail(work: Work, error: ModelUnavailable) -> None:
    loop = ResolutionLoop.objects.get(pk=work.loop_id)
    answers = ModelCall.objects.filter(scope=loop.call_scope, outcome=ModelCall.OK).order_by("-pk")
    round_ = round_open(loop)
    heard_from = answers.values_list("at", flat=True).first() or (round_.created_at if round_ else loop.created_at)
    if error.retry_after_s is None or timezone.now() - heard_from > MAX_WAIT:
        _end(work, LoopState.FAILED, error=str(error))
        return
    raise PutOff(timezone.now() + timedelta(seconds=error.retry_after_s), str(error)) from error


@transaction.atomic
def _start(work: Work) -> None:
    loop = work.locked()
    if loop.state == LoopState.PAUSED or (loop.state == LoopState.WAITING and not loop.is_automatic):
        raise AlreadyOver
    now = (loop.student.model, loop.resolver.model if loop.resolver else "")
    if now != (loop.student_model, loop.resolver_model):
        text = _("An endpoint now names another model (%(models)s). Start a new loop with it.")
        raise InvalidInput(text % {"models": ", ".join(filter(None, now))})
    if loop.state == LoopState.WAITING:
        round_ = round_open(loop)
        if round_ is not None and open_rows(round_):
            raise PutOff(timezone.now() + LOOK_FOR_DECISIONS, "reviewers decide")
    if loop.state != LoopState.RUNNING:
        loop_move(loop, LoopState.RUNNING)
        loop.save(update_fields=["state"])


def _step(work: Work) -> bool:
    """Do what comes next; False once nothing does without people."""
    loop = ResolutionLoop.objects.select_related("task", "ruleset__task", "dataset", "student", "resolver").get(
        pk=work.loop_id
    )
    round_ = round_open(loop)
    if round_ is None or round_.state in {RoundState.WAITING, RoundState.OVER}:
        return _round_begin(work, loop, round_)
    if round_.state == RoundState.MEASURING:
        return _measured(work, round_)
    return _ask(work, loop, round_)


def _round_begin(work: Work, loop: ResolutionLoop, before: ResolutionRound | None) -> bool:
    """Measure the texts that stand now, by a run that is there or a new one."""
    standing = standing_texts(loop)
    if before is not None and standing.prompt_sha256 == before.prompt_sha256:
        _end(work, LoopState.STOPPED, reason=StopReason.UNCHANGED)
        return False
    conditions = loop_conditions(loop, loop.dataset)
    planned = run_planned(loop.task, loop_prompt(loop), loop.student, conditions, prompt=standing.prompt)
    estimate = run_estimate(loop.task, planned, look_ahead(loop.task, conditions))
    with transaction.atomic():
        loop = work.locked()
        if before is not None and before.state != RoundState.OVER:
            round_move(before, RoundState.OVER)
        run = _reusable(loop, standing)
        round_ = ResolutionRound(
            loop=loop, number=1 + loop.rounds.count(), items=[list(pair) for pair in standing.items]
        )
        round_.prompt_sha256, round_.is_reused = standing.prompt_sha256, run is not None
        if run is None:
            RunBudget(loop.pk, ResolutionLoop).set_aside(estimate.calls, estimate.cost)
            round_.set_aside_calls, round_.set_aside_cost = estimate.calls, estimate.cost
            run = run_create(
                loop.task, None, loop_prompt(loop), loop.student, conditions, group=None, prompt=standing.prompt
            )
        round_.run = run
        round_.save()
        data: dict[str, Json] = {"round": round_.number, "run": run.number, "prompt_sha256": round_.prompt_sha256}
        data["reused"] = round_.is_reused
        audit_record("resolution.round_started", actor=None, subject=loop, task_slug=loop.task.slug, data=data)
    return True


def _reusable(loop: ResolutionLoop, standing: Standing) -> EvaluationRun | None:
    """A run that has measured, or is measuring, this very prompt under the loop's conditions."""
    template = input_template_of(loop.task)
    same = EvaluationRun.objects.filter(
        task=loop.task,
        kind__in=[PromptKind.DRAFT, PromptKind.RELEASE],
        prompt_sha256=standing.prompt_sha256,
        student=loop.student,
        student_model=loop.student_model,
        dataset=loop.dataset,
        split=Split.VALIDATION,
        sample_size=loop.sample_size,
        seed=loop.seed,
        temperature=0,
        repeats=1,
        labels=loop.task.labels,
        template=template.text,
        abstention_label=template.abstention_label,
    )
    newest = same.filter(cancel_requested_at=None).order_by("-pk")
    under_way = newest.filter(state__in=[RunState.QUEUED, RunState.RUNNING])
    return newest.filter(state=RunState.SUCCEEDED).first() or under_way.first()


def _measured(work: Work, round_: ResolutionRound) -> bool:
    """Once the run is over: stop if there is nothing to gain, else make groups of what failed."""
    run = round_.run
    if not run.is_final:
        raise PutOff(timezone.now() + LOOK_AGAIN, f"evaluation {run.number} is under way")
    if run.state != RunState.SUCCEEDED:
        text = _("Evaluation %(n)d of round %(round)d has no figures: %(why)s")
        why = run.error or run.get_state_display()
        _end(work, LoopState.FAILED, error=text % {"n": run.number, "round": round_.number, "why": why})
        return False
    grouped = groups_find(round_)
    reason = _stop_reason(round_)
    with transaction.atomic():
        loop = work.locked()
        groups_write(round_, grouped)
        round_move(round_, RoundState.ASKING)
        if reason:
            loop_close(loop, LoopState.STOPPED, reason=reason)
    return not reason


def _stop_reason(round_: ResolutionRound) -> StopReason | str:
    """Why the loop ends with this measurement, or nothing.

    By the estimate itself, as in the paper: on a few hundred examples a test would hardly ever call a gain. Whoever
    reads the page sees the interval of the change beside it.
    """
    figures = RunFigures.model_validate(round_.run.figures)
    if figures.metrics.accuracy == 1:
        return StopReason.NO_FAILURES
    earlier = [
        RunFigures.model_validate(one.run.figures).metrics.macro_f1
        for one in round_.loop.rounds.filter(number__lt=round_.number).select_related("run")
    ]
    if earlier and figures.metrics.macro_f1 <= max(earlier):
        return StopReason.NO_GAIN
    return StopReason.ROUNDS if round_.number > round_.loop.max_rounds else ""


def _ask(work: Work, loop: ResolutionLoop, round_: ResolutionRound) -> bool:
    """Have the resolver write, then hand all of it to review in one transaction."""
    asker = Asker(loop, round_)
    answers = asker.answers(work.stop.should_stop)
    work.stop.check()
    with transaction.atomic():
        loop = work.locked()
        written = outcomes_write(loop, round_, asker, answers)
        data: dict[str, Json] = {
            "round": round_.number,
            "proposals": written.proposals,
            "candidates": written.candidates,
        }
        data["groups"] = written.groups
        audit_record("resolution.proposed", actor=None, subject=loop, task_slug=loop.task.slug, data=data)
        if loop.resolver is not None and not (written.proposals or written.candidates):
            loop_close(loop, LoopState.STOPPED, reason=StopReason.NO_PROPOSALS)
            return False
        round_move(round_, RoundState.WAITING)
        loop_move(loop, LoopState.WAITING)
        loop.save(update_fields=["state"])
    if loop.is_automatic:
        raise PutOff(timezone.now() + LOOK_FOR_DECISIONS, "reviewers decide")
    return False
