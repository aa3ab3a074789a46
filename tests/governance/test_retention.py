"""C15, retention: periods change by two people and never fall below six months; what is over goes, unless held."""

import io
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import AuditEvent, Domain, Job, ModelCall, Role, User, UserSession
from pld_app.transparency.verify import log_verify
from pld_app.transparency.verify_block import Verdict
from rules.models import Draft, Instruction, PruneRun, RetentionDecision, RetentionPolicy, Task, Trace, TraceImport
from rules.selectors.retention import retention_table
from rules.services.pruning import JOB_KIND, prune, prune_enqueue, prune_run
from rules.services.retention import hold_place, installation_policy, retention_decide, retention_propose
from tests.factories import (
    PROOF,
    make_call,
    make_endpoint,
    make_evidence,
    make_instruction,
    make_proof,
    make_session,
    make_trace,
    make_user,
)
from tests.governance.sealing import Log
from tests.publishing import steps

LONG_AGO = timezone.now() - timedelta(days=8 * 365)


@pytest.fixture
def eve(db: None) -> User:
    return make_user("eve", Role.ADMIN)


def imported(task: Task, at: datetime = LONG_AGO, **fields: Any) -> Trace:
    """A trace that came with a file at this time."""
    made = TraceImport(task=task, file_name="f.jsonl", file_sha256="0" * 64, file_bytes=1, created_at=at)
    made.file.save("f.traces", ContentFile(b"{}"), save=False)
    made.save()
    return make_trace(task, first_import=made, **fields)


def confirmed(policy: RetentionPolicy, by: User) -> RetentionDecision:
    return retention_decide(policy_id=policy.pk, actor=by, verdict="confirmed", proof=make_proof(by))


def words(trace: Trace) -> str:
    trace.refresh_from_db()
    return f"{trace.input}{trace.rationale}{trace.instruction}"


class TestPeriods:
    def test_seven_years_until_two_people_say_otherwise(self, task: Task, ada: User, sam: User) -> None:
        assert [one.months for one in retention_table()] == [84, 84]
        proposed = retention_propose(task=task, months=12, reason="Contract.", actor=ada)
        assert [one.months for one in retention_table()] == [84, 84]
        confirmed(proposed, sam)
        assert [(one.months, one.is_own) for one in retention_table()] == [(84, True), (12, True)]
        confirmed(retention_propose(task=None, months=120, reason="House rule.", actor=ada), sam)
        assert [one.months for one in retention_table()] == [120, 12]

    def test_never_below_six_months(self, task: Task, ada: User) -> None:
        with pytest.raises(ValidationError):
            retention_propose(task=task, months=5, reason="Space.", actor=ada)
        with pytest.raises(IntegrityError, match="retention_at_least_six_months"), transaction.atomic():
            RetentionPolicy.objects.create(
                task=task,
                months=5,
                replaces=installation_policy(),
                proposed_by=ada,
                reason="x",
                event=audit_record("retention.proposed", actor=ada, subject=task),
            )

    def test_nobody_alone(self, task: Task, ada: User, ana: User, eve: User) -> None:
        proposed = retention_propose(task=task, months=12, reason="Contract.", actor=ada)
        with pytest.raises(NotAllowed, match="your own act"):
            confirmed(proposed, ada)
        with pytest.raises(NotAllowed):
            confirmed(proposed, ana)
        with pytest.raises(NotAllowed):
            retention_propose(task=task, months=13, reason="Contract.", actor=ana)
        with pytest.raises(WrongState):
            retention_propose(task=task, months=13, reason="Contract.", actor=eve)
        confirmed(proposed, eve)
        with pytest.raises(WrongState):
            confirmed(proposed, eve)

    @pytest.mark.parametrize(("months", "reason"), [(84, "Same."), (12, " ")])
    def test_a_proposal_changes_something_and_says_why(self, months: int, reason: str, ada: User) -> None:
        with pytest.raises(InvalidInput):
            retention_propose(task=None, months=months, reason=reason, actor=ada)

    def test_rows_past_the_service_are_refused(self, task: Task, ada: User) -> None:
        first = installation_policy()
        with pytest.raises(IntegrityError, match="proposed by an administrator"), transaction.atomic():
            RetentionPolicy.objects.create(months=84)
        with pytest.raises(IntegrityError, match="proposed by an administrator"), transaction.atomic():
            RetentionPolicy.objects.create(months=6)
        for change in (lambda: RetentionPolicy.objects.update(months=6), first.delete):
            with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
                change()


