"""A worker killed with -9 while the resolver is asked: the next one goes on, and no recorded call is made again."""

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from django.utils import timezone

from evaluation.models import GroupOutcome, LoopState, RoundState
from evaluation.services.loops import JOB_KIND
from pld_app.jobs import job_execute
from pld_app.models import Job, ModelCall, User
from rules.models import Task
from tests.evaluation.resolution_scene import round_of, scene_in
from tests.evaluation.scene import job_of
from tests.evaluation.test_kill import _lease_lapses, _worker
from tests.factories import audit_actions
from tests.workers import calls_logged, stub_process, wait_until


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_kill_9_while_the_resolver_is_asked_repeats_no_recorded_call(
    task: Task, ada: User, ana: User, ben: User, tmp_path: Path
) -> None:
    log = tmp_path / "calls.jsonl"
    # Wrong answers of every kind: more groups than fit into one moment.
    with scene_in(task, ana, ben, error_rate=0.4) as scene, stub_process(log, latency_s=0.6) as url:
        type(scene.resolver).objects.filter(pk=scene.resolver.pk).update(base_url=url, concurrency=1)
        scene.resolver.refresh_from_db()
        loop = scene.loop(ada)
        job = Job.objects.get(kind=JOB_KIND, subject_id=loop.pk)
        # Begins the round and is put off, since its measurement is a job of its own.
        assert _worker(job).wait(timeout=60) == 0
        job_execute(job_id=job_of(round_of(loop).run).pk)
        Job.objects.filter(pk=job.pk).update(run_after=timezone.now())
        worker = _worker(job)
        wait_until(partial(_asked, log, 3), timeout_s=60, what="the third question")
        worker.kill()
        assert worker.wait() != 0
        recorded = set(ModelCall.objects.filter(scope=loop.call_scope).values_list("request_hash", flat=True))
        assert recorded
        loop.refresh_from_db()
        assert (loop.state, round_of(loop).state) == (LoopState.RUNNING, RoundState.ASKING)
        assert not round_of(loop).groups.exclude(outcome="").exists()
        _lease_lapses(job)
        assert _worker(job).wait(timeout=120) == 0
    loop.refresh_from_db()
    groups = list(round_of(loop).groups.all())
    asked = Counter(str(call["body"]["messages"][-1]["content"]) for call in calls_logged(log))
    assert len(asked) == len(groups) > 3
    assert sum(asked.values()) - len(groups) <= 1
    assert ModelCall.objects.filter(scope=loop.call_scope, request_hash__in=recorded).count() == len(recorded)
    # The plain stub's replies satisfy the schema and nothing else, so none of them leads anywhere.
    assert {group.outcome for group in groups} <= {GroupOutcome.UNUSABLE, GroupOutcome.KEPT}
    assert audit_actions(loop).count("resolution.proposed") == 1
    assert loop.calls_used >= len(groups)


def _asked(log: Path, count: int) -> bool:
    return len(calls_logged(log)) >= count
