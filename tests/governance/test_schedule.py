"""Scheduled publication: proved now, checked again in full, once, by Postgres's clock, or not at all."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone

from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.jobs import job_claim, job_execute
from pld_app.models import AuditEvent, Domain, Job, JobState, Notification, Role, User
from pld_app.reauthentication import ProofRefused
from rules import hooks
from rules.exceptions import InvalidTransition, Stale
from rules.models import (
    ChannelName,
    Instruction,
    Publication,
    Release,
    ScheduledPublication,
    ScheduleEnd,
    Task,
)
from rules.selectors.publishing import current_release, serving
from rules.services.scheduling import JOB_KIND, schedule_cancel, schedule_run
from rules.services.stopping import stop_make
from rules.services.withdrawing import ruleset_withdraw
from tests.factories import PASSWORD, audit_actions, make_proof, make_task, make_user
from tests.publishing import steps
from tests.publishing.test_database import publish_directly, refused, sql
from tests.publishing.test_races import at_once

type ClientOf = Callable[[User], Client]
STAGING, PRODUCTION = ChannelName.STAGING, ChannelName.PRODUCTION


@pytest.fixture
def release(task: Task, ana: User, sam: User, sue: User) -> Release:
    """A release in staging."""
    release = steps.released(task, ana, sam, sue)
    steps.publish(release, sam)
    return release


def bring_forward(plan: ScheduledPublication, **times: Any) -> None:
    """Let its time come: the guard that keeps the row is put aside for this one statement."""
    values = times or {"effective_from": steps.minutes_ago(1)}
    sql("SET CONSTRAINTS ALL IMMEDIATE")()
    sql("ALTER TABLE rules_scheduledpublication DISABLE TRIGGER pld_append_only")()
    ScheduledPublication.objects.filter(pk=plan.pk).update(**values)
    sql("SET CONSTRAINTS ALL IMMEDIATE")()
    sql("ALTER TABLE rules_scheduledpublication ENABLE ALWAYS TRIGGER pld_append_only")()
    sql("SET CONSTRAINTS ALL DEFERRED")()


def run(plan: ScheduledPublication) -> Job:
    """The worker takes the job up, as if it were due."""
    job = Job.objects.get(kind=JOB_KIND, subject_id=plan.pk)
    Job.objects.filter(pk=job.pk).update(state=JobState.QUEUED, run_after=steps.minutes_ago(1))
    job_execute(job_id=job.pk)
    job.refresh_from_db()
    return job


class TestScheduling:
    def test_a_signatory_proves_it_now_and_nothing_changes_yet(self, release: Release, sam: User) -> None:
        plan = steps.schedule(release, sam, channel=PRODUCTION, reason="The new year.")
        assert current_release(release.task, PRODUCTION) is None
        assert audit_actions(release)[-1] == "release.scheduled"
        assert plan.reauthentication.method == "password"
        assert Job.objects.get(kind=JOB_KIND).run_after == plan.effective_from

    @pytest.mark.parametrize("name", ["ana", "abe", "ada"])
    def test_nobody_else_does(self, release: Release, name: str, request: pytest.FixtureRequest) -> None:
        with pytest.raises(NotAllowed):
            steps.schedule(release, request.getfixturevalue(name))

    def test_times_and_pages_that_do_not_fit_are_refused(self, release: Release, sam: User) -> None:
        tomorrow = timezone.now() + timedelta(days=1)
        with pytest.raises(InvalidInput, match="time to come"):
            steps.schedule(release, sam, effective_from=steps.minutes_ago(1))
        with pytest.raises(InvalidInput, match="end after it starts"):
            steps.schedule(release, sam, effective_from=tomorrow, until=tomorrow)
        with pytest.raises(Stale, match="moved since"):
            steps.schedule(release, sam, expected_newest=0)
        with pytest.raises(ProofRefused):
            steps.schedule(release, sam, proof=make_proof(sam, password="wrong"))
        assert not ScheduledPublication.objects.exists()

    def test_cancelling_is_logged_and_final(self, release: Release, sam: User, sue: User, ana: User) -> None:
        plan = steps.schedule(release, sam, channel=PRODUCTION)
        with pytest.raises(NotAllowed):
            schedule_cancel(schedule_id=plan.pk, actor=ana, reason="No.")
        with pytest.raises(InvalidInput, match="Say why"):
            schedule_cancel(schedule_id=plan.pk, actor=sue, reason=" ")
        schedule_cancel(schedule_id=plan.pk, actor=sue, reason="Not before the audit.")
        assert audit_actions(release)[-1] == "release.schedule_cancelled"
        with pytest.raises(InvalidTransition):
            schedule_cancel(schedule_id=plan.pk, actor=sue, reason="Again.")
        bring_forward(plan)
        run(plan)
        assert current_release(release.task, PRODUCTION) is None

    def test_the_page_schedules_and_cancels(self, release: Release, sam: User, client_of: ClientOf) -> None:
        browser = client_of(sam)
        newest = release.publications.get().pk
        sent = {
            "channel": "production",
            "release": release.pk,
            "effective_from": "2031-01-01T09:00",
            "until": "2031-02-01T09:00",
            "newest_staging": newest,
            "newest_production": 0,
            "password": PASSWORD,
            "consent": "on",
        }
        for wrong in ({"effective_from": "2020-01-01T09:00"}, {"password": "wrong"}, {"release": 0}, {"until": "x"}):
            assert browser.post("/tasks/nda/control/schedule/", sent | wrong).status_code == 422, wrong
        assert browser.post("/tasks/nda/control/schedule/", sent).status_code == 302
        page = browser.get("/tasks/nda/control/").content.decode()
        assert "v1 to Production" in page
        assert "2031-01-01 09:00 UTC" in page
        plan = ScheduledPublication.objects.get()
        cancel = f"/tasks/nda/control/schedules/{plan.pk}/cancel/"
        assert browser.post(cancel, {"reason": "Too early."}).status_code == 302
        assert "Too early." in browser.get("/tasks/nda/control/").content.decode()


class TestGoingLive:
    def test_it_publishes_when_its_time_has_come_and_a_repeat_changes_nothing(
        self, release: Release, sam: User
    ) -> None:
        plan = steps.schedule(release, sam, channel=PRODUCTION)
        job = run(plan)
        assert (job.state, current_release(release.task, PRODUCTION)) == (JobState.QUEUED, None)
        assert job.run_after == plan.effective_from
        bring_forward(plan)
        for _turn in range(3):
            assert run(plan).state == JobState.DONE
        assert current_release(release.task, PRODUCTION) == release
        published = Publication.objects.get(channel=PRODUCTION)
        assert (published.actor, published.authenticated_at) == (sam, plan.reauthentication.at)
        assert audit_actions(release).count("release.published") == 2

    def test_it_ends_by_the_clock_alone(self, release: Release, task: Task, ana: User, sam: User, sue: User) -> None:
        steps.publish(release, sam, PRODUCTION)
        other = steps.again(task, ana, sam, sue)
        steps.publish(other, sam)
        plan = steps.schedule(other, sam, channel=PRODUCTION, until=timezone.now() + timedelta(days=2))
        bring_forward(plan)
        run(plan)
        assert current_release(task, PRODUCTION) == other
        published = Publication.objects.get(schedule=plan)
        sql("SET CONSTRAINTS ALL IMMEDIATE")()
        sql("ALTER TABLE rules_publication DISABLE TRIGGER pld_append_only")()
        Publication.objects.filter(pk=published.pk).update(until=steps.minutes_ago(1))
        sql("SET CONSTRAINTS ALL IMMEDIATE")()
        sql("ALTER TABLE rules_publication ENABLE ALWAYS TRIGGER pld_append_only")()
        assert current_release(task, PRODUCTION) == release
        assert serving(task.pk, PRODUCTION).fallback == "ended"

    @pytest.mark.parametrize("cause", ["withdrawn", "stopped", "moved", "signer", "actor", "ladder", "gate", "policy"])
    def test_it_fails_closed_with_a_notice_and_an_event(
        self, task: Task, ana: User, sam: User, sue: User, cause: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release = steps.released(task, ana, sam, sue)
        if cause != "ladder":
            steps.publish(release, sam)
        other = steps.again(task, ana, sam, sue)
        steps.publish(other, sam)
        plan = steps.schedule(release, sam, channel=PRODUCTION)
        bring_forward(plan)
        monkeypatch.setattr(hooks, "_objections", {})
        match cause:
            case "withdrawn":
                ruleset_withdraw(ruleset_id=release.ruleset_id, actor=sue, reason="x", proof=make_proof(sue))
            case "stopped":
                stop_make(task=task, actor=sue, reason="x", instruction_id=Instruction.objects.get(number=1).pk)
            case "moved":
                steps.publish(other, sue, PRODUCTION)
            case "signer":
                User.objects.filter(pk=sue.pk).update(is_active=False)
            case "actor":
                User.objects.filter(pk=sam.pk).update(is_active=False)
            case "gate":
                hooks.register("test", objections=lambda _release: ["The figures fell."])
            case "policy":
                steps.policy(task, publisher_may_have_signed=False)
            case _:
                pass
        served = current_release(task, PRODUCTION)
        assert run(plan).state == JobState.DONE
        assert current_release(task, PRODUCTION) == served
        end = ScheduleEnd.objects.get(schedule=plan)
        assert (end.kind, bool(end.reason), end.actor) == ("failed", True, None)
        assert AuditEvent.objects.filter(action="release.schedule_failed", actor=None).count() == 1
        assert Notification.objects.filter(kind="schedule.failed").exists()

    def test_a_moved_channel_is_no_reason_where_that_was_allowed(
        self, release: Release, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        plan = steps.schedule(release, sam, channel=PRODUCTION, allow_moved=True)
        other = steps.again(task, ana, sam, sue)
        for channel in ChannelName:
            steps.publish(other, sam, channel)
        bring_forward(plan)
        run(plan)
        assert current_release(task, PRODUCTION) == release

    def test_no_program_publishes_a_schedule_early_or_otherwise(
        self, release: Release, task: Task, sam: User, sue: User
    ) -> None:
        plan = steps.schedule(release, sam, channel=PRODUCTION)

        def act(**fields: Any) -> Callable[[], Any]:
            person = fields.pop("actor", sam)
            return lambda: publish_directly(release, person, **({"channel": PRODUCTION, **fields}))

        refused("time has not come", act(schedule=plan))
        bring_forward(plan)
        refused("not what was scheduled", act(schedule=plan, actor=sue))
        refused("not what was scheduled", act(schedule=plan, channel=STAGING))
        refused("not what was scheduled", act(schedule=plan, until=timezone.now() + timedelta(days=9)))
        refused("only a scheduled publication ends", act(until=timezone.now() + timedelta(days=9)))
        run(plan)
        refused("schedule_id|the channel moved", act(schedule=plan))
        event = audit_record("release.schedule_failed", actor=None, subject=release)
        refused(
            "settled",
            lambda: ScheduleEnd.objects.create(schedule=plan, kind="failed", actor_name="", reason="x", event=event),
        )
        sql("SET CONSTRAINTS ALL IMMEDIATE")()
        for statement in (
            "DELETE FROM rules_scheduledpublication",
            "UPDATE rules_scheduledpublication SET until = NULL",
        ):
            refused("append-only", sql(statement), DatabaseError)

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.slow
    def test_two_workers_publish_once(self) -> None:
        """Both hold what they think is the job; 20 rounds, one publication each."""
        task = make_task()
        ana = make_user("ana", Role.REVIEWER, Domain.LEGAL)
        sam, sue = make_user("sam", Role.SIGNATORY), make_user("sue", Role.SIGNATORY)
        first = steps.in_production(task, ana, sam, sue, 2)
        second = steps.again(task, ana, sam, sue)
        steps.publish(second, sam)
        for turn in range(20):
            release = (second, first)[turn % 2]
            plan = steps.schedule(release, sam, channel=PRODUCTION)
            bring_forward(plan)
            job = Job.objects.get(kind=JOB_KIND, subject_id=plan.pk)
            Job.objects.filter(pk=job.pk).update(run_after=steps.minutes_ago(1))
            claimed = job_claim(job.pk)
            assert claimed is not None
            lease = claimed[1]
            at_once(*[lambda p=plan, held=lease: schedule_run(p.pk, held)] * 2)
            assert Publication.objects.filter(schedule=plan).count() == 1
            assert not ScheduleEnd.objects.filter(schedule=plan).exists()
            assert current_release(task, PRODUCTION) == release
