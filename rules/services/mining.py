"""Mining runs: started, cancelled and carried out stage by stage; every stage leaves rows that a restart builds on."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, PutOff, job_is_running, job_restart
from pld_app.model_edge import BudgetExhausted, EndpointMisconfigured, ModelUnavailable
from pld_app.models import User
from rules.exceptions import InvalidTransition
from rules.models import OPEN_STATES, MiningRun, MiningStage, RunState, Split, Task
from rules.schemas import MiningParameters, RunEstimate
from rules.services.mining_batches import batches_cancel
from rules.services.mining_estimate import is_repeat, run_estimate
from rules.services.mining_run import RUN_KIND, Cancelled, RunContext, SliceOver, run_finish
from rules.transitions import mining_run_move

JOB_KIND = RUN_KIND


def _work_of(stage: MiningStage) -> Callable[[RunContext], None]:
    """What a stage does. Imported when it begins: scikit-learn costs every other process seconds at its start."""
    match stage:
        case MiningStage.EXTRACT:
            from rules.services.mining_parts import extraction_work  # noqa: PLC0415

            return extraction_work
        case MiningStage.CLUSTER:
            from rules.services.mining_clusters import clusters_write  # noqa: PLC0415

            return clusters_write
        case MiningStage.PUBLISH:
            from rules.services.mining_candidates import candidates_write  # noqa: PLC0415

            return candidates_write
        case _:
            from rules.services.mining_parts import stage_share  # noqa: PLC0415

            return stage_share


def _libraries_load() -> threading.Thread:
    """Import what the stages after the first need, while that one waits for the teacher's answers."""

    def load() -> None:
        # What fails here fails again, and is told, where the stage itself imports it.
        with suppress(ImportError):
            _work_of(MiningStage.CLUSTER)
            _work_of(MiningStage.PUBLISH)

    thread = threading.Thread(target=load, name="mining-libraries", daemon=True)
    thread.start()
    return thread


def mining_run_create(*, task: Task, user: User | None, parameters: MiningParameters) -> MiningRun:
    """A run over the train traces of a task, queued, or awaiting confirmation if it would make paid calls.

    Without a user it was started at the server itself, where there is nobody to ask: it is queued, without limits.
    Raises InvalidInput, InvalidTransition beside an open run, EndpointMisconfigured for an endpoint switched off.
    """
    task = Task.objects.select_related("teacher", "second_teacher", "embedder").get(pk=task.pk)
    # Before the lock: it reads every trace to be extracted.
    estimate = run_estimate(task, parameters) if user is not None else RunEstimate()
    repeat = is_repeat(task, parameters, estimate) if user is not None else False
    with transaction.atomic():
        run = _run_new(task, user, parameters)
        run.estimate = estimate.model_dump(mode="json")
        if estimate.calls and not repeat:
            run.state = RunState.AWAITING
        elif estimate.calls:
            # The same was asked before: should anything turn out to be new, the run pauses instead of paying for it.
            run.max_calls = 0
        run.save()
        data: dict[str, Json] = {"parameters": parameters.model_dump_json(), "calls": estimate.calls}
        data |= {"teacher": str(task.teacher), "embedder": str(task.embedder), "state": str(run.state)}
        if task.second_teacher is not None:
            data["second_teacher"] = str(task.second_teacher)
        audit_record("mining.started", actor=user, subject=run, task_slug=task.slug, data=data)
        if run.state == RunState.QUEUED:
            job_restart(kind=JOB_KIND, subject_id=run.pk, created_by=user)
    return run


def _run_new(task: Task, user: User | None, parameters: MiningParameters) -> MiningRun:
    task = (
        Task.objects.select_for_update(of=("self",))
        .select_related("teacher", "second_teacher", "embedder")
        .get(pk=task.pk)
    )
    if not task.traces.filter(split=Split.TRAIN).exists():
        raise InvalidInput("There are no train traces to mine. Import a trace file first.")
    if task.mining_runs.filter(state__in=OPEN_STATES).exists():
        raise InvalidTransition("A mining run of this task is under way. Wait for it or cancel it.")
    return MiningRun(
        task=task,
        number=1 + (task.mining_runs.aggregate(last=Max("number"))["last"] or 0),
        parameters=parameters.model_dump(),
        teacher=task.teacher,
        second_teacher=task.second_teacher,
        embedder=task.embedder,
        created_by=user,
    )


