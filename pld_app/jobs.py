"""Background work: rows in Postgres are the work, the broker only carries a hint that one is due.

A handler is registered per kind. It runs under a lease that a heartbeat renews; when a worker dies the lease lapses and
the sweeper hands the row on. A handler must therefore be able to start again where the last one stopped.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from pld_app.models import Job, JobState, User

log = structlog.get_logger(__name__)

# How long a dead worker's job stays taken; three heartbeats may be missed before that.
LEASE = timedelta(seconds=settings.JOB_LEASE_S)
HEARTBEAT_S = settings.JOB_LEASE_S / 4
# A slice ends well before Celery's soft limit, so that long runs come in turns and never meet the hard one.
SLICE_S = 200.0


class LeaseLost(Exception):
    """Another worker holds this job now; stop without writing."""


class JobResult(Enum):
    DONE = "done"
    CANCELLED = "cancelled"
    AGAIN = "again"


@dataclass(frozen=True)
class PutOff(Exception):
    """Raised by a handler: try again at `run_after` (a provider asked us to wait); does not count as a failed start."""

    run_after: datetime
    reason: str


@dataclass
class Lease:
    """The right to work on one job; `check()` before every write that depends on it."""

    job_id: int
    token: uuid.UUID
    started: float = field(default_factory=time.monotonic)
    lost: threading.Event = field(default_factory=threading.Event)
    _has_progressed: bool = False

    def check(self) -> None:
        """Raise LeaseLost if another worker took over; call it inside the transaction that writes.

        In a transaction the job stays locked until its end, so that nobody takes over between this look and the commit.
        """
        held = Job.objects.filter(pk=self.job_id, lease_token=self.token, state=JobState.RUNNING)
        if connection.in_atomic_block:
            held = held.select_for_update(no_key=True)
        if self.lost.is_set() or not held.values_list("pk").first():
            raise LeaseLost

    def progressed(self) -> None:
        """Say that work was done, so that an earlier crash no longer counts against the job; costs nothing again."""
        if self._has_progressed:
            return
        self._has_progressed = True
        Job.objects.filter(pk=self.job_id, lease_token=self.token, attempts__gt=1).update(attempts=1)

    @property
    def slice_over(self) -> bool:
        return time.monotonic() - self.started > SLICE_S


type Run = Callable[[int, Lease], JobResult]


@dataclass(frozen=True)
class Handler:
    run: Run
    on_dead: Callable[[int, str], None]


_HANDLERS: dict[str, Handler] = {}


def _unknown(kind: str) -> Handler:
    """Stands in for a kind that only another version of the program knows: it fails, and in the end is buried."""

    def run(_subject_id: int, _lease: Lease) -> JobResult:
        raise LookupError(f"No worker here knows jobs of kind {kind}.")

    return Handler(run, lambda _subject_id, _error: None)


def job_handler(kind: str, *, run: Run, on_dead: Callable[[int, str], None]) -> None:
    """Register what a kind of job does; `on_dead(subject_id, error)` marks the subject of a buried job failed."""
    _HANDLERS[kind] = Handler(run, on_dead)


def job_enqueue(
    *, kind: str, subject_id: int, key: str, created_by: User | None = None, run_after: datetime | None = None
) -> Job:
    """Add a job in the caller's transaction; the same `key` gives the same job. The hint is sent after commit.

    `run_after` puts it off: then no hint is sent, and the sweeper finds it when it is due.
    """
    values: dict[str, object] = {"kind": kind, "subject_id": subject_id, "created_by": created_by}
    if run_after is not None:
        values["run_after"] = run_after
    job, _created = Job.objects.get_or_create(idempotency_key=key, defaults=values)
    if run_after is not None:
        return job
    # Robust: the work is committed, and a failing hint must not make it look refused.
    transaction.on_commit(lambda: hint_send(job.pk), robust=True)
    return job


def job_restart(*, kind: str, subject_id: int, created_by: User | None = None) -> Job:
    """A job for each time a subject was let go on. Earlier ones are over, even if their worker has not said so yet."""
    jobs = Job.objects.filter(kind=kind, subject_id=subject_id)
    over = {"state": JobState.DONE, "lease_token": None, "lease_until": None, "finished_at": timezone.now()}
    jobs.filter(state__in=[JobState.QUEUED, JobState.RUNNING]).update(**over)
    count = jobs.count()
    key = f"{kind}:{subject_id}" + (f":{count}" if count else "")
    return job_enqueue(kind=kind, subject_id=subject_id, key=key, created_by=created_by)


def job_is_running(*, kind: str, subject_id: int) -> bool:
    """Whether a worker holds a job of this subject now: it will notice a cancellation by itself."""
    return Job.objects.filter(kind=kind, subject_id=subject_id, state=JobState.RUNNING).exists()


def hint_send(job_id: int) -> None:
    """Tell a worker. A broker that is away is only logged: the sweeper sends again."""
    from pld_app.tasks import job_execute  # noqa: PLC0415  # tasks import this module

    try:
        job_execute.apply_async((job_id,), retry=False)
    except (BrokerError, OSError) as error:
        log.warning("job.hint_not_sent", job_id=job_id, error=str(error))
        return
    Job.objects.filter(pk=job_id).update(hinted_at=timezone.now())


def job_claim(job_id: int) -> tuple[Job, Lease] | None:
    """Take a due job, or None when it is finished, not due, or held by a living worker. Never waits."""
    now = timezone.now()
    token = Job.new_token()
    due = Q(state=JobState.QUEUED, run_after__lte=now) | Q(state=JobState.RUNNING, lease_until__lt=now)
    taken = Job.objects.filter(due, pk=job_id).update(
        state=JobState.RUNNING, lease_token=token, lease_until=now + LEASE, attempts=F("attempts") + 1
    )
    if not taken:
        return None
    return Job.objects.get(pk=job_id), Lease(job_id, token)


def job_execute(*, job_id: int, run: Run | None = None) -> None:
    """Claim and run one job; a duplicate delivery finds nothing to claim.

    `run` stands in for what the kind's handler runs: a command uses it to watch the progress.
    """
    claimed = job_claim(job_id)
    if claimed is None:
        return
    job, lease = claimed
    handler = _HANDLERS.get(job.kind, _unknown(job.kind))
    if run is not None:
        handler = Handler(run, handler.on_dead)
    if job.attempts > Job.MAX_ATTEMPTS:
        _job_bury(job, lease, handler, job.last_error or "The worker stopped three times without getting on.")
        return
    with _heartbeat(lease), structlog.contextvars.bound_contextvars(job_id=job.pk, job_kind=job.kind):
        _job_run(job, lease, handler)


def _job_run(job: Job, lease: Lease, handler: Handler) -> None:
    try:
        result = handler.run(job.subject_id, lease)
    except LeaseLost:
        log.warning("job.lease_lost")
    except PutOff as put_off:
        _job_release(lease, run_after=put_off.run_after, error=put_off.reason, attempts=0)
    except SoftTimeLimitExceeded:
        # Counts as a failed start unless there was progress: what never ends in time must not start for ever.
        _job_failed(job, lease, handler, "It took too long without a pause and was stopped.")
        raise
    except Exception as error:  # the worker's outer edge: a bug must not stop the sweeper from trying again
        log.exception("job.failed")
        _job_failed(job, lease, handler, f"{type(error).__name__}: {error}"[:2000])
    else:
        _job_settle(lease, result)


def _job_settle(lease: Lease, result: JobResult) -> None:
    if result is JobResult.AGAIN:
        _job_release(lease, run_after=timezone.now(), error="", attempts=0)
        hint_send(lease.job_id)
        return
    state = JobState.DONE if result is JobResult.DONE else JobState.CANCELLED
    _leased(lease).update(state=state, lease_token=None, lease_until=None, finished_at=timezone.now(), last_error="")


def _job_failed(job: Job, lease: Lease, handler: Handler, error: str) -> None:
    job.refresh_from_db(fields=["attempts"])  # progress may have set it back
    if job.attempts >= Job.MAX_ATTEMPTS:
        _job_bury(job, lease, handler, error)
        return
    wait = timedelta(seconds=2**job.attempts)
    _job_release(lease, run_after=timezone.now() + wait, error=error, attempts=None)


def _job_bury(job: Job, lease: Lease, handler: Handler, error: str) -> None:
    with transaction.atomic():
        buried = _leased(lease).update(
            state=JobState.DEAD, lease_token=None, lease_until=None, finished_at=timezone.now(), last_error=error
        )
        if buried:
            handler.on_dead(job.subject_id, error)


def _job_release(lease: Lease, *, run_after: datetime, error: str, attempts: int | None) -> None:
    fields: dict[str, object] = {
        "state": JobState.QUEUED,
        "lease_token": None,
        "lease_until": None,
        "run_after": run_after,
        "last_error": error,
    }
    if attempts is not None:
        fields["attempts"] = attempts
    _leased(lease).update(**fields)


def _leased(lease: Lease) -> QuerySet[Job]:
    return Job.objects.filter(pk=lease.job_id, lease_token=lease.token, state=JobState.RUNNING)


@contextmanager
def _heartbeat(lease: Lease) -> Iterator[None]:
    """Renew the lease from a thread of its own, so that a long computation keeps it; stops with the block."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_S):
            # The database may be away for a moment; the next beat tries again, and the lease decides.
            with suppress(Exception):
                if not _leased(lease).update(lease_until=timezone.now() + LEASE):
                    lease.lost.set()
                    break
        connection.close()

    thread = threading.Thread(target=beat, name=f"lease-{lease.job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=HEARTBEAT_S)


def jobs_sweep(*, limit: int = 100) -> int:
    """Send hints again for jobs that are due and unclaimed, or whose worker died. Returns how many."""
    now = timezone.now()
    stale = now - timedelta(seconds=10)
    unsent = Q(hinted_at__isnull=True) | Q(hinted_at__lt=stale)
    due = (
        Q(state=JobState.QUEUED, run_after__lte=now) & unsent | Q(state=JobState.RUNNING, lease_until__lt=now) & unsent
    )
    with transaction.atomic():
        ids = list(
            Job.objects.filter(due)
            .order_by(F("hinted_at").asc(nulls_first=True), "pk")
            .select_for_update(skip_locked=True)
            .values_list("pk", flat=True)[:limit]
        )
        Job.objects.filter(pk__in=ids).update(hinted_at=now)
    for job_id in ids:
        hint_send(job_id)
    return len(ids)
