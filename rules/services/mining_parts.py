"""A stage of calls shared by several workers: its parts are rows that are claimed one by one.

The run's own job decides about the run and works on parts itself; helpers' jobs only add answers. A part is held by the
job that claimed it for as long as that job's lease lives. A helper that stops early, for whatever reason, leaves its
part to the run's own job, which meets the same reason and says so on the run. Whoever asks, an endpoint's limits hold
over all of them (pld_app.model_edge.limits).
"""

import math
from collections.abc import Callable
from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, PutOff, job_enqueue
from pld_app.model_edge import BudgetExhausted, EndpointMisconfigured, ModelUnavailable
from pld_app.models import Job, JobState
from rules.models import MiningPart, MiningRun, MiningStage, RunState, Split
from rules.prompts import EMBED_BATCH
from rules.services.mining_batches import part_extract
from rules.services.mining_extract import imported_write, teacher_parts, traces_left
from rules.services.mining_run import Cancelled, Part, RunContext, SliceOver, run_wake

log = structlog.get_logger(__name__)

JOB_KIND = "mining_extract_part"
# The helper wakes the run when it is done; this is how long it takes to notice one that died.
LOOK_AGAIN = timedelta(seconds=5)
_OPEN = (JobState.QUEUED, JobState.RUNNING)


def extraction_work(context: RunContext) -> None:
    """Give every train trace its micro-rule row. Raises PutOff while a helper still works on its part."""
    imported_write(context)
    if traces_left(context.run).exists():
        stage_share(context)
        # Traces imported after the stage was divided may belong to a part that was over by then.
        for part in teacher_parts(context.run):
            if traces_left(context.run, part).exists():
                part_extract(context, part)
    total = context.run.task.traces.filter(split=Split.TRAIN).count()
    context.progress(context.run.micro_rules.count(), total)


def stage_share(context: RunContext) -> None:
    """Do the calls of the run's present stage, with helpers where it is divided. Raises PutOff while they work."""
    parts = _parts_of(context)
    if len(parts) > 1:
        _parts_open(context, parts)
        _parts_work(context, parts, is_helper=False)
        if _open_parts(context).exists():
            raise PutOff(timezone.now() + LOOK_AGAIN, _("Another worker is still at its part of this stage."))
    else:
        for part in parts:
            _work_of(context)(context, part)


def _work_of(context: RunContext) -> Callable[[RunContext, Part], None]:
    """What the stage does with one part. Imported when needed: two of them bring scikit-learn."""
    match MiningStage(context.run.stage):
        case MiningStage.EMBED:
            from rules.services.mining_vectors import embeddings_ask  # noqa: PLC0415

            return embeddings_ask
        case MiningStage.SYNTHESIZE:
            from rules.services.mining_candidates import syntheses_ask  # noqa: PLC0415

            return syntheses_ask
        case _:
            return part_extract


def _parts_of(context: RunContext) -> list[Part]:
    """How the present stage is divided; a stage without an endpoint to ask has no part."""
    run, workers = context.run, context.parameters.workers
    if run.stage == MiningStage.EXTRACT:
        if context.parameters.batch:
            return teacher_parts(run)
        endpoints = len(teacher_parts(run)) or 1
        return teacher_parts(run, min(workers, math.ceil(_total(context) / endpoints) or 1))
    endpoint = run.embedder if run.stage == MiningStage.EMBED else run.teacher
    if endpoint is None:
        return []
    count = max(1, min(workers, _total(context)))
    return [Part(endpoint, rest, count) for rest in range(count)]


def _total(context: RunContext) -> int:
    """Calls of the stage in all; the same at every look, since it decides how the stage is divided."""
    run = context.run
    if run.stage == MiningStage.EXTRACT:
        return run.task.traces.filter(split=Split.TRAIN).count()
    if run.stage == MiningStage.EMBED:
        return math.ceil(run.micro_rules.exclude(text="").count() / EMBED_BATCH)
    return run.clusters.count()


def _helper_jobs(run: MiningRun) -> QuerySet[Job]:
    return Job.objects.filter(kind=JOB_KIND, subject_id=run.pk, state__in=_OPEN)


def _open_parts(context: RunContext) -> QuerySet[MiningPart]:
    return MiningPart.objects.filter(run=context.run, stage=context.run.stage, finished_at=None)


