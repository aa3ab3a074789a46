"""The report a month: what it holds, that it never changes, who reads what, and whom it pauses."""

import csv
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse

from pld_app.audit import audit_record
from pld_app.models import Notification, Role, User
from rules.models import (
    Decision,
    JudgementContext,
    Opinion,
    OversightReport,
    PauseReason,
    ReviewPause,
    SeedAnswer,
    SeedKind,
    Task,
)
from rules.oversight import quality_from, row_of
from rules.selectors.quality import facts_of, quality_of_person
from rules.selectors.training import database_today
from rules.services.oversight import month_after, period_of, report_make, reports_make_due
from rules.services.seeds import seed_make
from rules.services.training import training_grant
from rules.tasks import oversight_due
from tests.database_roles import as_owner
from tests.factories import make_instruction, make_policy, make_task, make_user
from tests.review.conftest import RULE, approve, reject, reopen

type ClientOf = Callable[[User], Client]
MONTH = date(2026, 3, 1)
IN_MONTH = datetime(2026, 3, 17, 9, tzinfo=UTC)


def moved_into(at: datetime) -> None:
    """Give all judgements another time, as only the owner of the tables can."""
    tables = {
        JudgementContext: "rules_judgementcontext",
        SeedAnswer: "rules_seedanswer",
        Decision: "rules_decision",
        Opinion: "rules_opinion",
    }
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in tables.values():
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER pld_append_only")
            cursor.execute(f"UPDATE {table} SET at = %s", [at])  # names of our own tables
            cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER pld_append_only")


def answered(task: Task, ada: User, who: User, *, caught: int, missed: int) -> None:
    """Check items that this person caught and missed."""
    for number in range(caught + missed):
        source = make_instruction(task, f"Copies of kind {number} of {who.pk} may be kept.")
        seed = seed_make(task=task, admin=ada, source_number=source.number, kind=SeedKind.POLARITY)
        if number < caught:
            reject(seed.instruction, who, reason="unsupported")
        else:
            approve(seed.instruction, who)


