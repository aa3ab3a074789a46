"""Mining runs: started, cancelled and carried out stage by stage; every stage leaves rows that a restart builds on."""

from collections.abc import Callable
from datetime import timedelta

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from pld_app.audit import audit_record
from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, PutOff, job_enqueue
from pld_app.model_edge import BudgetExhausted, EndpointMisconfigured, ModelUnavailable
from pld_app.models import Job, JobState, User
from rules.exceptions import InvalidTransition
from rules.models import OPEN_STATES, MiningRun, MiningStage, RunState, Split, Task
from rules.schemas import MiningParameters
from rules.services.mining_run import Cancelled, RunContext, SliceOver, run_finish
from rules.transitions import mining_run_move

JOB_KIND = "mining_run"


def _stages() -> tuple[tuple[MiningStage, Callable[[RunContext], None]], ...]:
    """The stages in order. Imported when a run begins: scikit-learn costs every other process seconds at its start."""
    from rules.services.mining_candidates import candidates_write, syntheses_ask  # noqa: PLC0415
    from rules.services.mining_clusters import clusters_write  # noqa: PLC0415
    from rules.services.mining_extract import micro_rules_write  # noqa: PLC0415
    from rules.services.mining_vectors import embeddings_ask  # noqa: PLC0415

    return (
        (MiningStage.EXTRACT, micro_rules_write),
        (MiningStage.EMBED, embeddings_ask),
        (MiningStage.CLUSTER, clusters_write),
        (MiningStage.SYNTHESIZE, syntheses_ask),
        (MiningStage.PUBLISH, candidates_write),
    )


@transaction.atomic
def mining_run_create(*, task: Task, user: User | None, parameters: MiningParameters) -> MiningRun:
    """Queue a run over the train traces of a task. Raises InvalidInput, InvalidTransition beside an open one."""
    task = Task.objects.select_for_update(of=("self",)).select_related("teacher", "embedder").get(pk=task.pk)
    if not task.traces.filter(split=Split.TRAIN).exists():
        raise InvalidInput("There are no train traces to mine. Import a trace file first.")
    if task.mining_runs.filter(state__in=OPEN_STATES).exists():
        raise InvalidTransition("A mining run of this task is under way. Wait for it or cancel it.")
    number = 1 + (task.mining_runs.aggregate(last=Max("number"))["last"] or 0)
    run = MiningRun(
        task=task,
        number=number,
        parameters=parameters.model_dump(),
        teacher=task.teacher,
        embedder=task.embedder,
        created_by=user,
    )
    run.save()
    data = {"parameters": parameters.model_dump_json(), "teacher": str(task.teacher), "embedder": str(task.embedder)}
    audit_record("mining.started", actor=user, subject=run, task_slug=task.slug, data=data)
    job_enqueue(kind=JOB_KIND, subject_id=run.pk, key=f"{JOB_KIND}:{run.pk}", created_by=user)
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
    if not Job.objects.filter(kind=JOB_KIND, subject_id=run.pk, state=JobState.RUNNING).exists():
        run_finish(RunContext(run, None), RunState.CANCELLED, "")
    return run


def mining_run_execute(run_id: int, lease: Lease) -> JobResult:
    """Carry the run on from the stage it is in."""
    run = MiningRun.objects.select_related("task", "teacher", "embedder").get(pk=run_id)
    if run.is_final:
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
    except (BudgetExhausted, EndpointMisconfigured, InvalidInput) as error:
        run_finish(context, RunState.FAILED, str(error))
    return JobResult.DONE


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
            context.run.started_at = timezone.now()
            context.run.save(update_fields=["state", "started_at"])


def _stages_run(context: RunContext) -> JobResult:
    stages = _stages()
    first = [stage for stage, _work in stages].index(MiningStage(context.run.stage))
    for stage, work in stages[first:]:
        context.stage_begin(stage)
        work(context)
    return JobResult.DONE
