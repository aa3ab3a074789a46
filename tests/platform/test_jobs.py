"""Jobs: one worker at a time, no job lost, none run for ever, whatever the broker does."""

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from kombu import pools

from pld_app import jobs
from pld_app.celery import app
from pld_app.jobs import JobResult, Lease, LeaseLost, PutOff, job_claim, job_enqueue, job_execute, jobs_sweep
from pld_app.models import Job, JobState, Role
from pld_app.tasks import job_execute as job_task
from tests.factories import make_user

KIND = "test-kind"


class Recorder:
    """A handler that does what it is told and remembers what happened."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.dead: list[tuple[int, str]] = []
        self.does: Callable[[Lease], JobResult] = lambda _lease: JobResult.DONE

    def run(self, subject_id: int, lease: Lease) -> JobResult:
        self.ran.append(subject_id)
        return self.does(lease)

    def on_dead(self, subject_id: int, error: str) -> None:
        self.dead.append((subject_id, error))


@pytest.fixture
def handler() -> Iterator[Recorder]:
    recorder = Recorder()
    jobs.job_handler(KIND, run=recorder.run, on_dead=recorder.on_dead)
    yield recorder
    del jobs._HANDLERS[KIND]


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The hints that reach the broker, which stands outside; nothing consumes them."""
    sent: list[int] = []
    monkeypatch.setattr(job_task, "apply_async", lambda args, **_options: sent.append(args[0]))
    return sent


def raises(error: BaseException) -> Callable[[Lease], JobResult]:
    def does(_lease: Lease) -> JobResult:
        raise error

    return does


def make_job(**fields: Any) -> Job:
    values = {"kind": KIND, "subject_id": 7, "idempotency_key": str(uuid.uuid4())}
    return Job.objects.create(**(values | fields))


