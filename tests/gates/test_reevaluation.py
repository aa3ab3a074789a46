"""Asking a release again: by whom, when by itself, within which budget, once at a time, and what is shown of it."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.test import Client

from evaluation.models import Cause, EvaluationRun, Reevaluation, ReevaluationPlan
from evaluation.selectors.drift import drift_series
from evaluation.services.datasets import dataset_from_traces
from evaluation.services.judging import task_judge
from evaluation.services.reevaluation import plan_set, reevaluation_start, spent, task_follow, tasks_follow
from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, Job, Notification, User
from rules.exceptions import Stale
from rules.models import ChannelName, GateVerdict, Release, ReleaseFlag, Split, Task, TokenScope
from rules.selectors.flags import release_flags
from rules.selectors.gates import publish_refusal, validation
from rules.selectors.publishing import current_release
from rules.services.tokens import token_create
from tests.evaluation.scene import work
from tests.evaluation.worlds import world_trace
from tests.factories import audit_actions, now
from tests.gates.scene import WORLD, dataset_of, evaluated, gates, released, run_of, student_set, students_task
from tests.publishing import steps
from tests.publishing.test_database import refused, sql
from tests.scripted_student import World, scripted_student

type ClientOf = Callable[[User], Client]
PRODUCTION = ChannelName.PRODUCTION
N = 12


def plan(task: Task, ada: User, **fields: Any) -> ReevaluationPlan:
    values: dict[str, Any] = {"split": "test", "budget": Decimal(0)}
    return plan_set(task=task, actor=ada, **(values | fields))


def fresh(task: Task) -> Task:
    return Task.objects.select_related("student").get(pk=task.pk)


def in_production(task: Task, ana: User, sam: User, sue: User) -> Release:
    release = released(task, ana, sam, sue)
    dataset_of(task)
    steps.publish(release, sam, PRODUCTION)
    return release


class TestWhoAndWhat:
    def test_an_administrator_asks_again_and_the_same_while_it_is_open_is_one(
        self, task: Task, ana: User, sam: User, sue: User, ada: User
    ) -> None:
        with students_task(task, n=N):
            release = in_production(task, ana, sam, sue)
            with pytest.raises(NotAllowed):
                reevaluation_start(release=release, cause=Cause.PERSON, user=sam)
            first = reevaluation_start(release=release, cause=Cause.PERSON, user=ada)
            assert reevaluation_start(release=release, cause=Cause.PERSON, user=ada) == first
            assert EvaluationRun.objects.count() == 1
            assert audit_actions(release)[-1] == "release.reevaluated"
            work(first.run)
            first.refresh_from_db()
            assert first.closed_at is not None
            assert reevaluation_start(release=release, cause=Cause.PERSON, user=ada) != first
        assert current_release(task, PRODUCTION) == release

    def test_the_database_keeps_one_open_and_what_it_says(
        self, task: Task, ana: User, sam: User, sue: User, ada: User
    ) -> None:
        with students_task(task, n=N):
            release = in_production(task, ana, sam, sue)
            first = reevaluation_start(release=release, cause=Cause.PERSON, user=ada)
        fields = {
            field.attname: getattr(first, field.attname)
            for field in Reevaluation._meta.concrete_fields
            if field.attname not in {"id", "event_id"}
        }
        event = audit_record("release.reevaluated", actor=ada, subject=release)
        refused("reevaluation_one_open|reevaluation_run", lambda: Reevaluation.objects.create(event=event, **fields))
        refused("closed by the end", sql("UPDATE evaluation_reevaluation SET closed_at = now()"))
        refused("closed by the end", sql("UPDATE evaluation_reevaluation SET cause = 'schedule'"))
        refused("append-only", sql("DELETE FROM evaluation_reevaluation"))
        refused(
            "queued run of its release",
            lambda: Reevaluation.objects.create(event=event, **(fields | {"student_model": "other"})),
        )

    def test_by_command(self, task: Task, ana: User, sam: User, sue: User, capsys: pytest.CaptureFixture[str]) -> None:
        with students_task(task, n=N):
            with pytest.raises(CommandError, match="Production serves nothing"):
                call_command("reevaluate", "nda")
            in_production(task, ana, sam, sue)
            call_command("reevaluate", "nda")
            assert "is evaluated again as evaluation 1" in capsys.readouterr().out
            with pytest.raises(CommandError, match="no release 9"):
                call_command("reevaluate", "nda", "--release", "9")
        assert Reevaluation.objects.get().cause == Cause.COMMAND

    def test_by_a_token_of_its_own_scope(self, task: Task, ana: User, sam: User, sue: User, ada: User) -> None:
        with students_task(task, n=N):
            in_production(task, ana, sam, sue)
            _reads, prompt_token = token_create(task=task, name="student", actor=ada)
            token, secret = token_create(task=task, name="ci", actor=ada, scope=TokenScope.REEVALUATE)
            browser, path = Client(), "/api/v1/evaluation/tasks/nda/reevaluations"

            def ask(bearer: str, body: str = "{}", where: str = path) -> Any:
                headers = {"Authorization": f"Bearer {bearer}"}
                return browser.post(where, body, content_type="application/json", headers=headers)

            assert ask(prompt_token).status_code == 401
            reading = {"Authorization": f"Bearer {secret}"}
            assert browser.get("/api/v1/tasks/nda/prompt", headers=reading).status_code == 401
            assert ask(secret, '{"release": 7}').status_code == 404
            assert ask(secret, '{"release": "x"}').status_code == 422
            assert ask(secret, where=path.replace("nda", "other")).status_code == 403
            answer = ask(secret)
            assert (answer.status_code, answer.json()["state"]) == (202, "queued")
            assert ask(secret).json()["id"] == answer.json()["id"]
            work(Reevaluation.objects.get().run)
            done = browser.get(f"{path}/{answer.json()['id']}", headers=reading).json()
            assert (done["state"], done["macro_f1"], done["n"]) == ("succeeded", 1.0, N)
            assert browser.get(f"{path}/999", headers=reading).status_code == 404
        refused("a token keeps", sql("UPDATE rules_prompttoken SET scope = 'reevaluate' WHERE scope = 'prompt'"))
        event = AuditEvent.objects.get(action="release.reevaluated")
        assert event.data["said_by"].startswith("ci (")
        assert token.hint in event.data["said_by"]


class TestMoney:
    @pytest.fixture
    def release(self, task: Task, ana: User, sam: User, sue: User) -> Any:
        with students_task(task, n=N):
            student_set(task, price_in=Decimal(1000), price_out=Decimal(1000))
            yield in_production(fresh(task), ana, sam, sue)

    def test_nothing_paid_starts_without_a_budget_that_holds_it(self, release: Release, task: Task, ada: User) -> None:
        with pytest.raises(InvalidInput, match="no budget was confirmed"):
            reevaluation_start(release=release, cause=Cause.PERSON, user=ada)
        plan(task, ada, budget=Decimal("0.01"))
        with pytest.raises(InvalidInput, match=r"of the budget of 0\.01"):
            reevaluation_start(release=release, cause=Cause.PERSON, user=ada)
        assert not EvaluationRun.objects.exists()
        plan(task, ada, budget=Decimal(1000))
        started = reevaluation_start(release=release, cause=Cause.PERSON, user=ada)
        assert started.estimate > 0
        assert spent(task) == started.estimate
        work(started.run)
        assert Decimal(0) < spent(task) < started.estimate

    def test_what_was_spent_counts_for_thirty_days(self, release: Release, task: Task, ada: User) -> None:
        plan(task, ada, budget=Decimal(1000))
        started = reevaluation_start(release=release, cause=Cause.PERSON, user=ada)
        work(started.run)
        plan(task, ada, budget=started.estimate.quantize(Decimal("0.01")) + Decimal("0.01"))
        with pytest.raises(InvalidInput, match="is left"):
            reevaluation_start(release=release, cause=Cause.PERSON, user=ada)
        with time_machine.travel(now() + timedelta(days=31), tick=True):
            assert spent(task) == 0

    def test_a_refusal_of_the_schedule_is_told_once_a_day(self, release: Release, task: Task, ada: User) -> None:
        plan(task, ada, every_hours=1)
        for _time in range(3):
            assert task_follow(fresh(task)) == []
        told = Notification.objects.filter(kind="reevaluation.refused")
        assert [one.user for one in told] == [ada]
        assert "no budget was confirmed" in told[0].text

    def test_the_database_takes_no_plan_of_anybody_else(self, task: Task, sam: User, ada: User) -> None:
        event = audit_record("reevaluation.planned", actor=sam, subject=task)
        values: dict[str, Any] = {"task": task, "version": 1, "split": "test", "budget": 9, "author": sam}
        refused("only an active administrator", lambda: ReevaluationPlan.objects.create(event=event, **values))
        made = plan(task, ada)
        with pytest.raises(Stale):
            plan(task, ada, expected=0)
        refused("append-only", sql("UPDATE evaluation_reevaluationplan SET budget = 999"))
        assert made.version == 1


class TestByItself:
    def test_on_time_and_not_twice(self, task: Task, ana: User, sam: User, sue: User, ada: User) -> None:
        with students_task(task, n=N):
            in_production(task, ana, sam, sue)
            assert task_follow(fresh(task)) == []
            plan(task, ada, every_hours=24)
            (first,) = task_follow(fresh(task))
            assert first.cause == Cause.SCHEDULE
            assert task_follow(fresh(task)) == []
            work(first.run)
            assert task_follow(fresh(task)) == []
            with time_machine.travel(now() + timedelta(hours=25), tick=True):
                tasks_follow()
            assert Reevaluation.objects.count() == 2

    def test_when_model_dataset_or_release_change(self, task: Task, ana: User, sam: User, sue: User, ada: User) -> None:
        with students_task(task, n=N):
            in_production(task, ana, sam, sue)
            plan(task, ada, on_change=True)
            causes = []

            def follow() -> None:
                for one in task_follow(fresh(task)):
                    causes.append(one.cause)
                    work(one.run)

            follow()
            follow()
            student_set(task, model="stub-2")
            follow()
            world_trace(task, "No. 99: the archive shall.", "Compliant", split=Split.TEST)
            dataset_from_traces(task=task, user=None)
            follow()
            steps.publish(released(task, ana, sam, sue, WORLD.instructions[:3]), sam, PRODUCTION)
            follow()
            follow()
        assert causes == [Cause.RELEASE, Cause.MODEL, Cause.DATASET, Cause.RELEASE]

    def test_a_run_that_failed_is_not_repeated_each_minute(
        self, task: Task, ana: User, sam: User, sue: User, ada: User
    ) -> None:
        with students_task(task, n=N):
            in_production(task, ana, sam, sue)
            plan(task, ada, on_change=True)
            (first,) = task_follow(fresh(task))
        EvaluationRun.objects.filter(pk=first.run_id).update(state="failed", finished_at=now())
        first.refresh_from_db()
        assert first.closed_at is not None
        assert task_follow(fresh(task)) == []


class TestFlags:
    def test_a_failing_re_evaluation_flags_the_release_and_changes_nothing(
        self, task: Task, ana: User, sam: User, sue: User, ada: User, client_of: ClientOf
    ) -> None:
        with students_task(task, n=N):
            release = released(task, ana, sam, sue)
            gates(task, min_macro_f1=Decimal("0.9"))
            evaluated(release)
            steps.publish(release, sam, PRODUCTION)
        with scripted_student(World.example(error_rate=0.9)) as worse:
            student_set(task, base_url=worse.url)
            started = reevaluation_start(release=release, cause=Cause.PERSON, user=ada)
            work(started.run)
        job = Job.objects.filter(kind="gates.judge").latest("pk")
        from pld_app.jobs import job_execute

        job_execute(job_id=job.pk)
        flag = ReleaseFlag.objects.get(kind="gate_failed")
        assert "Macro-F1" in flag.words
        assert current_release(task, PRODUCTION) == release
        assert "release.flagged" in audit_actions(release)
        told = Notification.objects.filter(kind="release.flagged", parts__what="A gate is not passed")
        assert {sam, sue, ada} <= {one.user for one in told}
        task_judge(fresh(task))
        assert ReleaseFlag.objects.filter(kind="gate_failed").count() == 1
        for path in ("releases/", f"releases/{release.version}/"):
            assert "A gate is not passed" in client_of(ana).get(f"/tasks/nda/{path}").content.decode()
        refused("append-only", sql("DELETE FROM rules_releaseflag"))

    def test_c25_evidence_that_changed_is_shown_and_approves_nothing(
        self, task: Task, ana: User, sam: User, sue: User, ada: User, client_of: ClientOf
    ) -> None:
        with students_task(task, n=N):
            release = in_production(fresh(task), ana, sam, sue)
            signatures = release.ruleset.signatures.count()
            run_of(release)
            world_trace(task, "No. 98: the archive shall.", "Compliant", split=Split.TEST)
            dataset_from_traces(task=task, user=None, name="Second")
        assert task.student is not None
        student = task.student
        audit_record("endpoint.changed", actor=ada, subject=student, data={"fields": ["model"], "model": "stub-9"})
        words = " ".join(flag.words for flag in release_flags(release))
        for part in ("Evaluated again as evaluation 1", "Second", "The model of the student became stub-9"):
            assert part in words
        for path in (f"releases/{release.version}/", f"rulesets/{release.ruleset.number}/"):
            page = client_of(ana).get(f"/tasks/nda/{path}").content.decode()
            assert "Evidence changed since it was signed" in page
        assert release.ruleset.signatures.count() == signatures

    def test_c34_overdue_is_shown_told_and_after_the_grace_blocks_others(
        self, task: Task, ana: User, sam: User, sue: User, client_of: ClientOf
    ) -> None:
        with students_task(task, n=N):
            first = released(task, ana, sam, sue)
            policy = gates(task, min_macro_f1=Decimal("0.9"), revalidate_days=30, grace_days=10)
            evaluated(first)
            steps.publish(first, sam, PRODUCTION)
            second = released(task, ana, sam, sue)
            evaluated(second)
            assert publish_refusal(second, PRODUCTION) == ""
            due = validation(task, policy)
            assert due is not None
            assert not due.is_overdue
            _let_pass(task, days=31)
            assert validation(task, policy).is_overdue  # type: ignore[union-attr]
            task_judge(fresh(task))
            assert ReleaseFlag.objects.filter(release=first, kind="overdue").count() == 1
            assert "Re-validation is overdue" in client_of(ana).get("/tasks/nda/gates/").content.decode()
            assert publish_refusal(second, PRODUCTION) == ""
            _let_pass(task, days=10)
            assert "due for re-validation" in publish_refusal(second, PRODUCTION)
            from tests.publishing.test_database import publish_directly

            refused("re-validation of production", lambda: publish_directly(second, sam, channel=PRODUCTION))
            evaluated(first)
            assert publish_refusal(second, PRODUCTION) == ""
            steps.publish(second, sam, PRODUCTION)
        assert current_release(task, PRODUCTION) == second


def _let_pass(task: Task, *, days: int) -> None:
    """Move what the date is counted from into the past, as only the owner of the tables can."""
    tables = {"rules_publication": "at", "rules_gatedecision": "at", "rules_gateverdict": "measured_at"}
    sql("SET CONSTRAINTS ALL IMMEDIATE")()
    for table, column in tables.items():
        sql(f"ALTER TABLE {table} DISABLE TRIGGER pld_append_only")()
        sql(f"UPDATE {table} SET {column} = {column} - interval '{days} days'")()
        sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER pld_append_only")()


class TestDrift:
    def test_points_in_the_order_of_time_with_what_changed_between_them(
        self, task: Task, ana: User, sam: User, sue: User, ada: User, client_of: ClientOf
    ) -> None:
        with students_task(task, n=N) as examples:
            first = in_production(task, ana, sam, sue)
            work(reevaluation_start(release=first, cause=Cause.PERSON, user=ada).run)
            second = released(task, ana, sam, sue, WORLD.instructions[:3])
            run_of(second)
            run_of(second, sample_size=5)
            page = client_of(ana).get("/tasks/nda/evaluation/drift/").content.decode()
        (series,) = drift_series(task)
        true = [WORLD.macro_f1(one.prompt, examples) for one in (first, second)]
        assert [one.figures.metrics.macro_f1 for one in series.points] == pytest.approx(true)
        assert series.points[1].changed == ("release v1 to v2",)
        assert [mark.number for mark in series.marks] == [2]
        assert "Asked for by a person" in page
        assert "release v1 to v2" in page
        assert not GateVerdict.objects.exists()

    def test_the_plan_is_confirmed_on_the_page(self, task: Task, ada: User, ana: User, client_of: ClientOf) -> None:
        form = {"expected": "0", "split": "test", "every_hours": "24", "on_change": "on", "budget": "12.50"}
        assert client_of(ana).post("/tasks/nda/evaluation/drift/plan/", form).status_code == 403
        assert client_of(ada).post("/tasks/nda/evaluation/drift/plan/", form).status_code == 302
        assert ReevaluationPlan.objects.get().budget == Decimal("12.50")
        bad = client_of(ada).post("/tasks/nda/evaluation/drift/plan/", form | {"budget": "-1"})
        assert bad.status_code == 422
        assert "12.50" in client_of(ana).get("/tasks/nda/evaluation/drift/").content.decode()
