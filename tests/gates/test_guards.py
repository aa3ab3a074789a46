"""Gates attacked past the services, by the ORM, by SQL and on two connections; and how they change."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from evaluation.services.judging import task_judge
from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import AuditEvent, Role, User
from pld_app.reauthentication import ProofRefused
from rules.exceptions import InvalidTransition, Stale
from rules.models import (
    ChannelName,
    GateDecision,
    GateException,
    GatePolicy,
    GateVerdict,
    Publication,
    Release,
    ReleaseFlag,
    Task,
)
from rules.selectors.gates import gates_in_force, publish_refusal
from rules.selectors.publishing import current_release
from rules.services.gates import gates_decide
from rules.services.publishing import release_rollback
from rules.services.stopping import stop_make
from tests.factories import audit_actions, change_role, make_proof, make_reauthentication, make_user, now
from tests.gates.scene import (
    WORLD,
    admin,
    evaluated,
    excepted,
    gates,
    proposed,
    released,
    run_of,
    student_set,
    students_task,
)
from tests.publishing import steps
from tests.publishing.test_database import publish_directly, refused, sql

type ClientOf = Callable[[User], Client]
PRODUCTION = ChannelName.PRODUCTION
FAIR = Decimal("0.6")
HALF = WORLD.instructions[:2]


@pytest.fixture
def weak(task: Task, ana: User, sam: User, sue: User) -> Release:
    """A release in staging that was evaluated and fails its gate."""
    with students_task(task, n=20):
        release = released(task, ana, sam, sue, HALF)
        gates(task, min_macro_f1=Decimal(1))
        evaluated(release)
    return release


def verdict_fields(verdict: GateVerdict) -> dict[str, Any]:
    names = [field.attname for field in GateVerdict._meta.concrete_fields]
    return {name: getattr(verdict, name) for name in names if name not in {"id", "at", "event_id"}}


def forged(verdict: GateVerdict, **fields: Any) -> Callable[[], GateVerdict]:
    """The same verdict once more with its own event, but for what is named."""

    def act() -> GateVerdict:
        event = audit_record("gates.judged", actor=None, subject=verdict.ruleset)
        return GateVerdict.objects.create(event=event, **(verdict_fields(verdict) | fields))

    return act


class TestGatesTakeTwo:
    def test_one_proposes_and_a_second_confirms(self, task: Task, ana: User) -> None:
        with students_task(task, n=6):
            waiting = proposed(task, min_macro_f1=FAIR)
            assert gates_in_force(task) is None
            ada, eve = admin("gates1"), admin("gates2")
            with pytest.raises(NotAllowed, match="You proposed"):
                gates_decide(policy_id=waiting.pk, actor=ada, verdict="confirmed", proof=make_proof(ada))
            with pytest.raises(NotAllowed):
                gates_decide(policy_id=waiting.pk, actor=ana, verdict="confirmed", proof=make_proof(ana))
            with pytest.raises(Stale, match="waits for its decision"):
                proposed(task, min_macro_f1=FAIR)
            wrong = make_proof(eve, password="no")
            with pytest.raises(ProofRefused):
                gates_decide(policy_id=waiting.pk, actor=eve, verdict="confirmed", proof=wrong)
            gates_decide(policy_id=waiting.pk, actor=eve, verdict="confirmed", proof=make_proof(eve))
            with pytest.raises(InvalidTransition):
                gates_decide(policy_id=waiting.pk, actor=eve, verdict="refused", proof=make_proof(eve))
        assert gates_in_force(task) == waiting
        assert [one for one in audit_actions(task) if one.startswith("gates")] == ["gates.proposed", "gates.confirmed"]

    def test_the_database_knows_no_other_way(self, task: Task, sam: User) -> None:
        with students_task(task, n=6):
            waiting = proposed(task, min_macro_f1=FAIR)
        ada = admin("gates1")
        event = audit_record("gates.confirmed", actor=ada, subject=task)
        values: dict[str, Any] = {"policy": waiting, "verdict": "confirmed", "event": event}
        own = {"actor": ada, "actor_name": "x", "actor_role": Role.ADMIN}
        proof = make_reauthentication(ada, waiting, purpose="gates")
        refused("their own gates", lambda: GateDecision.objects.create(reauthentication=proof, **values, **own))
        other = {"actor": sam, "actor_name": "x", "actor_role": Role.SIGNATORY}
        values["event"] = audit_record("gates.confirmed", actor=sam, subject=task)
        for_policy = make_reauthentication(sam, waiting, purpose="policy")
        refused("something else", lambda: GateDecision.objects.create(reauthentication=for_policy, **values, **other))
        refused("append-only", sql("UPDATE rules_gatepolicy SET min_macro_f1 = 0.001 WHERE id = %s", waiting.pk))
        refused("append-only", sql("DELETE FROM rules_gatepolicy WHERE id = %s", waiting.pk))
        refused("append-only", lambda: GatePolicy.objects.filter(pk=waiting.pk).update(min_macro_f1=None))

    @pytest.mark.parametrize(
        ("points", "words"),
        [
            ({"min_macro_f1": Decimal(0)}, "above 0"),
            ({"min_macro_f1": Decimal("1.1")}, "at most 1"),
            ({"max_drop": Decimal(1)}, "below 1"),
            ({"max_malformed_rate": Decimal(1)}, "below 1"),
            ({"max_prompt_tokens": 0}, "violated"),
            ({"revalidate_days": 30}, "at least one gate"),
        ],
    )
    def test_no_gate_that_cannot_fire_or_cannot_pass(self, task: Task, points: dict[str, Any], words: str) -> None:
        from django.core.exceptions import ValidationError

        with students_task(task, n=6), pytest.raises(ValidationError, match=words):
            proposed(task, **points)

    def test_a_floor_for_an_absent_label_is_refused_when_it_is_proposed(self, task: Task) -> None:
        with students_task(task, n=3), pytest.raises(InvalidInput, match="could never be passed"):
            proposed(task, label_floors={"Compliant": "0.5", "Breach": "0.5", "Unclear": "0.5", "Other": "0.5"})


class TestAVerdict:
    def test_says_what_its_figures_say(self, weak: Release) -> None:
        verdict = GateVerdict.objects.get()
        result = verdict.results[0]
        refused("what its figures say", forged(verdict, passed=True))
        refused("what its figures say", forged(verdict, results=[result | {"outcome": "passed"}], passed=True))
        higher = result | {"outcome": "passed", "value": "1.000000"}
        refused("the stored predictions", forged(verdict, results=[higher], passed=True))
        lower = result | {"threshold": "0.001", "outcome": "passed"}
        refused("one result for each gate", forged(verdict, results=[lower], passed=True))
        refused("one result for each gate", forged(verdict, results=[], passed=True))

    def test_is_of_a_finished_run_of_this_prompt_by_this_student(
        self, weak: Release, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        verdict = GateVerdict.objects.get()
        refused("a finished run of this very prompt", forged(verdict, run_id=10**6))
        for name, value in (("student_model", "other"), ("split", "validation"), ("dataset_sha256", "0" * 64)):
            refused("student, dataset and split", forged(verdict, **{name: value}))
        refused("frozen manifest", forged(verdict, manifest_sha256="0" * 64))
        refused("not of an older run", forged(verdict, measured_at=verdict.measured_at - timedelta(days=1)))
        refused("a finished run", forged(verdict, measured_at=verdict.measured_at + timedelta(milliseconds=1)))
        another = released(task, ana, sam, sue)
        moved = {"ruleset_id": another.ruleset_id, "manifest_sha256": another.manifest_sha256}
        event = audit_record("gates.judged", actor=None, subject=another.ruleset)
        refused(
            "a finished run of this very prompt",
            lambda: GateVerdict.objects.create(event=event, **(verdict_fields(verdict) | moved)),
        )

    def test_compares_with_production_alone(self, task: Task, ana: User, sam: User, sue: User) -> None:
        with students_task(task, n=20):
            first = released(task, ana, sam, sue)
            steps.publish(first, sam, PRODUCTION)
            run_of(first)
            second = released(task, ana, sam, sue, HALF)
            gates(task, max_drop=Decimal("0.010"))
            evaluated(second)
        verdict = GateVerdict.objects.get(ruleset=second.ruleset)
        assert not verdict.passed
        result = verdict.results[0]
        passed = [result | {"outcome": "passed"}]
        refused("compares with the release in production", forged(verdict, reference_sha256="", passed=True))
        kinder = [result | {"outcome": "passed", "low": "0.000000", "value": "0.000000"}]
        refused("the stored predictions", forged(verdict, results=kinder, passed=True))
        refused("what its figures say", forged(verdict, results=passed, passed=True))
        own_run = {"reference_run_id": verdict.run_id, "results": [result | {"value": "0.000000"}]}
        refused("a run of the release in production", forged(verdict, **own_run))
        unshown = [result | {"value": None, "low": "0.000000", "outcome": "passed"}]
        refused("no drop is shown", forged(verdict, reference_run_id=None, results=unshown, passed=True))

    def test_never_changes_and_has_its_own_event(self, weak: Release) -> None:
        refused("append-only", sql("UPDATE rules_gateverdict SET passed = true"))
        refused("append-only", sql("DELETE FROM rules_gateverdict"))
        refused("append-only", lambda: GateVerdict.objects.update(passed=True))
        verdict = GateVerdict.objects.get()

        def with_other_event() -> None:
            event = AuditEvent.objects.filter(action="evaluation.finished").latest("pk")
            fields = verdict_fields(verdict) | {"reference_run_id": None, "event": event}
            GateVerdict.objects.filter(pk=verdict.pk)
            sql("SET CONSTRAINTS ALL IMMEDIATE")()
            GateVerdict.objects.create(**(fields | {"models_returned": "again", "run_id": verdict.run_id}))

        refused("gate_verdict_once|its own audit event|does not say|own transaction", with_other_event)


class TestPublishing:
    def test_nothing_goes_around_a_failed_gate(self, weak: Release, sam: User, task: Task) -> None:
        with pytest.raises(WrongState, match="does not pass every gate"):
            steps.publish(weak, sam, PRODUCTION)
        refused("a gate is not shown", lambda: publish_directly(weak, sam, channel=PRODUCTION))
        assert current_release(task, PRODUCTION) is None

    def test_staging_asks_only_where_the_gates_say_so(self, task: Task, ana: User, sam: User, sue: User) -> None:
        with students_task(task, n=20):
            release = released(task, ana, sam, sue, HALF)
            gates(task, min_macro_f1=Decimal(1), staging_too=True)
            other = steps.again(task, ana, sam, sue)
            with pytest.raises(WrongState, match="Nothing is shown"):
                steps.publish(other, sam)
            refused("a gate is not shown", lambda: publish_directly(other, sam))
        assert current_release(task, ChannelName.STAGING) == release

    def test_rolling_back_and_stopping_are_not_held_up(self, task: Task, ana: User, sam: User, sue: User) -> None:
        with students_task(task, n=20):
            first = released(task, ana, sam, sue, HALF)
            steps.publish(first, sam, PRODUCTION)
            second = released(task, ana, sam, sue)
            steps.publish(second, sam, PRODUCTION)
            gates(task, min_macro_f1=Decimal(1))
            evaluated(first)
        release_rollback(
            release_id=first.pk, channel=PRODUCTION, actor=sam, proof=make_proof(sam), reason="The second one errs."
        )
        assert current_release(task, PRODUCTION) == first
        stop_make(task=task, actor=sue, reason="Both err.", ruleset_id=first.ruleset_id)
        assert current_release(task, PRODUCTION) != first

    def test_a_schedule_is_checked_again_when_its_time_is_there(self, weak: Release, task: Task, sam: User) -> None:
        from tests.governance.test_schedule import bring_forward, run

        plan = steps.schedule(weak, sam, channel=PRODUCTION)
        bring_forward(plan)
        run(plan)
        plan.refresh_from_db()
        assert "does not pass every gate" in plan.end.reason
        assert current_release(task, PRODUCTION) is None

    def test_the_guard_knows_what_a_channel_serves_as_the_pages_do(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        def by_database() -> int | None:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pld_served_release(%s, 'production')", [task.pk])
                found: int | None = cursor.fetchone()[0]
            return found

        def agree() -> None:
            found = current_release(task, PRODUCTION)
            assert by_database() == (found.pk if found else None)

        agree()
        first = steps.in_production(task, ana, sam, sue)
        agree()
        second, third = steps.again(task, ana, sam, sue), steps.again(task, ana, sam, sue)
        for one in (second, third):
            steps.publish(one, sam)
            steps.publish(one, sam, PRODUCTION)
            agree()
        release_rollback(release_id=first.pk, channel=PRODUCTION, actor=sam, proof=make_proof(sam), reason="Back.")
        agree()
        stop_make(task=task, actor=sue, reason="Errs.", ruleset_id=first.ruleset_id)
        agree()


class TestExceptions:
    def test_a_signed_one_lets_publish_until_it_expires_and_then_the_release_is_flagged(
        self, weak: Release, task: Task, sam: User, sue: User
    ) -> None:
        made = excepted(weak, sue)
        assert audit_actions(weak)[-1] == "gates.excepted"
        assert made.reauthentication.meaning == "risk accepted"
        steps.publish(weak, sam, PRODUCTION)
        assert publish_refusal(weak, PRODUCTION) == ""
        sql("SET CONSTRAINTS ALL IMMEDIATE")()
        sql("ALTER TABLE rules_gateexception DISABLE TRIGGER pld_append_only")()
        GateException.objects.update(at=now() - timedelta(days=2), expires_at=now() - timedelta(days=1))
        sql("ALTER TABLE rules_gateexception ENABLE ALWAYS TRIGGER pld_append_only")()
        task_judge(task)
        assert set(ReleaseFlag.objects.values_list("kind", flat=True)) >= {"gate_failed", "exception_ended"}
        assert current_release(task, PRODUCTION) == weak
        refused("a gate is not shown", lambda: publish_directly(weak, sam, channel=PRODUCTION))

    def test_who_when_and_for_what(self, weak: Release, task: Task, ana: User, sam: User, sue: User, ada: User) -> None:
        for person in (ana, ada):
            with pytest.raises(NotAllowed):
                excepted(weak, person)
        with pytest.raises(InvalidInput, match="90 days"):
            excepted(weak, sue, days=91)
        with pytest.raises(InvalidInput, match="90 days"):
            excepted(weak, sue, days=-1)
        with pytest.raises(InvalidInput, match="Say why"):
            excepted(weak, sue, reason=" ")
        with pytest.raises(InvalidInput, match="what your signature means"):
            excepted(weak, sue, meaning="approved")
        with pytest.raises(Stale, match="gates changed"):
            excepted(weak, sue, policy_version=9)
        with pytest.raises(ProofRefused):
            excepted(weak, sue, proof=make_proof(sue, password="no"))
        change_role(ana, Role.SIGNATORY, by=ada)
        ana.refresh_from_db()
        with pytest.raises(NotAllowed, match="composed or edited"):
            excepted(weak, ana)
        assert not GateException.objects.exists()

    def test_it_is_of_one_manifest_and_one_version_of_the_gates(
        self, weak: Release, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        excepted(weak, sue)
        other = steps.again(task, ana, sam, sue)
        steps.publish(other, sam)
        refused("a gate is not shown", lambda: publish_directly(other, sam, channel=PRODUCTION))
        gates(task, min_macro_f1=Decimal("0.999"))
        refused("a gate is not shown", lambda: publish_directly(weak, sam, channel=PRODUCTION))

    def test_the_database_takes_none_without_its_proof(self, weak: Release, sue: User) -> None:
        policy = gates_in_force(weak.task)
        event = audit_record("gates.excepted", actor=sue, subject=weak)
        values: dict[str, Any] = {
            "release": weak,
            "policy": policy,
            "manifest_sha256": weak.manifest_sha256,
            "meaning": "risk accepted",
            "expires_at": now() + timedelta(days=1),
            "actor": sue,
            "actor_name": "Sue",
            "actor_role": Role.SIGNATORY,
            "reason": "x",
            "event": event,
        }
        publishing = make_reauthentication(sue, weak, purpose="publish", meaning="risk accepted")
        refused("something else", lambda: GateException.objects.create(reauthentication=publishing, **values))
        other = make_reauthentication(sue, weak, purpose="gate exception", meaning="approved")
        refused("another meaning", lambda: GateException.objects.create(reauthentication=other, **values))
        proof = make_reauthentication(sue, weak, purpose="gate exception", meaning="risk accepted")
        late = values | {"expires_at": now() + timedelta(days=400)}
        refused("within 90 days", lambda: GateException.objects.create(reauthentication=proof, **late))
        GateException.objects.create(reauthentication=proof, **values)
        refused("append-only", sql("DELETE FROM rules_gateexception"))
        refused("append-only", lambda: GateException.objects.update(expires_at=now()))


class TestPages:
    def test_propose_confirm_and_see_it_refused(
        self, task: Task, ana: User, ada: User, sam: User, sue: User, client_of: ClientOf
    ) -> None:
        from tests.factories import PROOF
        from tests.gates.scene import dataset_of

        with students_task(task, n=20):
            release = released(task, ana, sam, sue, HALF)
            form = {
                "expected": "0",
                "student": str(task.student_id),
                "dataset_sha256": dataset_of(task).sha256,
                "split": "test",
                "minimum_n": "10",
                "min_macro_f1": "0.999",
                "floor_0": "0.5",
                "grace_days": "14",
                "reason": "The board asks.",
            }
            page = client_of(ada).post("/tasks/nda/gates/propose/", form | PROOF)
            assert page.status_code == 302
            policy = GatePolicy.objects.get()
            assert policy.thresholds == [("macro_f1", "", "0.999"), ("label_f1", "Compliant", "0.500")]
            answer = client_of(sam).post("/tasks/nda/gates/1/confirm/", {"version": "1"} | PROOF)
            assert answer.status_code == 302
            evaluated(release)
        shown = client_of(sam).get(f"/tasks/nda/releases/{release.version}/").content.decode()
        for words in ("not shown to pass", "Macro-F1, at least", "0.999", "stub-1", "A gate is not passed"):
            assert words in shown
        refusal = client_of(sam).post(
            "/tasks/nda/releases/publish/",
            {"newest": "0", "channel": "production", "release": str(release.pk)} | PROOF,
        )
        assert refusal.status_code == 409
        assert "does not pass every gate" in refusal.content.decode()
        bad = client_of(sue).post(f"/tasks/nda/releases/{release.version}/exception/", {"gates": "1"} | PROOF)
        assert bad.status_code == 422
        until = (now() + timedelta(days=5)).date().isoformat()
        good = {"gates": "1", "meaning": "risk accepted", "reason": "Needed.", "until": until}
        made = client_of(sue).post(f"/tasks/nda/releases/{release.version}/exception/", good | PROOF)
        assert made.status_code == 302
        assert "Needed." in client_of(ana).get(f"/tasks/nda/releases/{release.version}/").content.decode()

    def test_without_gates_every_page_says_so(
        self, task: Task, ana: User, sam: User, sue: User, client_of: ClientOf
    ) -> None:
        release = steps.released(task, ana, sam, sue)
        for path in ("gates/", "releases/", f"releases/{release.version}/", f"rulesets/{release.ruleset.number}/"):
            assert "No gate is set for this task" in client_of(ana).get(f"/tasks/nda/{path}").content.decode()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_failing_verdict_against_a_publication_never_leaves_it_published_after_it() -> None:
    """Whoever is first: a publication that commits after the failing verdict has been refused."""
    from pld_app.models import Domain
    from tests.factories import make_task
    from tests.governance.racing import racers, rounds
    from tests.scripted_student import World, scripted_student

    task = make_task()
    ana, sam = make_user("ana", Role.REVIEWER, Domain.LEGAL), make_user("sam", Role.SIGNATORY)
    sue = make_user("sue", Role.SIGNATORY)
    with students_task(task, n=10), racers(2) as pair, scripted_student(World.example(error_rate=0.95)) as bad:
        assert task.student is not None
        good_url = task.student.base_url
        for number in range(rounds(3)):
            release = released(task, ana, sam, sue)
            if not number:
                gates(task, min_macro_f1=Decimal("0.9"))
            evaluated(release)
            student_set(task, base_url=bad.url)
            run_of(release)
            student_set(task, base_url=good_url)
            met = pair.race(
                lambda: task_judge(Task.objects.get(pk=task.pk)),
                lambda one=release: steps.publish(one, sam, PRODUCTION),  # type: ignore[misc]
            )
            verdict = GateVerdict.objects.filter(ruleset=release.ruleset).latest("pk")
            assert not verdict.passed
            published = Publication.objects.filter(channel=PRODUCTION, release=release).first()
            assert (met[1] is None) == (published is not None)
            assert published is None or published.at < verdict.at