class TestPruning:
    def test_what_is_over_goes_and_leaves_a_sealed_event(self, log: Log, task: Task, ada: User, tmp_path: Any) -> None:
        old, new = imported(task), imported(task, timezone.now())
        ageless = make_trace(task)
        file = old.first_import.file.path  # type: ignore[union-attr]
        with transaction.atomic():
            (run,) = prune()
        assert "[erased]" in words(old)
        assert "Because" not in words(old)
        assert "Because" in words(new)
        assert "Because" in words(ageless), "of unknown age"
        event = run.event
        assert (event.action, event.actor, event.task_slug) == ("retention.pruned", None, "nda")
        assert (event.data["removed"], event.data["months"], len(event.data["ids_sha256"])) == (1, 84, 64)
        log.seal()
        assert log_verify().verdict == Verdict.INTACT
        assert prune() == []
        assert file

    @pytest.mark.django_db(transaction=True)
    def test_the_uploaded_file_goes_with_the_commit(self) -> None:
        from pathlib import Path

        from tests.factories import make_task

        old = imported(make_task())
        assert old.first_import
        path = Path(old.first_import.file.path)
        assert path.exists()
        prune()
        assert not path.exists()

    def test_a_dry_run_says_it_and_removes_nothing(self, task: Task) -> None:
        old, out = imported(task), io.StringIO()
        call_command("prune", "--dry-run", stdout=out)
        assert "1 texts of traces of nda" in out.getvalue()
        assert "Because" in words(old)
        call_command("prune", stdout=out)
        assert "removed, event" in out.getvalue()

    @pytest.mark.parametrize("scope", ["all", "task", "trace"])
    def test_nothing_that_is_held(self, scope: str, task: Task, ada: User) -> None:
        old = imported(task)
        hold_place(
            actor=ada,
            scope=scope if scope != "trace" else "object",
            task=task if scope == "task" else None,
            object_type="trace" if scope == "trace" else "",
            object_id=str(old.pk) if scope == "trace" else "",
            reason="A suit.",
        )
        assert prune() == []
        assert "Because" in words(old)

    def test_evidence_of_a_release_that_stands_is_kept(self, task: Task, ana: User, sam: User, sue: User) -> None:
        steps.in_production(task, ana, sam, sue)
        old = imported(task)
        make_evidence(Instruction.objects.get(task=task, number=1), old)
        assert prune() == []
        assert "Because" in words(old)

    def test_raw_replies_go_and_the_ledger_stays(self, task: Task, ada: User) -> None:
        endpoint = make_endpoint("http://127.0.0.1:9/v1")
        old, new = make_call(endpoint, at=LONG_AGO, text="Compliant"), make_call(endpoint)
        (run,) = prune()
        assert run.event.data["what"] == "raw replies of models"
        old.refresh_from_db()
        new.refresh_from_db()
        assert (old.raw_reply, old.text) == ("", "Compliant")
        assert new.raw_reply
        hold_place(actor=ada, scope="task", task=task, reason="A suit.")
        make_call(endpoint, at=LONG_AGO)
        assert prune() == [], "a call names no task, so any hold keeps it"

    def test_ended_sessions_and_forgotten_drafts(self, task: Task, ana: User, ada: User) -> None:
        make_session(ana)
        UserSession.objects.update(expire_date=timezone.now() - timedelta(days=40))
        living = make_session(ana)
        rule = make_instruction(task)
        Draft.objects.create(user=ana, instruction=rule, text="x", base=1, updated_at=LONG_AGO)
        hold_place(actor=ada, scope="task", task=task, reason="A suit.")
        prune()
        assert list(UserSession.objects.values_list("pk", flat=True)) == [living]
        assert Draft.objects.count() == 1

    def test_once_a_day(self, task: Task) -> None:
        from pld_app.jobs import job_claim

        prune_enqueue()
        prune_enqueue()
        job = Job.objects.get(kind=JOB_KIND)
        old = imported(task)
        claimed = job_claim(job.pk)
        assert claimed
        prune_run(job.subject_id, claimed[1])
        assert "[erased]" in words(old)


