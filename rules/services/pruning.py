"""Removing texts whose time is over. The record stays: what was removed is an event, sealed like every other."""

import structlog
from django.db import transaction

from pld_app.audit import Json, audit_record
from pld_app.jobs import JobResult, Lease, job_enqueue
from pld_app.models import User
from rules.models import PruneRun, RetentionPolicy, Task, TraceImport
from rules.selectors import retention as selectors
from rules.services.refusals import database_refusals
from rules.services.retention import installation_policy

log = structlog.get_logger(__name__)
JOB_KIND = "retention.prune"


def prune_enqueue() -> None:
    """Once a day, however often it is asked: the job's key is the day."""
    day = selectors.server_time().strftime("%Y%m%d")
    job_enqueue(kind=JOB_KIND, subject_id=int(day), key=f"{JOB_KIND}:{day}")


def prune(*, actor: User | None = None) -> list[PruneRun]:
    """Remove everything past its period and under no hold, a transaction for the ledger and for each task.

    `actor` None is the daily job. Returns the rows of what was removed; nothing past its period leaves none.
    """
    runs = [_prune_one(task, actor) for task in [None, *Task.objects.order_by("pk")]]
    _prune_working_data()
    return [one for one in runs if one is not None]


@database_refusals()
@transaction.atomic
def _prune_one(task: Task | None, actor: User | None) -> PruneRun | None:
    policy: RetentionPolicy = selectors.policy_for(task) or installation_policy()
    found = selectors.prunable_of(task)
    if not found.count:
        return None
    slug = task.slug if task else ""
    data: dict[str, Json] = {
        "what": "texts of traces" if task else "raw replies of models",
        "removed": found.count,
        "before": found.cutoff.isoformat(),
        "months": policy.months,
        "ids_sha256": found.digest,
    }
    event = audit_record("retention.pruned", actor=actor, subject=policy, task_slug=slug, data=data)
    # The row removes, in the database: it refuses whatever is not past its period, or another count than the event has.
    run = PruneRun.objects.create(
        policy=policy, task=task, cutoff=found.cutoff, removed=found.count, actor=actor, event=event
    )
    if task is not None:
        past = TraceImport.objects.filter(task=task, created_at__lt=found.cutoff).exclude(file="")
        transaction.on_commit(lambda: _files_remove(list(past)))
    return run


def _files_remove(imports: list[TraceImport]) -> None:
    """The uploaded files, which have the same texts; after the commit, since a file cannot be rolled back."""
    for one in imports:
        one.file.delete(save=True)
    log.info("retention.files_removed", count=len(imports))


@transaction.atomic
def _prune_working_data() -> None:
    """Ended sessions and forgotten drafts: nobody's record, so they leave a line in the log of the process alone."""
    sessions, _sessions = selectors.sessions_past().delete()
    drafts, _drafts = selectors.drafts_past().delete()
    if sessions or drafts:
        log.info("retention.working_data_removed", sessions=sessions, drafts=drafts)


def prune_run(_day: int, lease: Lease) -> JobResult:
    lease.check()
    prune()
    return JobResult.DONE


def prune_failed(_day: int, _error: str) -> None:
    """The next day's job tries again; the failed one is logged by the worker."""