@transaction.atomic
def mining_run_release(*, run_id: int, user: User, max_calls: int | None, max_cost: Decimal | None) -> MiningRun:
    """Let a run that awaits confirmation begin, or a paused one go on, within this budget (None: no limit on it).

    Raises InvalidTransition in any other state, InvalidInput without a limit or for one that is used up already.
    """
    run = MiningRun.objects.select_for_update(of=("self",)).select_related("task").get(pk=run_id)
    action = "mining.confirmed" if run.state == RunState.AWAITING else "mining.budget_raised"
    if run.state not in {RunState.AWAITING, RunState.PAUSED}:
        raise InvalidTransition(f"This run is {run.get_state_display().lower()}: it needs no confirmation.")
    if max_calls is None and max_cost is None:
        raise InvalidInput("Set the most calls, the most money, or both.")
    if (max_calls is not None and max_calls <= run.calls_used) or (max_cost is not None and max_cost < run.cost_used):
        used = f"{run.calls_used} calls and {run.cost_used:.2f}"
        raise InvalidInput(f"{used} are used or set aside already. Set more than that, or cancel the run.")
    mining_run_move(run, RunState.QUEUED)
    run.max_calls, run.max_cost, run.error = max_calls, max_cost, ""
    run.save(update_fields=["state", "max_calls", "max_cost", "error"])
    data: dict[str, Json] = {"max_calls": max_calls, "max_cost": None if max_cost is None else str(max_cost)}
    data |= {"calls_used": run.calls_used, "cost_used": str(run.cost_used)}
    audit_record(action, actor=user, subject=run, task_slug=run.task.slug, data=data)
    job_restart(kind=JOB_KIND, subject_id=run.pk, created_by=user)
    return run


@transaction.atomic
def mining_run_cancel(*, run_id: int, user: User) -> MiningRun:
    """Ask a run to stop before its next model call; one that no worker holds ends here. What was paid is kept."""
    run = MiningRun.objects.select_for_update(of=("self",)).select_related("task").get(pk=run_id)
    if run.is_final:
        raise InvalidTransition(f"This run is {run.get_state_display().lower()} already.")
    run.cancel_requested_at = timezone.now()
    run.save(update_fields=["cancel_requested_at"])
    audit_record("mining.cancelled", actor=user, subject=run, task_slug=run.task.slug)
    batches_cancel(run)
    at_rest = run.state in {RunState.AWAITING, RunState.PAUSED}
    if at_rest or not job_is_running(kind=JOB_KIND, subject_id=run.pk):
        run_finish(RunContext(run, None), RunState.CANCELLED, "")
    return run


def mining_run_execute(run_id: int, lease: Lease) -> JobResult:
    """Carry the run on from the stage it is in."""
    run = MiningRun.objects.select_related("task", "teacher", "second_teacher", "embedder").get(pk=run_id)
    if run.is_final or run.state in {RunState.AWAITING, RunState.PAUSED}:
        return JobResult.DONE
    context = RunContext(run, lease)
    try:
        _run_start(context)
        return _stages_run(context)
    except SliceOver:
        return JobResult.AGAIN
    except Cancelled:
        run_finish(context, RunState.CANCELLED, "")
        return JobResult.CANCELLED
    except ModelUnavailable as error:
        if error.retry_after_s is not None:
            raise PutOff(timezone.now() + timedelta(seconds=error.retry_after_s), str(error)) from error
        run_finish(context, RunState.FAILED, str(error))
    except BudgetExhausted as error:
        _run_pause(context, str(error))
    except (EndpointMisconfigured, InvalidInput) as error:
        run_finish(context, RunState.FAILED, str(error))
    return JobResult.DONE


@transaction.atomic
def _run_pause(context: RunContext, why: str) -> None:
    """Stop for want of budget; the next stage or call is where the run goes on once it may spend more."""
    context.check_lease()
    run = MiningRun.objects.select_for_update(of=("self",)).select_related("task").get(pk=context.run.pk)
    if run.cancel_requested_at is not None:
        run_finish(context, RunState.CANCELLED, "")
        return
    mining_run_move(run, RunState.PAUSED)
    run.error = why
    run.save(update_fields=["state", "error"])
    data: dict[str, Json] = {"error": why, "calls_used": run.calls_used, "cost_used": str(run.cost_used)}
    audit_record("mining.paused", actor=None, subject=run, task_slug=run.task.slug, data=data)


def mining_run_failed(run_id: int, error: str) -> None:
    """The job was given up: say so on the run."""
    run = MiningRun.objects.select_related("task").get(pk=run_id)
    if not run.is_final:
        run_finish(RunContext(run, None), RunState.FAILED, error)


def _run_start(context: RunContext) -> None:
    context.check_cancelled()
    if context.run.state == RunState.QUEUED:
        with transaction.atomic():
            context.check_lease()
            mining_run_move(context.run, RunState.RUNNING)
            context.run.started_at = context.run.started_at or timezone.now()
            context.run.save(update_fields=["state", "started_at"])


def _stages_run(context: RunContext) -> JobResult:
    loading = _libraries_load()
    stages = list(MiningStage)
    for stage in stages[stages.index(MiningStage(context.run.stage)) :]:
        if stage != MiningStage.EXTRACT:
            loading.join()
        context.stage_begin(stage)
        _work_of(stage)(context)
    return JobResult.DONE
