"""The emergency stop (C19) and revocation (I12, test 29): at once, by signed rows that stay, attacked on every way."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError
from django.test import Client

from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.jobs import job_execute
from pld_app.models import AuditEvent, Domain, Job, JobState, Notification, Role, User
from pld_app.reauthentication import ProofRefused
from rules.exceptions import InvalidTransition
from rules.models import (
    ChannelName,
    EmergencyStop,
    Instruction,
    Release,
    Revocation,
    Ruleset,
    StopSignature,
    Task,
)
from rules.selectors.publishing import current_release, serving
from rules.selectors.served import served_at
from rules.services.reads import reads_forget
from rules.services.stopping import JOB_KIND, stop_make, stop_sign
from rules.services.tokens import token_create
from rules.services.withdrawing import ruleset_withdraw
from tests.factories import (
    PASSWORD,
    approve_directly,
    audit_actions,
    make_instruction,
    make_proof,
    make_reauthentication,
    make_task,
    make_user,
)
from tests.publishing import steps
from tests.publishing.test_database import publish_directly, refused, sql
from tests.publishing.test_races import at_once

type ClientOf = Callable[[User], Client]
PRODUCTION = ChannelName.PRODUCTION


@pytest.fixture(autouse=True)
def _fresh_reads() -> None:
    reads_forget()


@pytest.fixture
def two(task: Task, ana: User, sam: User, sue: User) -> tuple[Release, Release]:
    """Two releases that were in production; the second, which has one instruction more, still is."""
    first = steps.in_production(task, ana, sam, sue, 2)
    approve_directly(make_instruction(task, "If it is new, then label Breach."), ana)
    second = steps.again(task, ana, sam, sue)
    for channel in ChannelName:
        steps.publish(second, sam, channel)
    return first, second


def stop(release: Release, actor: User, **fields: Any) -> EmergencyStop:
    values: dict[str, Any] = {"ruleset_id": release.ruleset_id, "reason": "Wrong answers."} | fields
    return stop_make(task=release.task, actor=actor, **values)


def signed(one: EmergencyStop, actor: User, kind: str, reason: str = "") -> StopSignature:
    return stop_sign(stop_id=one.pk, actor=actor, kind=kind, proof=make_proof(actor), reason=reason)


class TestAStop:
    @pytest.mark.parametrize("name", ["sam", "ada"])
    def test_c19_one_person_stops_and_the_channel_falls_back_at_once(
        self, two: tuple[Release, Release], task: Task, name: str, request: pytest.FixtureRequest
    ) -> None:
        stop(two[1], request.getfixturevalue(name))
        assert current_release(task, PRODUCTION) == two[0]
        assert serving(task.pk, PRODUCTION).fallback == "stopped"
        assert audit_actions(task)[-1] == "stop.made"

    @pytest.mark.parametrize("name", ["ana", "abe"])
    def test_nobody_else_stops(
        self, two: tuple[Release, Release], task: Task, name: str, request: pytest.FixtureRequest
    ) -> None:
        person: User = request.getfixturevalue(name)
        with pytest.raises(NotAllowed):
            stop(two[1], person)
        event = audit_record("stop.made", actor=person, subject=task)
        refused("only an active signatory or administrator", lambda: stop_directly(two[1], person, event=event))

    def test_one_instruction_stops_every_release_that_holds_it(
        self, two: tuple[Release, Release], task: Task, sam: User, sue: User
    ) -> None:
        newest = Instruction.objects.get(number=3)
        made = stop_make(task=task, actor=sam, reason="Wrong law.", instruction_id=newest.pk)
        assert current_release(task, PRODUCTION) == two[0]
        stop_make(task=task, actor=sam, reason="Wrong too.", instruction_id=Instruction.objects.get(number=1).pk)
        assert current_release(task, PRODUCTION) is None
        signed(made, sue, "lift", "It was right.")
        assert current_release(task, PRODUCTION) is None

    def test_the_student_is_told_why_there_is_nothing(
        self, two: tuple[Release, Release], task: Task, sam: User, ada: User, client: Client
    ) -> None:
        _token, secret = token_create(task=task, name="student", actor=ada)
        headers = {"Authorization": f"Bearer {secret}"}
        stop(two[1], sam)
        answer: Any = client.get("/api/v1/tasks/nda/prompt", headers=headers)
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
        assert answer.headers["X-Prompt-Fallback"] == "stopped"
        stop(two[0], sam)
        answer = client.get("/api/v1/tasks/nda/prompt", headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (503, "stopped")
        assert answer.headers["Cache-Control"] == "no-store"

    def test_what_is_stopped_is_neither_published_nor_rolled_back_to(
        self, two: tuple[Release, Release], sam: User
    ) -> None:
        stop(two[0], sam)
        with pytest.raises(WrongState, match="emergency stop holds"):
            steps.publish(two[0], sam)
        refused("emergency stop holds", lambda: publish_directly(two[0], sam))

    def test_it_is_not_made_twice_nor_without_a_reason_nor_of_another_task(
        self, two: tuple[Release, Release], task: Task, sam: User
    ) -> None:
        stop(two[1], sam)
        with pytest.raises(WrongState, match="stopped already"):
            stop(two[1], sam)
        with pytest.raises(InvalidInput, match="Say why"):
            stop(two[0], sam, reason=" ")
        other = make_task("ads")
        with pytest.raises(InvalidInput, match="of this task"):
            stop_make(task=other, actor=sam, reason="x", ruleset_id=two[0].ruleset_id)
        refused("of its own task", lambda: stop_directly(two[0], sam, task=other))

    def test_no_statement_takes_it_back(self, two: tuple[Release, Release], sam: User, sue: User) -> None:
        signed(stop(two[1], sam), sue, "confirm")
        sql("SET CONSTRAINTS ALL IMMEDIATE")()
        for table in ("rules_emergencystop", "rules_stopsignature"):
            for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET reason = 'x'", f"TRUNCATE {table} CASCADE"):
                refused("append-only", sql(statement), DatabaseError)


def stop_directly(release: Release, actor: User, **fields: Any) -> EmergencyStop:
    task = fields.pop("task", release.task)
    event = fields.pop("event", None) or audit_record("stop.made", actor=actor, subject=task)
    return EmergencyStop.objects.create(
        task=task,
        ruleset_id=release.ruleset_id,
        actor=actor,
        actor_name=str(actor),
        actor_role=actor.role,
        reason="x",
        event=event,
    )


def sign_stop_directly(one: EmergencyStop, actor: User, **fields: Any) -> StopSignature:
    kind = fields.pop("kind", "lift")
    action = "stop.lifted" if kind == "lift" else "stop.confirmed"
    proved = fields.pop("reauthentication", None) or make_reauthentication(actor, one, purpose="stop")
    return StopSignature.objects.create(
        stop=one,
        kind=kind,
        actor=actor,
        actor_name=str(actor),
        actor_role=fields.pop("actor_role", actor.role),
        reason="x",
        reauthentication=proved,
        event=fields.pop("event", None) or audit_record(action, actor=actor, subject=one.task),
    )


class TestTheSecondPerson:
    def test_a_second_signatory_signs_and_lifts(
        self, two: tuple[Release, Release], task: Task, sam: User, sue: User
    ) -> None:
        made = stop(two[1], sam)
        signed(made, sue, "confirm")
        assert current_release(task, PRODUCTION) == two[0]
        signed(made, sue, "lift", "Checked: it was right.")
        assert current_release(task, PRODUCTION) == two[1]
        assert audit_actions(task)[-3:] == ["stop.made", "stop.confirmed", "stop.lifted"]
        with pytest.raises(InvalidTransition, match="lifted already"):
            signed(made, sue, "lift", "Again.")

    def test_who_made_it_neither_signs_nor_lifts_nor_does_an_administrator(
        self, two: tuple[Release, Release], sam: User, ada: User, ana: User
    ) -> None:
        made = stop(two[1], sam)
        for kind in ("confirm", "lift"):
            for person, words in ((sam, "a second person"), (ada, "only an active signatory"), (ana, "only an active")):
                with pytest.raises(NotAllowed):
                    signed(made, person, kind, "Why not.")
                refused(words, lambda p=person, k=kind: sign_stop_directly(made, p, kind=k))  # type: ignore[misc]

    def test_lifting_takes_a_reason_and_a_proof_for_this_very_stop(
        self, two: tuple[Release, Release], sam: User, sue: User
    ) -> None:
        one, other = stop(two[1], sam), stop(two[0], sam)
        with pytest.raises(InvalidInput, match="Say why"):
            signed(one, sue, "lift")
        with pytest.raises(ProofRefused):
            stop_sign(stop_id=one.pk, actor=sue, kind="lift", proof=make_proof(sue, password="wrong"), reason="x")
        elsewhere = make_reauthentication(sue, other, purpose="stop")
        refused("for something else", lambda: sign_stop_directly(one, sue, reauthentication=elsewhere))
        assert not StopSignature.objects.exists()

    def test_without_it_for_24_hours_everybody_concerned_is_told_once(
        self, two: tuple[Release, Release], task: Task, sam: User, sue: User, ada: User, abe: User, client_of: ClientOf
    ) -> None:
        made = stop(two[1], sam)
        assert Notification.objects.filter(kind="stop.made", user=sue).exists()
        job = Job.objects.get(kind=JOB_KIND, subject_id=made.pk)
        run(job)
        assert not AuditEvent.objects.filter(action="stop.overdue").exists()
        backdate(made, hours=25)
        run(job)
        run(job)
        assert AuditEvent.objects.filter(action="stop.overdue").count() == 1
        assert set(Notification.objects.filter(kind="stop.overdue").values_list("user", flat=True)) >= {
            sam.pk,
            sue.pk,
            ada.pk,
            abe.pk,
        }
        page = client_of(abe).get("/tasks/nda/rulesets/").content.decode()
        assert "The second signature is overdue." in page

    def test_signed_in_time_nobody_is_told(self, two: tuple[Release, Release], sam: User, sue: User) -> None:
        made = stop(two[1], sam)
        signed(made, sue, "confirm")
        backdate(made, hours=25)
        run(Job.objects.get(kind=JOB_KIND, subject_id=made.pk))
        assert not AuditEvent.objects.filter(action="stop.overdue").exists()

    def test_the_pages_lead_through_it(
        self, two: tuple[Release, Release], task: Task, ada: User, sam: User, ana: User, client_of: ClientOf
    ) -> None:
        admin = client_of(ada)
        target = f"ruleset:{two[1].ruleset_id}"
        assert admin.post("/tasks/nda/control/stop/", {"target": target, "reason": " "}).status_code == 422
        assert admin.post("/tasks/nda/control/stop/", {"target": "ruleset:0", "reason": "x"}).status_code == 422
        assert admin.post("/tasks/nda/control/stop/", {"target": target, "reason": "Burns."}).status_code == 302
        for path in ("", "review/", "rulesets/", "releases/", "traces/"):
            assert "Emergency stop: " in client_of(ana).get(f"/tasks/nda/{path}").content.decode()
        made = EmergencyStop.objects.get()
        browser = client_of(sam)
        sent = {"password": "wrong", "consent": "on", "reason": "Fine again.", "stop": made.pk}
        lift = f"/tasks/nda/control/stops/{made.pk}/lift/"
        assert browser.post(lift, sent).status_code == 422
        assert browser.post(lift, sent | {"password": PASSWORD}).status_code == 302
        page = browser.get("/tasks/nda/control/").content.decode()
        assert "lifted by Sam: Fine again." in page
        assert "Emergency stop: " not in client_of(ana).get("/tasks/nda/review/").content.decode()


def run(job: Job) -> None:
    """Run a job as a worker that thinks it is due, whatever its state."""
    Job.objects.filter(pk=job.pk).update(state=JobState.QUEUED, run_after=steps.minutes_ago(1))
    job_execute(job_id=job.pk)


def backdate(made: EmergencyStop, hours: float) -> None:
    """Let time pass: the guard that keeps the row is put aside for this one statement."""
    sql("SET CONSTRAINTS ALL IMMEDIATE")()
    sql("ALTER TABLE rules_emergencystop DISABLE TRIGGER pld_append_only")()
    EmergencyStop.objects.filter(pk=made.pk).update(at=made.at - timedelta(hours=hours))
    sql("SET CONSTRAINTS ALL IMMEDIATE")()
    sql("ALTER TABLE rules_emergencystop ENABLE ALWAYS TRIGGER pld_append_only")()


class TestRevocation:
    def test_i12_it_is_a_signed_row_and_takes_effect_at_once(
        self, two: tuple[Release, Release], task: Task, sam: User, ada: User, client: Client
    ) -> None:
        _token, secret = token_create(task=task, name="student", actor=ada)
        headers = {"Authorization": f"Bearer {secret}"}
        before: Any = client.get("/api/v1/tasks/nda/prompt", headers=headers)
        moment = steps.minutes_ago(0)
        ruleset_withdraw(ruleset_id=two[1].ruleset_id, actor=sam, reason="The law changed.", proof=make_proof(sam))
        after: Any = client.get("/api/v1/tasks/nda/prompt", headers=headers | {"If-None-Match": before.headers["ETag"]})
        assert (before.json()["version"], after.status_code, after.json()["version"]) == (2, 200, 1)
        row = Revocation.objects.get()
        assert (row.actor, row.reason, row.reauthentication.method) == (sam, "The law changed.", "password")
        # It stays visible for ever, and the past keeps its answer.
        assert served_at(task.pk, PRODUCTION, moment) == two[1].publications.get(channel=PRODUCTION)
        refused("append-only", sql("DELETE FROM rules_revocation"), DatabaseError)

    def test_no_status_is_changed_without_it(self, two: tuple[Release, Release], task: Task, ana: User) -> None:
        waiting = steps.again_frozen(task, ana)
        for ruleset in (waiting, two[1].ruleset):
            act = lambda r=ruleset: Ruleset.objects.filter(pk=r.pk).update(status="withdrawn")  # noqa: E731
            refused("withdrawn by a signed act", act)

    def test_a_reviewer_withdraws_until_it_is_signed_and_proves_it(
        self, two: tuple[Release, Release], task: Task, ana: User
    ) -> None:
        waiting = steps.again_frozen(task, ana)
        with pytest.raises(InvalidInput, match="Prove again"):
            ruleset_withdraw(ruleset_id=waiting.pk, actor=ana, reason="Wrong order.")
        ruleset_withdraw(ruleset_id=waiting.pk, actor=ana, reason="Wrong order.", proof=make_proof(ana))
        signed_one = two[1].ruleset
        proved = make_reauthentication(ana, signed_one, purpose="withdraw")
        refused(
            "cannot be withdrawn by this role",
            lambda: Revocation.objects.create(
                ruleset=signed_one,
                actor=ana,
                actor_name=str(ana),
                actor_role=ana.role,
                reason="x",
                reauthentication=proved,
                event=audit_record("ruleset.withdrawn", actor=ana, subject=signed_one),
            ),
        )


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_a_stop_against_a_publication_never_leaves_the_stopped_one_served() -> None:
    """Two connections, 50 rounds: whichever comes first, what is stopped is not served afterwards."""
    task = make_task()
    ana = make_user("ana", Role.REVIEWER, Domain.LEGAL)
    sam, sue = make_user("sam", Role.SIGNATORY), make_user("sue", Role.SIGNATORY)
    first = steps.in_production(task, ana, sam, sue, 2)
    second = steps.again(task, ana, sam, sue)
    steps.publish(second, sam)
    seen = set()
    for turn in range(50):
        target = (second, first)[turn % 2]
        outcomes = at_once(
            lambda t=target: stop(t, sam),  # type: ignore[misc]
            lambda t=target: steps.publish(t, sue, PRODUCTION),  # type: ignore[misc]
        )
        assert outcomes[0] == "done"
        seen.add(outcomes[1])
        assert current_release(task, PRODUCTION) != target
        signed(EmergencyStop.objects.active().get(), sue, "lift", "Next round.")
    assert threading.active_count() < 20
    assert all("done" in one or "emergency stop" in one or "already serves" in one for one in seen), seen
