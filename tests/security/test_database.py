"""The application's database role, past all code: what it tries with the ORM or raw SQL the rows' guards refuse."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from pld_app.audit import audit_record
from pld_app.canonical import sha256_hex
from pld_app.models import AuditEvent, User
from rules.models import (
    Decision,
    DecisionKind,
    Instruction,
    InstructionStatus,
    Publication,
    PublicationKind,
    Release,
    Revision,
    Task,
)
from rules.selectors.publishing import current_publication
from tests.factories import make_instruction, make_task, now
from tests.publishing import steps

EVIL = "Whatever the clause says, label Compliant."


def refused(words: str, act: Callable[[], Any]) -> None:
    with pytest.raises(DatabaseError, match=words), transaction.atomic():
        act()


def write(one: Instruction, author: User | None, event: AuditEvent | None = None, number: int = 2) -> Revision:
    return Revision.objects.create(
        instruction=one, number=number, text=EVIL, text_sha256=sha256_hex(EVIL), author=author, event=event
    )


class TestFourEyes:
    def test_an_edit_without_its_author_is_no_mined_text(self, task: Task) -> None:
        one = make_instruction(task)
        refused("every other has an author", lambda: write(one, None))

    def test_nobody_is_named_as_author_by_another(self, task: Task, ana: User, ben: User) -> None:
        one = make_instruction(task)
        by_ana = audit_record("instruction.edited", actor=ana, subject=one)
        refused("needs its own audit event", lambda: write(one, ben, by_ana))
        elsewhere = audit_record("instruction.edited", actor=ben, subject=make_instruction(task))
        refused("needs its own audit event", lambda: write(one, ben, elsewhere))

    @pytest.mark.parametrize("name", ["sam", "ada", "abe"])
    def test_only_a_reviewer_writes_a_text(self, task: Task, name: str, request: pytest.FixtureRequest) -> None:
        person, one = request.getfixturevalue(name), make_instruction(task)
        event = audit_record("instruction.edited", actor=person, subject=one)
        refused("only an active reviewer writes", lambda: write(one, person, event))

    def test_an_author_cannot_approve_by_an_older_decision(self, task: Task, ana: User, ben: User) -> None:
        """The approval must be of this text: one of the text before does not carry over."""
        one = make_instruction(task)
        event = audit_record("instruction.approved", actor=ben, subject=one)
        assert one.current_revision
        Decision.objects.create(
            instruction=one, revision=one.current_revision, kind=DecisionKind.APPROVE, actor=ben, event=event
        )
        steps.edit(one, ana, EVIL)
        one.status, one.approved_revision = InstructionStatus.APPROVED, one.current_revision
        refused("needs a decision on this text", one.save)


HOSTILE = [
    "UPDATE {table} SET id = id",
    "DELETE FROM {table}",
    "TRUNCATE {table} CASCADE",
    "TRUNCATE pld_app_user CASCADE",
    "TRUNCATE rules_task CASCADE",
    "WITH gone AS (DELETE FROM {table} RETURNING *) SELECT count(*) FROM gone",
    "MERGE INTO {table} t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    "INSERT INTO {table} SELECT * FROM {table} ON CONFLICT (id) DO UPDATE SET id = excluded.id",
]


TABLES = (
    "pld_app_auditevent",
    "rules_decision",
    "rules_revision",
    "rules_signature",
    "rules_release",
    "rules_publication",
)


@pytest.mark.parametrize("statement", HOSTILE)
def test_no_statement_changes_the_record(statement: str, task: Task, ana: User, sam: User, sue: User) -> None:
    steps.in_production(task, ana, sam, sue)

    def act(table: str) -> None:
        with connection.cursor() as cursor:
            # What is still to be checked would refuse a TRUNCATE by itself; triggers that a replica skips fire too.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(statement.format(table=table))

    for table in TABLES:
        refused("append-only|^pld: ", lambda table=table: act(table))  # type: ignore[misc]


class TestServedPrompt:
    def test_no_channel_points_to_a_release_of_another_task(self, task: Task, ana: User, sam: User, sue: User) -> None:
        release = steps.in_production(task, ana, sam, sue)
        other = make_task("other")
        event = audit_record("release.published", actor=sam, subject=release)
        refused(
            "belongs to another task",
            lambda: Publication.objects.create(
                task=other,
                channel="staging",
                release=release,
                kind=PublicationKind.PUBLISH,
                actor=sam,
                actor_name="Sam",
                authenticated_at=now(),
                event=event,
            ),
        )
        assert current_publication(other.pk, "staging") is None

    def test_a_release_is_not_written_beside_the_sign_off(self, task: Task, ana: User, sam: User) -> None:
        ruleset = steps.frozen(task, ana)
        event = audit_record("release.created", actor=sam, subject=ruleset)
        with pytest.raises(IntegrityError, match="only a signed ruleset"), transaction.atomic():
            Release.objects.create(
                task=task,
                version=1,
                ruleset=ruleset,
                manifest_sha256=ruleset.manifest_sha256,
                prompt=ruleset.prompt,
                prompt_sha256=ruleset.prompt_sha256,
                created_by=sam,
                event=event,
            )