@transaction.atomic
def _parts_open(context: RunContext, parts: list[Part]) -> None:
    """The rows of the parts, and a helper for each but one, once for each job of the run.

    What stopped a helper would stop the next one too, so none is made again for the same job.
    """
    context.check_lease()
    run = context.run
    rows = [MiningPart(run=run, stage=run.stage, rest=part.rest, of=part.of) for part in parts]
    MiningPart.objects.bulk_create(rows, ignore_conflicts=True)
    assert context.lease is not None
    missing = _open_parts(context).count() - 1 - _helper_jobs(run).count()
    for number in range(missing):
        key = f"{JOB_KIND}:{context.lease.job_id}:{run.stage}:{number}"
        job_enqueue(kind=JOB_KIND, subject_id=run.pk, key=key, created_by=run.created_by)


def _parts_work(context: RunContext, parts: list[Part], *, is_helper: bool) -> None:
    work, part_of = _work_of(context), {part.rest: part for part in parts}
    while (row := _part_claim(context, is_helper=is_helper)) is not None:
        context.part = row
        work(context, part_of[row.rest])
        with transaction.atomic():
            context.check_lease()
            _open_parts(context).filter(pk=row.pk).update(finished_at=timezone.now())
        context.part = None


@transaction.atomic
def _part_claim(context: RunContext, *, is_helper: bool) -> MiningPart | None:
    """Take a part that nobody living holds; the run's own job leaves one to each helper that has none yet."""
    context.check_lease()
    assert context.lease is not None
    now = timezone.now()
    holders = Job.objects.filter(lease_token=OuterRef("lease_token"), state=JobState.RUNNING, lease_until__gt=now)
    free = _open_parts(context).alias(is_held=Exists(holders)).filter(is_held=False)
    held = _open_parts(context).filter(lease_token=OuterRef("lease_token"))
    idle = _helper_jobs(context.run).filter(~Exists(held) | Q(lease_until__lte=now)).order_by()
    counted = Subquery(idle.values("kind").annotate(n=Count("pk")).values("n"))
    # One question: a helper that takes a part between two of them would be counted as waiting for the one that is left.
    rows = list(free.order_by("rest").values_list("pk", Coalesce(counted, 0)))
    if not is_helper and rows and len(rows) <= rows[0][1]:
        return None
    for pk, _idle in rows:
        # Of this table alone: the order of parts joins the run, whose row every claim would lock.
        row = _open_parts(context).select_for_update(of=("self",), skip_locked=True).filter(pk=pk).first()
        # Looked at again under the lock: somebody may have taken it and gone on since the list was read.
        if row is not None and free.filter(pk=pk).exists():
            row.lease_token = context.lease.token
            row.save(update_fields=["lease_token"])
            return row
    return None


class HelperContext(RunContext):
    """A helper's work: it stops as soon as the run is anything but in the stage it helps with."""

    def _is_cancelled(self) -> bool:
        here = MiningRun.objects.filter(pk=self.run.pk, state=RunState.RUNNING, stage=self.run.stage)
        return not here.filter(cancel_requested_at=None).exists()


def mining_part_execute(run_id: int, lease: Lease) -> JobResult:
    """Work on parts of the run's present stage until none is left."""
    related = ("task", "teacher", "second_teacher", "embedder")
    run = MiningRun.objects.select_related(*related).get(pk=run_id)
    context = HelperContext(run, lease)
    if run.stage not in {MiningStage.EXTRACT, MiningStage.EMBED, MiningStage.SYNTHESIZE}:
        return JobResult.DONE
    try:
        context.check_cancelled()
        _parts_work(context, _parts_of(context), is_helper=True)
    except SliceOver:
        return JobResult.AGAIN
    except Cancelled:
        return JobResult.CANCELLED
    except (ModelUnavailable, BudgetExhausted, EndpointMisconfigured, InvalidInput) as error:
        log.warning("mining.helper_stopped", run=str(run), error=str(error))
    run_wake(run_id, within=LOOK_AGAIN)
    return JobResult.DONE


def mining_part_failed(run_id: int, error: str) -> None:
    """The helper was given up: its rest falls to the run's own job."""
    log.warning("mining.helper_given_up", run=run_id, error=error)
    run_wake(run_id, within=LOOK_AGAIN)