def lapse(job: Job) -> None:
    """The worker died a while ago."""
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def ago(seconds: float) -> Any:
    return timezone.now() - timedelta(seconds=seconds)


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run `work` at the same moment in threads, each with a connection of its own."""
    barrier = threading.Barrier(count)

    def one(number: int) -> Any:
        try:
            barrier.wait(timeout=20)
            return work(number)
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


# Claiming.


def claim(job_id: int, _number: int) -> tuple[Job, Lease] | None:
    return job_claim(job_id)


@pytest.mark.django_db(transaction=True)
def test_two_workers_never_claim_one_job() -> None:
    for _round in range(50):
        job = make_job()
        claimed = in_threads(2, partial(claim, job.pk))
        assert sum(one is not None for one in claimed) == 1
        job.refresh_from_db()
        assert (job.state, job.attempts) == (JobState.RUNNING, 1)


@pytest.mark.django_db(transaction=True)
def test_two_workers_never_take_over_one_lapsed_job() -> None:
    for _round in range(50):
        job = make_job()
        assert job_claim(job.pk)
        lapse(job)
        claimed = in_threads(2, partial(claim, job.pk))
        assert sum(one is not None for one in claimed) == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields",
    [
        {"state": JobState.DONE},
        {"state": JobState.DEAD},
        {"state": JobState.CANCELLED},
        {"run_after": timezone.now() + timedelta(hours=1)},
        {"state": JobState.RUNNING, "lease_token": uuid.uuid4(), "lease_until": timezone.now() + timedelta(hours=1)},
    ],
)
def test_what_is_not_due_is_not_claimed(fields: dict[str, Any], handler: Recorder) -> None:
    job = make_job(**fields)
    assert job_claim(job.pk) is None
    job_execute(job_id=job.pk)
    assert handler.ran == []


@pytest.mark.django_db
def test_a_duplicate_delivery_does_nothing(handler: Recorder) -> None:
    job = make_job()
    job_task(job.pk)
    job_task(job.pk)
    job.refresh_from_db()
    assert handler.ran == [7]
    assert (job.state, job.lease_token) == (JobState.DONE, None)


@pytest.mark.django_db
def test_a_job_that_is_gone_is_no_error() -> None:
    job_execute(job_id=10**9)


# Failing.


@pytest.mark.django_db
def test_three_failures_bury_a_job_and_tell_its_subject(handler: Recorder) -> None:
    job = make_job()
    handler.does = raises(ValueError("no luck"))
    waits = []
    for _start in range(5):
        Job.objects.filter(pk=job.pk).update(run_after=timezone.now())
        job_execute(job_id=job.pk)
        job.refresh_from_db()
        waits.append((job.run_after - timezone.now()).total_seconds())
    assert handler.ran == [7, 7, 7]
    assert handler.dead == [(7, "ValueError: no luck")]
    assert (job.state, job.last_error) == (JobState.DEAD, "ValueError: no luck")
    assert job.finished_at is not None
    assert 1 < waits[0] <= 2
    assert 3 < waits[1] <= 4


@pytest.mark.django_db
def test_three_killed_workers_bury_a_job(handler: Recorder) -> None:
    job = make_job()
    for _kill in range(3):
        assert job_claim(job.pk)
        lapse(job)
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert handler.ran == []
    assert [subject for subject, _error in handler.dead] == [7]
    assert "stopped three times" in job.last_error
    assert job.state == JobState.DEAD


@pytest.mark.django_db
def test_an_unknown_kind_is_buried_like_any_failure() -> None:
    job = make_job(kind="from-another-version")
    for _start in range(4):
        Job.objects.filter(pk=job.pk).update(run_after=timezone.now())
        job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert job.state == JobState.DEAD
    assert "from-another-version" in job.last_error


@pytest.mark.django_db
def test_progress_makes_earlier_failures_not_count(handler: Recorder) -> None:
    def crash_after_progress(lease: Lease) -> JobResult:
        lease.progressed()
        raise ValueError("late")

    handler.does = crash_after_progress
    job = make_job(attempts=2)
    for _start in range(6):
        Job.objects.filter(pk=job.pk).update(run_after=timezone.now())
        job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert (len(handler.ran), handler.dead, job.state) == (6, [], JobState.QUEUED)


@pytest.mark.django_db
def test_a_job_that_never_ends_in_time_is_buried(handler: Recorder) -> None:
    handler.does = raises(SoftTimeLimitExceeded())
    job = make_job()
    for _start in range(3):
        Job.objects.filter(pk=job.pk).update(run_after=timezone.now())
        with pytest.raises(SoftTimeLimitExceeded):
            job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert job.state == JobState.DEAD
    assert "too long" in job.last_error
    assert [subject for subject, _error in handler.dead] == [7]


@pytest.mark.django_db
def test_a_failing_on_dead_leaves_the_job_to_be_buried_again(handler: Recorder) -> None:
    job = make_job(attempts=2)
    handler.does = raises(ValueError("first"))
    jobs.job_handler(KIND, run=handler.run, on_dead=lambda *_: (_ for _ in ()).throw(RuntimeError("second")))
    with pytest.raises(RuntimeError, match="second"):
        job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert job.state == JobState.RUNNING
    jobs.job_handler(KIND, run=handler.run, on_dead=handler.on_dead)
    lapse(job)
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert (job.state, len(handler.dead)) == (JobState.DEAD, 1)


# Other ends.


@pytest.mark.django_db
def test_put_off_waits_and_is_no_failure(handler: Recorder) -> None:
    later = timezone.now() + timedelta(minutes=5)
    handler.does = raises(PutOff(later, "the provider asked us to wait"))
    job = make_job(attempts=2)
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert (job.state, job.run_after, job.attempts) == (JobState.QUEUED, later, 0)
    assert job.last_error == "the provider asked us to wait"
    assert job_claim(job.pk) is None


@pytest.mark.django_db
def test_again_is_queued_and_hinted_at_once(handler: Recorder, hints: list[int]) -> None:
    handler.does = lambda _lease: JobResult.AGAIN
    job = make_job()
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts, hints) == (JobState.QUEUED, 0, [job.pk])
    handler.does = lambda _lease: JobResult.CANCELLED
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert (job.state, handler.ran) == (JobState.CANCELLED, [7, 7])


# The lease.


@pytest.mark.django_db
def test_a_lost_lease_stops_every_write(handler: Recorder) -> None:
    job = make_job()

    def taken_over(lease: Lease) -> JobResult:
        lapse(job)
        assert job_claim(job.pk)
        with pytest.raises(LeaseLost):
            lease.check()
        lease.progressed()
        raise LeaseLost

    handler.does = taken_over
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert (job.state, job.attempts, job.last_error) == (JobState.RUNNING, 2, "")


@pytest.mark.django_db
@pytest.mark.parametrize("ending", [JobResult.DONE, JobResult.CANCELLED, JobResult.AGAIN, ValueError(), "put off"])
def test_a_worker_without_lease_cannot_settle_the_job(ending: Any, handler: Recorder, hints: list[int]) -> None:
    job = make_job(attempts=2)

    def taken_over(_lease: Lease) -> JobResult:
        lapse(job)
        assert job_claim(job.pk)
        if ending == "put off":
            raise PutOff(timezone.now(), "wait")
        if isinstance(ending, Exception):
            raise ending
        assert isinstance(ending, JobResult)
        return ending

    handler.does = taken_over
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert (job.state, job.last_error, handler.dead) == (JobState.RUNNING, "", [])
    assert job.lease_token is not None


@pytest.mark.django_db(transaction=True)
def test_a_checked_write_keeps_the_job_until_it_is_committed() -> None:
    """Between check and commit nobody else may take the job, even if its lease lapses just then."""
    job = make_job()
    claimed = job_claim(job.pk)
    assert claimed
    lapse(job)
    order: list[str] = []
    checked = threading.Event()

    def work(number: int) -> None:
        if number:
            checked.wait(timeout=10)
            assert job_claim(job.pk)
            order.append("claimed")
            return
        with transaction.atomic():
            claimed[1].check()
            checked.set()
            time.sleep(0.3)
            order.append("written")

    in_threads(2, work)
    assert order == ["written", "claimed"]


@pytest.mark.django_db(transaction=True)
def test_the_heartbeat_renews_the_lease(handler: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LEASE", timedelta(seconds=1.5))
    monkeypatch.setattr(jobs, "HEARTBEAT_S", 0.2)
    job = make_job()
    stolen: list[object] = []

    def slow(lease: Lease) -> JobResult:
        for _look in range(25):
            time.sleep(0.1)
            stolen.append(job_claim(job.pk))
        lease.check()
        return JobResult.DONE

    handler.does = slow
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert stolen == [None] * 25
    assert job.state == JobState.DONE
    assert not [thread for thread in threading.enumerate() if thread.name == f"lease-{job.pk}"]


@pytest.mark.django_db(transaction=True)
def test_the_heartbeat_notices_that_another_worker_took_over(
    handler: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "HEARTBEAT_S", 0.05)
    job = make_job()

    def stolen(lease: Lease) -> JobResult:
        Job.objects.filter(pk=job.pk).update(lease_token=uuid.uuid4())
        assert lease.lost.wait(timeout=5)
        lease.check()
        return JobResult.DONE

    handler.does = stolen
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    assert job.state == JobState.RUNNING


def test_a_slice_is_over_before_celery_would_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Lease(1, uuid.uuid4())
    assert not lease.slice_over
    monkeypatch.setattr(jobs, "SLICE_S", -1.0)
    assert lease.slice_over


# The broker.


@pytest.mark.django_db(transaction=True)
def test_a_job_is_hinted_only_once_it_is_committed(hints: list[int]) -> None:
    with transaction.atomic():
        job_enqueue(kind=KIND, subject_id=1, key="rolled-back")
        transaction.set_rollback(True)
    assert not Job.objects.exists()
    with transaction.atomic():
        job = job_enqueue(kind=KIND, subject_id=1, key="kept")
        assert hints == []
    job.refresh_from_db()
    assert hints == [job.pk]
    assert job.hinted_at is not None


@pytest.mark.django_db
def test_one_key_is_one_job() -> None:
    ada = make_user("ada", Role.ADMIN)
    first = job_enqueue(kind=KIND, subject_id=1, key="k", created_by=ada)
    assert job_enqueue(kind=KIND, subject_id=2, key="k").pk == first.pk
    first.refresh_from_db()
    assert (first.subject_id, first.created_by) == (1, ada)


def enqueue_as(key: str, _number: int) -> int:
    return job_enqueue(kind=KIND, subject_id=1, key=key).pk


@pytest.mark.django_db(transaction=True)
def test_two_requests_with_one_key_make_one_job(hints: list[int]) -> None:
    for number in range(20):
        made = in_threads(2, partial(enqueue_as, f"k{number}"))
        assert made[0] == made[1]
    assert Job.objects.count() == 20


@pytest.fixture
def broker_at() -> Iterator[Callable[[int], None]]:
    """Point the sending side at another port of this machine, with a short patience."""
    conf: Any = app.conf  # settings and pools of Celery have no public way to be set again
    amqp: Any = app.amqp
    before = {name: conf[name] for name in ("broker_write_url", "broker_transport_options")}

    def use(settings_: dict[str, Any]) -> None:
        conf.update(settings_)
        pools.reset()
        vars(app)["_pool"] = amqp._producer_pool = None

    def point(port: int) -> None:
        options = {**before["broker_transport_options"], "socket_timeout": 0.5}
        use({"broker_write_url": f"redis://127.0.0.1:{port}/0", "broker_transport_options": options})

    yield point
    use(before)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_down_costs_no_job_and_little_time(
    broker_at: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    broker_at(closed_port())
    started = time.monotonic()
    with transaction.atomic():
        job = job_enqueue(kind=KIND, subject_id=1, key="down")
    assert time.monotonic() - started < 3
    assert "Connection refused" in caplog.text
    job.refresh_from_db()
    assert (job.state, job.hinted_at) == (JobState.QUEUED, None)


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_never_answers_costs_no_job(
    broker_at: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        broker_at(silent.getsockname()[1])
        started = time.monotonic()
        with transaction.atomic():
            job = job_enqueue(kind=KIND, subject_id=1, key="silent")
    assert time.monotonic() - started < 5
    assert "job.hint_not_sent" in caplog.text
    job.refresh_from_db()
    assert (job.state, job.hinted_at) == (JobState.QUEUED, None)


# The sweeper.


@pytest.mark.django_db
def test_the_sweeper_sends_what_is_due_and_unsent_once(hints: list[int]) -> None:
    unsent = make_job()
    lost = make_job(hinted_at=ago(11))
    lapsed = make_job(
        state=JobState.RUNNING, lease_token=uuid.uuid4(), lease_until=ago(1), hinted_at=ago(60), attempts=1
    )
    make_job(hinted_at=ago(2))
    make_job(run_after=timezone.now() + timedelta(minutes=1))
    make_job(state=JobState.RUNNING, lease_token=uuid.uuid4(), lease_until=ago(-20), hinted_at=ago(60))
    for state in (JobState.DONE, JobState.DEAD, JobState.CANCELLED):
        make_job(state=state)
    assert jobs_sweep() == 3
    assert sorted(hints) == [unsent.pk, lost.pk, lapsed.pk]
    assert jobs_sweep() == 0


@pytest.mark.django_db
def test_the_sweeper_reaches_every_job_in_turn(hints: list[int]) -> None:
    made = [make_job(hinted_at=ago(20)).pk for _ in range(3)] + [make_job().pk for _ in range(3)]
    assert jobs_sweep(limit=3) == 3
    assert sorted(hints) == made[3:]  # never sent goes before sent long ago
    assert jobs_sweep(limit=3) == 3
    assert sorted(hints) == made


@pytest.mark.django_db(transaction=True)
def test_two_sweepers_send_each_job_once(hints: list[int]) -> None:
    made = [make_job().pk for _ in range(40)]
    assert sum(in_threads(2, lambda _number: jobs_sweep())) == 40
    assert sorted(hints) == made


@pytest.mark.django_db
def test_the_sweeper_hands_a_dead_workers_job_on(hints: list[int], handler: Recorder) -> None:
    job = make_job()
    assert job_claim(job.pk)
    lapse(job)
    jobs_sweep()
    for job_id in hints:
        job_task(job_id)
    job.refresh_from_db()
    assert (job.state, job.attempts) == (JobState.DONE, 2)


# Settings that keep it so.


def test_a_running_task_is_not_delivered_again() -> None:
    options = cast(dict[str, Any], settings.CELERY_BROKER_TRANSPORT_OPTIONS)
    assert options["visibility_timeout"] >= 3 * settings.CELERY_TASK_TIME_LIMIT
    assert settings.CELERY_TASK_SOFT_TIME_LIMIT < settings.CELERY_TASK_TIME_LIMIT
    assert jobs.SLICE_S + 60 < settings.CELERY_TASK_SOFT_TIME_LIMIT
    assert options["max_retries"] == 0
    assert options["socket_timeout"]
    assert options["socket_connect_timeout"]
    assert settings.CELERY_TASK_ACKS_LATE
    assert not settings.CELERY_TASK_REJECT_ON_WORKER_LOST
    assert settings.CELERY_ACCEPT_CONTENT == ["json"]
    assert app.conf.task_acks_late
    assert app.conf.broker_transport_options["visibility_timeout"] == options["visibility_timeout"]


def test_the_heart_beats_several_times_in_a_lease() -> None:
    assert jobs.LEASE.total_seconds() > jobs.HEARTBEAT_S * 3


def test_the_sweeper_is_scheduled() -> None:
    schedule = settings.CELERY_BEAT_SCHEDULE["sweep-jobs"]
    assert schedule["task"] in app.tasks
    assert cast(float, schedule["schedule"]) <= 15
