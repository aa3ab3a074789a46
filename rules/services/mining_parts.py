"""Extraction shared by two workers: every other trace goes to the task's second teacher endpoint.

The run's own job asks the first endpoint and alone decides about the run; a helper's job asks the second one and only
adds micro-rules. Who is done is counted in rows. A helper that stops early, for whatever reason, leaves its rest to the
run's own job, which meets the same reason and says so on the run.
"""

from datetime import timedelta
from functools import partial

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, PutOff, hint_send, job_enqueue
from pld_app.model_edge import BudgetExhausted, EndpointMisconfigured, ModelUnavailable
from pld_app.models import Job, JobState
from rules.models import MiningRun, MiningStage, RunState, Split
from rules.services.mining_extract import imported_write, part_write, teacher_parts, traces_left
from rules.services.mining_run import Cancelled, RunContext, SliceOver

log = structlog.get_logger(__name__)

JOB_KIND = "mining_extract_part"
RUN_KIND = "mining_run"
# The helper wakes the run when it is done; this is how long it takes to notice one that died.
LOOK_AGAIN = timedelta(seconds=5)
_OPEN = (JobState.QUEUED, JobState.RUNNING)


def extraction_work(context: RunContext) -> None:
    """Give every train trace its micro-rule row. Raises PutOff while a helper still works on its half."""
    imported_write(context)
    parts = teacher_parts(context.run)
    if len(parts) > 1:
        _helper_ensure(context)
    for number, part in enumerate(parts):
        if number and traces_left(context.run, part).exists() and _helper_jobs(context.run).exists():
            raise PutOff(timezone.now() + LOOK_AGAIN, _("A second worker extracts the other half."))
        part_write(context, part)
    total = context.run.task.traces.filter(split=Split.TRAIN).count()
    context.progress(context.run.micro_rules.count(), total)


def _helper_jobs(run: MiningRun) -> QuerySet[Job]:
    return Job.objects.filter(kind=JOB_KIND, subject_id=run.pk, state__in=_OPEN)


@transaction.atomic
def _helper_ensure(context: RunContext) -> None:
    """A job for the second half, once for each job of the run: what stopped a helper would stop the next one too."""
    context.check_lease()
    run = context.run
    assert context.lease is not None
    if not _helper_jobs(run).exists() and traces_left(run, teacher_parts(run)[1]).exists():
        key = f"{JOB_KIND}:{context.lease.job_id}"
        job_enqueue(kind=JOB_KIND, subject_id=run.pk, key=key, created_by=run.created_by)


class HelperContext(RunContext):
    """A helper's work: it stops as soon as the run is anything but extracting."""

    def _is_cancelled(self) -> bool:
        extracting = MiningRun.objects.filter(state=RunState.RUNNING, stage=MiningStage.EXTRACT)
        return not extracting.filter(pk=self.run.pk, cancel_requested_at=None).exists()


def mining_part_execute(run_id: int, lease: Lease) -> JobResult:
    """Extract the second half of a run, or go on with it."""
    related = ("task", "teacher", "second_teacher", "embedder")
    run = MiningRun.objects.select_related(*related).get(pk=run_id)
    context = HelperContext(run, lease)
    try:
        context.check_cancelled()
        for part in teacher_parts(run)[1:]:
            part_write(context, part)
    except SliceOver:
        return JobResult.AGAIN
    except Cancelled:
        return JobResult.CANCELLED
    except (ModelUnavailable, BudgetExhausted, EndpointMisconfigured, InvalidInput) as error:
        log.warning("mining.helper_stopped", run=str(run), error=str(error))
    run_wake(run_id)
    return JobResult.DONE


def mining_part_failed(run_id: int, error: str) -> None:
    """The helper was given up: its rest falls to the run's own job."""
    log.warning("mining.helper_given_up", run=run_id, error=error)
    run_wake(run_id)


def run_wake(run_id: int) -> None:
    """Have a run that waits for its helper look again now; not one that waits longer, for a provider."""
    now = timezone.now()
    waiting = Job.objects.filter(
        kind=RUN_KIND, subject_id=run_id, state=JobState.QUEUED, run_after__lte=now + LOOK_AGAIN
    )
    for pk in list(waiting.values_list("pk", flat=True)):
        waiting.filter(pk=pk).update(run_after=now)
        transaction.on_commit(partial(hint_send, pk), robust=True)
