"""I14: no commit holds a decision, text by a person, signature, release or publication without its own event."""

from collections.abc import Callable

import pytest
from django.db import IntegrityError, connection, transaction

from pld_app.audit import audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import WrongState
from pld_app.models import AuditAlarm, AuditEvent, Domain, Role, User
from rules.models import Decision, DecisionKind, Instruction, Revision, Signature, Task
from tests.factories import make_instruction, make_task, make_user, now
from tests.publishing import steps


def decide(one: Instruction, by: User, event: AuditEvent, kind: DecisionKind = DecisionKind.DEFER) -> Decision:
    assert one.current_revision
    return Decision.objects.create(instruction=one, revision=one.current_revision, kind=kind, actor=by, event=event)


def refused_at_commit(act: Callable[[], object], words: str) -> None:
    with pytest.raises(IntegrityError, match=words):
        _commit(act)


def _commit(act: Callable[[], object]) -> None:
    with transaction.atomic():
        act()
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.parametrize("action", ["instruction.viewed", "ruleset.signed", "instruction.approved "])
def test_the_event_names_this_very_act(action: str, task: Task, ana: User) -> None:
    one = make_instruction(task)
    refused_at_commit(
        lambda: decide(one, ana, audit_record(action, actor=ana, subject=one)),
        "does not say what a row of rules_decision",
    )
    _commit(lambda: decide(one, ana, audit_record("instruction.deferred", actor=ana, subject=one)))


def test_one_event_serves_one_row(task: Task, ana: User) -> None:
    one = make_instruction(task)
    event = audit_record("instruction.deferred", actor=ana, subject=one)
    decide(one, ana, event)
    refused_at_commit(lambda: decide(one, ana, event), "unique")


def test_a_text_by_a_person_needs_the_event_of_an_edit(task: Task, ana: User) -> None:
    one = make_instruction(task)

    def write(action: str) -> None:
        event = audit_record(action, actor=ana, subject=one)
        text = "If copies are kept, then label Breach."
        Revision.objects.create(
            instruction=one, number=2, text=text, text_sha256=sha256_hex(text), author=ana, event=event
        )

    refused_at_commit(lambda: write("instruction.approved"), "does not say what a row of rules_revision")
    _commit(lambda: write("instruction.edited"))


def test_a_signature_needs_the_event_of_signing(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)

    def sign(action: str) -> None:
        Signature.objects.create(
            ruleset=ruleset,
            manifest_sha256=ruleset.manifest_sha256,
            signer=sam,
            signer_name="Sam",
            signer_role=sam.role,
            meaning="approved",
            authenticated_at=now(),
            event=audit_record(action, actor=sam, subject=ruleset),
        )

    refused_at_commit(lambda: sign("ruleset.viewed"), "does not say what a row of rules_signature|pld: ")


@pytest.mark.parametrize("table", ["decision", "revision", "signature", "release", "publication"])
def test_every_row_of_the_record_is_asked_for_its_event(table: str, db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgenabled, tgdeferrable, tginitdeferred FROM pg_trigger"
            " WHERE tgname = 'pld_requires_event' AND tgrelid = %s::regclass",
            [f"rules_{table}"],
        )
        assert cursor.fetchone() == ("A", True, True)


@pytest.mark.django_db(transaction=True)
class TestCommits:
    def test_an_event_of_another_transaction_does_not_do(self) -> None:
        task, ana = make_task(), make_user("ana", Role.REVIEWER, Domain.LEGAL)
        with transaction.atomic():
            one = make_instruction(task)
            older = audit_record("instruction.deferred", actor=ana, subject=one)

        def reuse() -> None:
            with transaction.atomic():
                decide(one, ana, older)

        with pytest.raises(IntegrityError, match="of its own transaction"):
            reuse()
        assert not Decision.objects.exists()

    def test_an_event_in_a_savepoint_of_the_same_transaction_does(self) -> None:
        task, ana = make_task(), make_user("ana", Role.REVIEWER, Domain.LEGAL)
        with transaction.atomic():
            one = make_instruction(task)
            with transaction.atomic():
                event = audit_record("instruction.deferred", actor=ana, subject=one)
            decide(one, ana, event)
        assert Decision.objects.count() == 1

    def test_whatever_the_session_says_the_commit_is_refused(self) -> None:
        task, ana = make_task(), make_user("ana", Role.REVIEWER, Domain.LEGAL)
        one = make_instruction(task)

        def sneak() -> None:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL session_replication_role = replica")
                decide(one, ana, audit_record("thing.done", actor=ana, subject=one))

        with pytest.raises(IntegrityError, match="does not say"):
            sneak()
        assert not Decision.objects.exists()
        assert not AuditEvent.objects.filter(action="thing.done").exists()


def test_nothing_is_published_while_log_and_copy_disagree(task: Task, ana: User, sam: User, sue: User) -> None:
    release = steps.released(task, ana, sam, sue)
    AuditAlarm.objects.create(state="raised", detail="the copy outside has more")
    with pytest.raises(WrongState, match="copy outside"):
        steps.publish(release, sam)
    AuditAlarm.objects.create(state="cleared", detail="restored on purpose")
    steps.publish(release, sam)
