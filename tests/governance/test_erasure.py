"""C15, erasure: personal texts go by two people's word alone, the log still verifies, and nothing else gets through."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.test import Client

from pld_app.audit import audit_record
from pld_app.database.roles import APPLICATION
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import AuditEvent, Domain, Role, User
from pld_app.transparency.verify import log_verify
from pld_app.transparency.verify_block import Verdict
from rules.models import Decision, Erasure, ErasureDecision, ErasureItem, LegalHold, Task, Trace
from rules.services.erasing import erasure_decide, erasure_request
from rules.services.retention import hold_place, hold_release
from rules.services.review import instruction_reject
from tests.database_roles import session_of
from tests.factories import PROOF, make_instruction, make_proof, make_reauthentication, make_task, make_trace, make_user
from tests.governance.racing import racers
from tests.governance.sealing import Log
from tests.governance.test_verify import as_owner, sql

WORDS = "Mr Miller of Hamburg asked for it."


@pytest.fixture
def eve(db: None) -> User:
    """A second administrator."""
    return make_user("eve", Role.ADMIN)


@pytest.fixture
def decision(task: Task, ana: User) -> Decision:
    """A rejection whose note names somebody."""
    rule = make_instruction(task)
    instruction_reject(instruction_id=rule.pk, reviewer=ana, version=1, reason="other", note=WORDS)
    return Decision.objects.get(instruction=rule)


def ask(ada: User, *events: AuditEvent | int, kind: str = "event") -> Erasure:
    numbers = [one if isinstance(one, int) else one.pk for one in events]
    return erasure_request(kind=kind, numbers=numbers, reason="GDPR 17(1)(d)", actor=ada)


def confirm(erasure: Erasure, by: User) -> ErasureDecision:
    return erasure_decide(erasure_id=erasure.pk, actor=by, verdict="confirmed", proof=make_proof(by))


def everything() -> str:
    """All that the log and the decisions say, as text."""
    notes = Decision.objects.values_list("note", flat=True)
    return f"{list(AuditEvent.objects.values_list('data', flat=True))} {list(notes)}"


class TestErasing:
    def test_the_words_go_and_the_log_still_verifies_and_says_how_many(
        self, log: Log, decision: Decision, ada: User, sam: User
    ) -> None:
        log.seal()
        assert WORDS in everything()
        before = AuditEvent.objects.get(pk=decision.event_id)
        erasure = ask(ada, decision.event_id)
        assert WORDS in everything(), "nothing goes before the second word"
        confirm(erasure, sam)
        assert WORDS not in everything()
        decision.refresh_from_db()
        assert decision.note == "[erased]"
        after = AuditEvent.objects.get(pk=decision.event_id)
        assert after.data == {"erased": erasure.pk}
        assert (bytes(after.body), bytes(after.leaf)) == (bytes(before.body), bytes(before.leaf))
        log.seal()
        report = log_verify()
        assert (report.verdict, report.erased) == (Verdict.INTACT, 1)
        assert any("1 texts" in line for line in report.lines)

    def test_one_that_is_not_sealed_yet(self, log: Log, decision: Decision, ada: User, sam: User) -> None:
        confirm(ask(ada, decision.event_id), sam)
        report = log_verify()
        assert (report.verdict, report.erased) == (Verdict.INCOMPLETE, 1)
        log.seal()
        assert log_verify(block=16).erased == 1

    def test_a_trace_a_comment_and_a_closed_account(self, task: Task, ada: User, sam: User, ben: User) -> None:
        trace = make_trace(task, rationale=WORDS)
        User.objects.filter(pk=ben.pk).update(is_active=False, email="ben@example.org")
        confirm(ask(ada, trace.pk, kind="trace"), sam)
        confirm(ask(ada, ben.pk, kind="account"), sam)
        trace.refresh_from_db()
        ben.refresh_from_db()
        assert (set(trace.input.values()), trace.rationale, trace.instruction) == ({"[erased]"}, "", "")
        assert (ben.display_name, ben.email, ben.username) == (f"Former account {ben.pk}", "", "ben")
        with pytest.raises(InvalidInput, match="nothing to erase"):
            ask(ada, trace.pk, kind="trace")

    def test_a_comment(self, task: Task, ana: User, ada: User, sam: User) -> None:
        from rules.models import CommentVersion
        from rules.services.comments import comment_write

        comment_write(instruction_id=make_instruction(task).pk, author=ana, body=WORDS)
        version = CommentVersion.objects.get()
        confirm(ask(ada, version.pk, kind="comment"), sam)
        version.refresh_from_db()
        assert version.body == "[erased]"

    def test_refused_it_changes_nothing(self, decision: Decision, ada: User, sam: User) -> None:
        erasure = ask(ada, decision.event_id)
        erasure_decide(erasure_id=erasure.pk, actor=sam, verdict="refused", proof=make_proof(sam))
        assert WORDS in everything()
        with pytest.raises(WrongState, match="decided already"):
            confirm(erasure, sam)

    @pytest.mark.parametrize("numbers", [[], [10**9], list(range(1, 502))])
    def test_what_is_not_there_is_said(self, numbers: list[int], ada: User) -> None:
        with pytest.raises(InvalidInput):
            erasure_request(kind="event", numbers=numbers, reason="Law.", actor=ada)

    def test_an_open_account_and_the_record_of_erasures_stay(self, decision: Decision, ada: User, sam: User) -> None:
        with pytest.raises(InvalidInput):
            ask(ada, sam.pk, kind="account")
        done = confirm(ask(ada, decision.event_id), sam)
        with pytest.raises(InvalidInput):
            ask(ada, done.event_id)


class TestTwoPeople:
    def test_nobody_confirms_their_own(self, decision: Decision, ada: User) -> None:
        with pytest.raises(NotAllowed, match="your own act"):
            confirm(ask(ada, decision.event_id), ada)

    @pytest.mark.parametrize("role", [Role.REVIEWER, Role.AUDITOR])
    def test_nor_a_reviewer_or_an_auditor(self, role: Role, decision: Decision, ada: User) -> None:
        other = make_user("other", role, Domain.LEGAL if role == Role.REVIEWER else "")
        with pytest.raises(NotAllowed):
            confirm(ask(ada, decision.event_id), other)
        with pytest.raises(NotAllowed):
            ask(other, decision.event_id)

    def test_past_the_service_the_database_refuses(self, decision: Decision, ada: User, eve: User, sam: User) -> None:
        erasure = ask(ada, decision.event_id)
        events = [[one.object_id, one.sha256] for one in erasure.items.all()]
        good: dict[str, Any] = {"erasure": erasure.pk, "request": erasure.event_id, "events": events}

        def write(actor: User, proof_of: User, data: dict[str, Any], role: str = "", **about: Any) -> None:
            with transaction.atomic():
                proof = make_reauthentication(proof_of, erasure, purpose=about.pop("purpose", "erasure"))
                event = audit_record(about.pop("action", "erasure.confirmed"), actor=actor, subject=erasure, data=data)
                ErasureDecision.objects.create(
                    erasure=erasure,
                    verdict="confirmed",
                    actor=actor,
                    actor_name="x",
                    actor_role=role or actor.role,
                    reauthentication=proof,
                    event=event,
                )

        refused: list[tuple[User, User, dict[str, Any], dict[str, Any]]] = [
            (ada, ada, good, {}),
            (sam, eve, good, {}),
            (sam, sam, good | {"events": []}, {}),
            (sam, sam, good | {"events": [[events[0][0], "0" * 64]]}, {}),
            (sam, sam, good | {"request": 1}, {}),
            (sam, sam, good, {"purpose": "retention"}),
            (sam, sam, good, {"action": "erasure.refused"}),
            (decision.actor, decision.actor, good, {}),
            (decision.actor, decision.actor, good, {"role": "admin"}),
        ]
        for actor, prover, data, about in refused:
            with pytest.raises(IntegrityError, match="pld: "):
                write(actor, prover, data, **about)
            assert WORDS in everything()
        write(sam, sam, good)
        assert WORDS not in everything()

    def test_an_erasure_names_everything_at_once(self, decision: Decision, ada: User) -> None:
        erasure = ask(ada, decision.event_id)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0)")
        other = AuditEvent.objects.exclude(pk=decision.event_id).earliest("pk")
        with pytest.raises(IntegrityError, match="pld: there is no such text"), transaction.atomic():
            ErasureItem.objects.create(erasure=erasure, kind="event", object_id=other.pk, sha256="0" * 64)


class TestHolds:
    @pytest.mark.parametrize("scope", ["all", "task", "instruction", "user"])
    def test_what_is_held_is_not_erased_until_somebody_else_releases_it(
        self, scope: str, decision: Decision, ada: User, eve: User, sam: User
    ) -> None:
        rule = decision.instruction
        objects = {"instruction": str(rule.pk), "user": str(decision.actor_id)}
        erasure = ask(ada, decision.event_id)
        hold = hold_place(
            actor=ada,
            scope=scope if scope in {"all", "task"} else "object",
            task=rule.task if scope == "task" else None,
            object_type=scope if scope in objects else "",
            object_id=objects.get(scope, ""),
            reason="A suit.",
        )
        with pytest.raises(WrongState, match="legal hold"):
            confirm(erasure, sam)
        with pytest.raises(WrongState, match="legal hold"):
            ask(ada, decision.event_id)
        with pytest.raises(NotAllowed):
            hold_release(hold_id=hold.pk, actor=ada, reason="Over.", proof=make_proof(ada))
        hold_release(hold_id=hold.pk, actor=eve, reason="Over.", proof=make_proof(eve))
        confirm(erasure, sam)
        assert WORDS not in everything()

    def test_a_hold_of_something_else_holds_nothing_here(self, decision: Decision, ada: User, sam: User) -> None:
        hold_place(actor=ada, scope="task", task=make_task("other"), reason="A suit.")
        confirm(ask(ada, decision.event_id), sam)

    def test_a_hold_says_what_and_why(self, task: Task, ada: User) -> None:
        for scope in ("task", "object", "none"):
            with pytest.raises(ValidationError):
                hold_place(actor=ada, reason="A suit.", scope=scope)
        with pytest.raises(InvalidInput):
            hold_place(actor=ada, scope="all", reason=" ")

    def test_a_held_trace_is_neither_changed_nor_deleted(self, task: Task, ada: User) -> None:
        trace = make_trace(task)
        hold_place(actor=ada, scope="object", object_type="trace", object_id=str(trace.pk), reason="A suit.")
        with pytest.raises(IntegrityError, match="pld: "), transaction.atomic():
            Trace.objects.filter(pk=trace.pk).update(rationale="")
        with pytest.raises(IntegrityError, match="legal hold"), transaction.atomic():
            trace.delete()


ORM: list[Callable[[AuditEvent, int], object]] = [
    lambda event, number: AuditEvent.objects.filter(pk=event.pk).update(data={"erased": number}),
    lambda event, number: AuditEvent.objects.filter(pk=event.pk).update(data={}),
    lambda event, number: AuditEvent.objects.filter(pk=event.pk)._raw_delete("default"),
    lambda event, number: Decision.objects.filter(event=event).update(note="[erased]"),
    lambda event, number: Decision.objects.filter(event=event).update(note=""),
]


@pytest.mark.parametrize("attack", ORM)
@pytest.mark.parametrize("state", ["asked", "confirmed"])
def test_the_one_way_is_open_to_nobody_else(
    attack: Callable[[AuditEvent, int], object], state: str, decision: Decision, ada: User, sam: User
) -> None:
    """Not before the confirmation, and not after it, when its transaction is over."""
    erasure = ask(ada, decision.event_id)
    if state == "confirmed":
        confirm(erasure, sam)
        other = AuditEvent.objects.exclude(pk=decision.event_id).earliest("pk")
    target = decision.event if state == "asked" else other
    if state == "confirmed" and attack in ORM[3:]:
        pytest.skip("that event has no decision")
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        attack(target, erasure.pk)


class TestVerifying:
    """What is missing without an erasure on record is altered, whoever took it away."""

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ("""UPDATE pld_app_auditevent SET data = '{"erased": 1}' WHERE id = %(other)s""", "other"),
            ("""UPDATE pld_app_auditevent SET data = '{}' WHERE id = %(gone)s""", "gone"),
            ("""UPDATE pld_app_auditevent SET data = '{"note": "new"}' WHERE id = %(gone)s""", "gone"),
            ("UPDATE pld_app_auditevent SET action = 'erasure.other' WHERE action = 'erasure.requested'", "gone"),
            ("UPDATE pld_app_auditevent SET actor_id = %(sam)s WHERE action = 'erasure.requested'", "gone"),
            ("UPDATE pld_app_auditevent SET actor_role = 'auditor' WHERE action = 'erasure.confirmed'", "gone"),
            ("UPDATE pld_app_auditevent SET body = body || ' ' WHERE id = %(gone)s", "gone"),
        ],
    )
    def test_is_found_and_named(
        self, change: str, named: str, log: Log, decision: Decision, ada: User, sam: User
    ) -> None:
        with transaction.atomic():
            other = audit_record("thing.done", actor=ada, subject=ada, data={"note": "x"})
        confirm(ask(ada, decision.event_id), sam)
        log.seal()
        assert log_verify().verdict == Verdict.INTACT
        places = {"other": other.pk, "gone": decision.event_id, "sam": sam.pk}
        with as_owner(), connection.cursor() as cursor:
            cursor.execute(change, places)
            report = log_verify()
        assert report.verdict == Verdict.ALTERED
        assert report.first_bad.startswith(f"Event {places[named]} ")

    def test_rows_of_an_erasure_without_its_events_count_for_nothing(
        self, log: Log, decision: Decision, ada: User, sam: User
    ) -> None:
        """Who owns the tables and makes rows, but no events, has erased nothing."""
        erasure = ask(ada, decision.event_id)
        log.seal()
        with as_owner():
            sql(
                "UPDATE pld_app_auditevent SET data = jsonb_build_object('erased', %s) WHERE id = %s",
                erasure.pk,
                decision.event_id,
            )
            assert log_verify().first_bad.startswith(f"Event {decision.event_id} ")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("roles")
class TestOtherSessions:
    def test_the_applications_role_erases_nothing_by_sql(self) -> None:
        ada, sam, task = make_user("ada", Role.ADMIN), make_user("sam", Role.SIGNATORY), make_task()
        ana = make_user("ana", Role.REVIEWER, Domain.LEGAL)
        rule = make_instruction(task)
        instruction_reject(instruction_id=rule.pk, reviewer=ana, version=1, reason="other", note=WORDS)
        event = Decision.objects.get().event
        erasure = ask(ada, event)
        statements = {
            f"UPDATE pld_app_auditevent SET data = '{{\"erased\": {erasure.pk}}}' WHERE id = {event.pk}": "42501",
            "UPDATE rules_decision SET note = '[erased]'": "42501",
            "UPDATE rules_erasure SET actor_id = actor_id + 1": "42501",
            "UPDATE rules_erasureitem SET object_id = object_id + 1": "42501",
            "DELETE FROM rules_legalhold": "42501",
            "UPDATE pld_app_modelcall SET raw_reply = ''": "42501",
            "SELECT pld_erasure_takes_effect()": "42501",
            "SELECT pld_prune_takes_effect()": "42501",
            "INSERT INTO rules_erasuredecision (erasure_id, verdict, actor_id, actor_name, actor_role, reason, at,"
            f" event_id, reauthentication_id) VALUES ({erasure.pk}, 'confirmed', {sam.pk}, 'x', 'signatory', '', now(),"
            f" {event.pk}, 1)": "23514",
            "INSERT INTO rules_erasureitem (erasure_id, kind, object_id, sha256)"
            f" VALUES ({erasure.pk}, 'event', 1, '')": "23514",
        }
        with session_of(APPLICATION) as session:
            for statement, state in statements.items():
                with pytest.raises(psycopg.Error) as refused:
                    session.execute(statement.encode())
                assert refused.value.sqlstate in {state, "0A000"}, (statement, refused.value)
        assert WORDS in everything()

    def test_of_a_hold_and_an_erasure_at_one_moment_the_second_sees_the_first(self) -> None:
        ada, sam, task = make_user("ada", Role.ADMIN), make_user("sam", Role.SIGNATORY), make_task()
        with racers(2) as pair:
            for _round in range(6):
                trace = make_trace(task, rationale=WORDS)
                erasure = ask(ada, trace.pk, kind="trace")
                proof = make_proof(sam)
                first, second = pair.race(
                    lambda trace=trace: hold_place(  # type: ignore[misc]
                        actor=ada, scope="object", object_type="trace", object_id=str(trace.pk), reason="A suit."
                    ),
                    lambda erasure=erasure, proof=proof: erasure_decide(  # type: ignore[misc]
                        erasure_id=erasure.pk, actor=sam, verdict="confirmed", proof=proof
                    ),
                )
                assert first is None
                trace.refresh_from_db()
                hold = LegalHold.objects.latest("pk")
                if second is None:
                    assert ErasureDecision.objects.get(erasure=erasure).event_id < hold.event_id
                else:
                    assert trace.rationale == WORDS


class TestPages:
    def test_from_the_preview_to_the_second_persons_word(
        self, decision: Decision, ada: User, sam: User, abe: User, client_of: Callable[[User], Client]
    ) -> None:
        admin = client_of(ada)
        said = {"kind": "event", "numbers": f"{decision.event_id}", "reason": "GDPR 17(1)(d)"}
        preview = admin.post("/retention/erasures/new/", said | {"preview": "yes"})
        assert WORDS in preview.content.decode()
        assert not Erasure.objects.exists()
        assert admin.post("/retention/erasures/new/", said | {"numbers": "1 x"}).status_code == 422
        made = admin.post("/retention/erasures/new/", said)
        address = made["Location"]
        assert "Take it back" in admin.get(address).content.decode()
        assert "waits for a second person" in client_of(abe).get("/retention/").content.decode()
        signatory = client_of(sam)
        assert WORDS in signatory.get(address).content.decode()
        wrong = signatory.post(f"{address}confirm/", PROOF | {"seen": "on", "password": "wrong"})
        assert wrong.status_code == 422
        assert signatory.post(f"{address}confirm/", PROOF).status_code == 422, "not read"
        assert signatory.post(f"{address}confirm/", PROOF | {"seen": "on"}).status_code == 302
        page = client_of(abe).get(address).content.decode()
        assert WORDS not in page
        assert "erased" in page
