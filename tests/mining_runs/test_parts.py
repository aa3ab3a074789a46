"""Extraction by two workers on two endpoints: each asks about half, and the run alone decides what comes of it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from pld_app.jobs import job_execute
from pld_app.models import Job, JobState, ModelCall, ModelEndpoint, Role
from rules.models import MicroRule, MicroRuleOrigin, MiningRun, RunState
from rules.selectors.mining import mining_report
from rules.services.mining import mining_run_cancel
from rules.services.mining_estimate import run_estimate
from rules.services.mining_parts import JOB_KIND
from tests.factories import make_trace, make_user
from tests.mining_runs.divided import TRACES, divided_task, is_final, started
from tests.mining_runs.test_stages import Teacher
from tests.stub_server import stub_server
from tests.workers import calls_logged, celery_worker, stub_process, wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture
def two_endpoints() -> Iterator[tuple[str, str]]:
    with stub_server(Teacher()) as first, stub_server(Teacher()) as second:
        yield first.url, second.url


def worked(run: MiningRun, kind: str) -> Job:
    """Run the newest job of a kind once; the run as it then stands is read anew."""
    job = Job.objects.filter(kind=kind, subject_id=run.pk).latest("pk")
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    run.refresh_from_db()
    return job


def extracted_by(run: MiningRun) -> Counter[str]:
    calls = ModelCall.objects.filter(purpose="extract", outcome="ok")
    assert calls.count() == calls.values("request_hash").distinct().count()
    assert run.micro_rules.exclude(text="").count() == calls.count()
    return Counter(calls.values_list("endpoint__slug", flat=True))


def test_each_worker_asks_its_endpoint_about_half(two_endpoints: tuple[str, str]) -> None:
    run = started(divided_task(*two_endpoints))
    own = worked(run, "mining_run")
    assert (own.state, run.state, run.done) == (JobState.QUEUED, RunState.RUNNING, TRACES // 2)
    assert "Another worker" in own.last_error
    assert worked(run, JOB_KIND).state == JobState.DONE
    own.refresh_from_db()
    assert own.run_after <= timezone.now()
    worked(run, "mining_run")
    assert run.state == RunState.SUCCEEDED
    assert extracted_by(run) == {"teacher-1": TRACES // 2, "teacher-2": TRACES // 2}
    assert mining_report(run)["second_teacher"] == "stub-1"
    assert {one.provenance["second_teacher"] for one in run.instructions.all()} == {"stub-1"}


def test_a_helper_that_is_given_up_leaves_its_half_to_the_run(two_endpoints: tuple[str, str]) -> None:
    run = started(divided_task(*two_endpoints))
    worked(run, "mining_run")
    Job.objects.filter(kind=JOB_KIND).update(state=JobState.DEAD)
    Job.objects.filter(kind="mining_run").update(run_after=timezone.now())
    worked(run, "mining_run")
    assert run.state == RunState.SUCCEEDED
    assert extracted_by(run) == {"teacher-1": TRACES // 2, "teacher-2": TRACES // 2}


def test_a_second_endpoint_that_is_wrong_fails_the_run_as_the_first_would() -> None:
    with stub_server(Teacher()) as first, stub_server("401") as second:
        run = started(divided_task(first.url, second.url))
        worked(run, "mining_run")
        assert worked(run, JOB_KIND).state == JobState.DONE
        assert run.state == RunState.RUNNING
        worked(run, "mining_run")
    assert run.state == RunState.FAILED
    assert run.error


def test_a_budget_that_is_used_up_pauses_the_run_and_its_helper(two_endpoints: tuple[str, str]) -> None:
    run = started(divided_task(*two_endpoints))
    MiningRun.objects.filter(pk=run.pk).update(max_calls=TRACES // 2 + 2)
    worked(run, "mining_run")
    worked(run, JOB_KIND)
    assert run.state == RunState.RUNNING
    worked(run, "mining_run")
    assert run.state == RunState.PAUSED
    assert run.micro_rules.count() == run.calls_used == TRACES // 2 + 2
    assert not Job.objects.filter(kind=JOB_KIND, state__in=["queued", "running"]).exists()


def test_a_helper_makes_no_call_for_a_cancelled_run(two_endpoints: tuple[str, str]) -> None:
    run = started(divided_task(*two_endpoints))
    worked(run, "mining_run")
    mining_run_cancel(run_id=run.pk, user=make_user("ada", Role.ADMIN))
    assert worked(run, JOB_KIND).state == JobState.CANCELLED
    assert run.state == RunState.CANCELLED
    assert extracted_by(run) == {"teacher-1": TRACES // 2}


def test_the_estimate_counts_each_half_at_its_endpoint(two_endpoints: tuple[str, str]) -> None:
    task = divided_task(*two_endpoints)
    before = [(stage.endpoint, stage.calls) for stage in run_estimate(task).stages if stage.stage == "extract"]
    assert before == [("teacher-1", TRACES // 2), ("teacher-2", TRACES // 2)]
    run = started(task)
    for kind in ("mining_run", JOB_KIND, "mining_run"):
        worked(run, kind)
    again = [stage for stage in run_estimate(task).stages if stage.stage == "extract"]
    assert [(stage.calls, stage.recorded) for stage in again] == [(0, TRACES // 2)] * 2


def test_imported_rules_need_no_helper(two_endpoints: tuple[str, str]) -> None:
    task = divided_task(*two_endpoints, traces=0)
    for _ in range(4):
        make_trace(task)
    run = started(task)
    worked(run, "mining_run")
    assert run.state == RunState.SUCCEEDED
    assert not Job.objects.filter(kind=JOB_KIND).exists()
    assert set(run.micro_rules.values_list("origin", flat=True)) == {MicroRuleOrigin.IMPORTED}


def test_the_second_endpoint_must_be_another_one(two_endpoints: tuple[str, str]) -> None:
    task = divided_task(*two_endpoints)
    task.second_teacher = task.teacher
    with pytest.raises(ValidationError, match="must be another one"):
        task.full_clean()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_killed_workers_cost_at_most_the_calls_in_flight(tmp_path: Path) -> None:
    traces, concurrency = 60, 4
    logs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    with stub_process(logs[0], latency_s=0.1) as one, stub_process(logs[1], latency_s=0.1) as two:
        run = started(divided_task(one, two, traces=traces, concurrency=concurrency))
        with celery_worker(tmp_path / "a.log") as first, celery_worker(tmp_path / "b.log") as second:
            wait_until(lambda: min(len(calls_logged(log)) for log in logs) >= 8, timeout_s=60, what="calls at both")
            first.kill()
            second.kill()
        with celery_worker(tmp_path / "c.log"), celery_worker(tmp_path / "d.log"):
            wait_until(lambda: is_final(run), timeout_s=90, what="the run to end")
    run.refresh_from_db()
    assert (run.state, run.error) == (RunState.SUCCEEDED, "")
    assert MicroRule.objects.filter(run=run).exclude(text="").count() == traces
    asked = Counter(str(call["body"]["messages"]) for log in logs for call in calls_logged(log))
    assert sum(asked.values()) - len(asked) <= 2 * concurrency
    assert set(ModelEndpoint.objects.values_list("slug", flat=True)) == {"teacher-1", "teacher-2"}