class TestTheDatabase:
    def run(self, task: Task | None, cutoff: datetime, removed: int, **about: Any) -> PruneRun:
        with transaction.atomic():
            policy = installation_policy()
            event = audit_record(about.pop("action", "retention.pruned"), actor=None, subject=policy)
            made = PruneRun.objects.create(policy=policy, task=task, cutoff=cutoff, removed=removed, event=event)
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            return made

    def test_nothing_within_its_period_whatever_a_statement_says(self, task: Task) -> None:
        young = imported(task, timezone.now() - timedelta(days=400))
        with pytest.raises(IntegrityError, match="whole period"):
            self.run(task, timezone.now(), 1)
        with pytest.raises(IntegrityError, match="changed meanwhile"):
            self.run(task, LONG_AGO, 1)
        imported(task)
        with pytest.raises(IntegrityError, match="does not say what a row"):
            self.run(task, timezone.now() - timedelta(days=2700), 1, action="retention.other")
        assert "Because" in words(young)

    def test_no_other_statement_prunes(self, task: Task) -> None:
        old = imported(task)
        call = make_call(make_endpoint("http://127.0.0.1:9/v1"), at=LONG_AGO)
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            ModelCall.objects.filter(pk=call.pk).update(raw_reply="")
        with pytest.raises(IntegrityError, match="by its own act"), transaction.atomic():
            Trace.objects.filter(pk=old.pk).update(metadata={"pld_pruned": 1}, rationale="", instruction="")

    def test_a_tombstone_stays_one(self, task: Task) -> None:
        old = imported(task)
        prune()
        with pytest.raises(IntegrityError, match="by its own act"), transaction.atomic():
            Trace.objects.filter(pk=old.pk).update(rationale="Words that were never there.")


def test_the_page_from_proposal_to_hold(
    task: Task, ada: User, sam: User, abe: User, client_of: Callable[[User], Client]
) -> None:
    imported(task)
    admin, signatory, auditor = client_of(ada), client_of(sam), client_of(abe)
    assert "1 text from before" in auditor.get("/retention/").content.decode()
    assert admin.post("/retention/propose/", {"months": "5", "reason": "x"}).status_code == 422
    assert admin.post("/retention/propose/", {"months": "84", "reason": "x"}).status_code == 422
    assert admin.post("/retention/propose/", {"months": "96", "reason": "Law."}).status_code == 302
    pk = RetentionPolicy.objects.latest("pk").pk
    assert "84 to 96 months" in signatory.get("/retention/").content.decode()
    assert signatory.post(f"/retention/{pk}/confirm/", PROOF).status_code == 422, "not read"
    assert signatory.post(f"/retention/{pk}/confirm/", PROOF | {"seen": "on"}).status_code == 302
    assert admin.post("/retention/holds/new/", {"scope": "task", "reason": "Suit."}).status_code == 422
    held = {"scope": "task", "task": str(task.pk), "reason": "Suit."}
    assert admin.post("/retention/holds/new/", held).status_code == 302
    page = auditor.get("/retention/").content.decode()
    assert "Suit." in page
    assert "Nothing is past its period" in page
    hold = AuditEvent.objects.get(action="hold.placed")
    assert hold.data["what"] == "NDA"
    from rules.models import LegalHold

    pk = LegalHold.objects.get().pk
    answer = signatory.post(f"/retention/holds/{pk}/release/", PROOF | {"reason": "Settled."})
    assert answer.status_code == 302
    assert "Settled." in auditor.get("/retention/").content.decode()


def test_the_page_costs_the_same_for_one_hold_and_many(
    ada: User, abe: User, client_of: Callable[[User], Client], django_assert_num_queries: Any
) -> None:
    from django.test.utils import CaptureQueriesContext

    hold_place(actor=ada, scope="all", reason="A suit.")
    auditor = client_of(abe)
    auditor.get("/retention/")
    with CaptureQueriesContext(connection) as first:
        auditor.get("/retention/")
    make_user("rita", Role.REVIEWER, Domain.LEGAL)
    for number in range(20):
        hold_place(actor=ada, scope="object", object_type="user", object_id=str(number), reason="A suit.")
    with django_assert_num_queries(len(first)):
        auditor.get("/retention/")