class TestReports:
    def test_the_month_that_is_over_is_reported_once(self, task: Task, ana: User, ben: User, ada: User) -> None:
        answered(task, ada, ana, caught=2, missed=1)
        rows = [make_instruction(task, f"{RULE} {number}") for number in range(3)]
        for row in rows:
            approve(row, ana)
        reopen(rows[0], ben, note="Wrong.")
        assert reports_make_due(today=date(2026, 4, 1)) == 0
        moved_into(IN_MONTH)
        assert reports_make_due(today=date(2026, 3, 31)) == 0
        assert reports_make_due(today=date(2026, 7, 9)) == 1
        assert reports_make_due(today=date(2026, 7, 9)) == 0
        report = OversightReport.objects.get()
        assert (report.task, report.month, str(report)) == (task, MONTH, "2026-03")
        assert report.event.action == "oversight_report.made"
        assert report.event.data["rows_sha256"] == report.rows_sha256
        mine = next(quality_from(row) for row in report.rows if row["user"] == ana.pk)
        live = quality_of_person(facts_of(task), ana)
        assert (mine.judgements, mine.approved) == (3, 3)
        assert (mine.seeds_caught.n, mine.overturned.n) == (3, 3)
        assert mine.seeds_caught.value == pytest.approx(2 / 3, abs=1e-4)
        assert mine.overturned.value == pytest.approx(1 / 3, abs=1e-4)
        assert mine.overturned.percent_interval == live.overturned.percent_interval
        told = Notification.objects.filter(kind="oversight.report").values_list("user__username", flat=True)
        assert set(told) == {"ana", "ada"}

    def test_a_judgement_belongs_to_its_month_alone(self, task: Task, ana: User) -> None:
        approve(make_instruction(task, RULE), ana)
        moved_into(IN_MONTH)
        for month, count in ((date(2026, 2, 1), 0), (MONTH, 1), (date(2026, 4, 1), 0)):
            assert len(facts_of(task, within=period_of(month)).judgements) == count
            assert len(facts_of(task, within=period_of(month)).overturns) == count
        assert (month_after(date(2026, 12, 1)), month_after(MONTH)) == (date(2027, 1, 1), date(2026, 4, 1))

    def test_figures_come_back_as_they_were(self, task: Task, ana: User, ben: User) -> None:
        make_policy(task, double_percent=100)
        for number in range(12):
            row = make_instruction(task, f"{RULE} {number}")
            approve(row, ana)
            (approve if number else reject)(row, ben, **({} if number else {"reason": "unclear"}))
        before = quality_of_person(facts_of(task), ana)
        after = quality_from(row_of(before))
        assert row_of(after) == row_of(before)
        for name in ("raw", "kappa", "ac1"):
            one, other = getattr(before.agreement, name), getattr(after.agreement, name)
            assert (one.text, one.interval, one.n) == (other.text, other.interval, other.n)

    def test_the_database_keeps_it_and_takes_none_of_a_month_that_goes_on(self, task: Task, ana: User) -> None:
        report = report_make(task_id=task.pk, month=MONTH)
        assert report is not None
        assert report_make(task_id=task.pk, month=MONTH) is None
        rows = OversightReport.objects.filter(pk=report.pk)
        for change in (lambda: rows.update(rows=[]), rows.delete):
            with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
                change()
        with pytest.raises(IntegrityError, match="pld: a report is of a month that is over"), transaction.atomic():
            report_make(task_id=task.pk, month=date(2090, 1, 1))
        with pytest.raises(IntegrityError, match="oversight_report_of_a_month"), transaction.atomic():
            self.write(task, None, date(2026, 5, 2))
        for action, actor in (("oversight_report.made", ana), ("task.changed", None)):
            with pytest.raises(IntegrityError, match="pld: the audit event"), transaction.atomic():
                self.write(task, actor, date(2026, 5, 1), action)

    @staticmethod
    def write(task: Task, actor: User | None, month: date, action: str = "oversight_report.made") -> None:
        event = audit_record(action, actor=actor, subject=task, task_slug=task.slug)
        OversightReport.objects.create(task=task, month=month, rows=[], rows_sha256="0" * 64, event=event)
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.django_db(transaction=True)
def test_of_two_workers_one_makes_the_report() -> None:
    task = make_task()
    barrier, made = threading.Barrier(2), list[object]()

    def run() -> None:
        barrier.wait(timeout=20)
        made.append(report_make(task_id=task.pk, month=MONTH))
        connection.close()

    threads = [threading.Thread(target=run) for _number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(one is None for one in made) == [False, True]
    assert OversightReport.objects.count() == 1


def test_beat_names_the_task_that_makes_what_is_due(task: Task, ana: User, ada: User, settings: Any) -> None:
    assert settings.CELERY_BEAT_SCHEDULE["oversight"]["task"] == oversight_due.name
    approve(make_instruction(task, RULE), ana)
    moved_into(IN_MONTH)
    tomorrow = database_today() + timedelta(days=1)
    training_grant(person=ana, domain="legal", expires_on=tomorrow, note="Course.", admin=ada)
    for _turn in range(2):
        oversight_due()
    assert OversightReport.objects.get().month == MONTH
    assert Notification.objects.filter(kind="training.expires", user=ana).count() == 1


class TestPauses:
    @pytest.mark.parametrize(
        ("caught", "missed", "percent", "paused"),
        [(6, 4, 70, True), (7, 3, 70, False), (3, 6, 70, False), (6, 4, 0, False)],
    )
    def test_who_caught_too_few_of_at_least_ten(
        self, task: Task, ana: User, ada: User, caught: int, missed: int, percent: int, paused: bool
    ) -> None:
        make_policy(task, recall_percent=percent)
        answered(task, ada, ana, caught=caught, missed=missed)
        moved_into(IN_MONTH)
        report_make(task_id=task.pk, month=MONTH)
        assert ReviewPause.objects.filter(user=ana, reason=PauseReason.RECALL).exists() is paused

    @pytest.mark.parametrize(("overturned", "percent", "paused"), [(3, 20, True), (2, 20, False), (3, 0, False)])
    def test_whose_judgements_were_overturned_too_often(
        self, task: Task, ana: User, ben: User, overturned: int, percent: int, paused: bool
    ) -> None:
        make_policy(task, overturned_percent=percent)
        rows = [make_instruction(task, f"{RULE} {number}") for number in range(10)]
        for row in rows:
            approve(row, ana)
        for row in rows[:overturned]:
            reopen(row, ben, note="Wrong.")
        moved_into(IN_MONTH)
        report_make(task_id=task.pk, month=MONTH)
        assert ReviewPause.objects.filter(user=ana, reason=PauseReason.OVERTURNED).exists() is paused
        if paused:
            with pytest.raises(Exception, match="paused"):
                approve(make_instruction(task, RULE), ana)


class TestPages:
    def test_watchers_read_all_and_a_reviewer_their_own(
        self, task: Task, ana: User, ben: User, abe: User, sam: User, client_of: ClientOf
    ) -> None:
        approve(make_instruction(task, RULE), ana)
        reject(make_instruction(task, RULE), ben, reason="unclear")
        moved_into(IN_MONTH)
        assert "No report yet" in words(client_of(abe).get(url("oversight")))
        report_make(task_id=task.pk, month=MONTH)
        assert "2026-03" in words(client_of(abe).get(url("oversight")))
        everybody = words(client_of(abe).get(url("oversight-report", "2026-03")))
        assert "Ana" in everybody
        assert "Ben" in everybody
        assert "not those that were recorded" not in everybody
        own = words(client_of(ana).get(url("oversight-report", "2026-03")))
        assert "1: 1 to approve" in own
        assert "Ben" not in own
        assert client_of(sam).get(url("oversight-report", "2026-03")).status_code == 403
        for month in ("2026-04", "2026-13", "x"):
            assert client_of(abe).get(url("oversight-report", month)).status_code == 404
        for person, who in ((ana, ["person"]), (abe, ["all", "person", "person"])):
            table = client_of(person).get(url("oversight-export", "2026-03")).content.decode("utf-8-sig")
            assert [row["who"] for row in csv.DictReader(table.splitlines())] == who

    def test_rows_that_were_changed_are_called_so(self, task: Task, abe: User, client_of: ClientOf) -> None:
        report_make(task_id=task.pk, month=MONTH)
        with as_owner(), connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("ALTER TABLE rules_oversightreport DISABLE TRIGGER pld_append_only")
            cursor.execute("UPDATE rules_oversightreport SET rows = jsonb_set(rows, '{0,judgements}', '9')")
            cursor.execute("ALTER TABLE rules_oversightreport ENABLE ALWAYS TRIGGER pld_append_only")
        assert "not those that were recorded" in words(client_of(abe).get(url("oversight-report", "2026-03")))

    def test_few_queries_however_many_people(
        self, task: Task, abe: User, client_of: ClientOf, django_assert_max_num_queries: Any
    ) -> None:
        for number in range(12):
            approve(make_instruction(task, f"{RULE} {number}"), make_user(f"r{number}", Role.REVIEWER, "legal"))
        moved_into(IN_MONTH)
        report_make(task_id=task.pk, month=MONTH)
        client = client_of(abe)
        client.get(url("oversight-report", "2026-03"))
        with django_assert_max_num_queries(10):
            assert "R11" in words(client.get(url("oversight-report", "2026-03")))


def url(name: str, *args: object) -> str:
    return reverse(name, args=["nda", *args])


def words(response: Any) -> str:
    return " ".join(response.content.decode().split())
