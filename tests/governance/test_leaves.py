"""Chain and leaf of each event: made by the database from the row, as a second account makes them, never forked."""

import hashlib
import importlib
import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pld_app.audit import audit_record
from pld_app.canonical import canonical_json
from pld_app.models import AuditChain, AuditEvent, Domain, Role, User
from pld_app.transparency import record
from rules.models import Task
from tests.factories import make_task, make_user
from tests.publishing import steps


def event(actor: User | None, subject: Any, task_slug: str = "", **data: Any) -> AuditEvent:
    with transaction.atomic():
        return audit_record("thing.done", actor=actor, subject=subject, task_slug=task_slug, data=data)


def facts(one: AuditEvent) -> record.EventFacts:
    return record.EventFacts(
        actor_id=one.actor_id,
        actor_name=one.actor_name,
        actor_role=one.actor_role,
        action=one.action,
        object_type=one.object_type,
        object_id=one.object_id,
        object_label=one.object_label,
        task_slug=one.task_slug,
        data=json.dumps(one.data, ensure_ascii=False),
        request_id=one.request_id,
        app_version=one.app_version,
    )


def check_chain(name: str) -> int:
    """Every link of a chain by the second account of it; returns how many."""
    prev, count = record.ORIGIN, 0
    for count, one in enumerate(AuditEvent.objects.filter(chain=name).order_by("seq"), start=1):
        assert (one.seq, bytes(one.prev)) == (count, prev)
        assert bytes(one.body) == record.body_bytes(facts(one))
        assert bytes(one.leaf) == record.leaf_bytes(at=one.at, body=bytes(one.body), chain=name, prev=prev, seq=one.seq)
        assert bytes(one.leaf_hash) == record.leaf_hash(bytes(one.leaf))
        prev = bytes(one.leaf_hash)
    head = AuditChain.objects.get(name=name)
    assert (head.seq, bytes(head.head)) == (count, prev)
    return count


def test_a_leaf_is_rehashed_with_stock_tools(task: Task, ada: User) -> None:
    one = event(ada, task, task.slug, fields=["näme"], note="x" * 50)
    leaf, body = json.loads(bytes(one.leaf)), json.loads(bytes(one.body))
    assert bytes(one.leaf).isascii()
    assert canonical_json(leaf) == bytes(one.leaf)
    assert canonical_json(body) == bytes(one.body)
    assert leaf["body_sha256"] == hashlib.sha256(bytes(one.body)).hexdigest()
    assert body["data_sha256"] == hashlib.sha256(canonical_json(one.data)).hexdigest()
    assert hashlib.sha256(b"\0" + bytes(one.leaf)).digest() == bytes(one.leaf_hash)
    assert datetime.fromisoformat(leaf["at"]) == one.at
    assert body["actor"] == {"id": ada.pk, "name": "Ada", "role": "admin"}
    assert "x" * 50 not in bytes(one.body).decode(), "free text is in the body only by its hash"


def test_what_is_about_one_ruleset_is_one_chain(task: Task, ana: User, sam: User, sue: User, ada: User) -> None:
    release = steps.in_production(task, ana, sam, sue)
    event(ada, ada)
    names = dict(AuditEvent.objects.order_by("pk").values_list("action", "chain"))
    ruleset = f"ruleset:{release.ruleset_id}"
    about = ("ruleset.created", "ruleset.frozen", "ruleset.signed", "release.created", "release.published")
    assert {names[action] for action in about} == {ruleset}
    assert names["thing.done"] == "platform"
    assert names["instruction.approved"] == "platform" or names["instruction.approved"] == "task:nda"
    assert all(check_chain(chain.name) == chain.seq for chain in AuditChain.objects.all())
    assert AuditEvent.objects.filter(chain=ruleset).count() >= 6


def test_events_of_a_task_share_a_chain_and_hostile_names_are_no_chain(task: Task, ada: User) -> None:
    assert event(ada, task, "nda").chain == event(None, task, "nda").chain == "task:nda"
    assert event(ada, task, '"}\n').chain == "platform"
    assert check_chain("task:nda") == 2


@pytest.mark.parametrize("days", [-1, 1])
def test_times_are_the_databases_whatever_the_application_believes(days: int, ada: User) -> None:
    """Test 27: an application's clock off by a day changes neither time nor order."""
    before = timezone.now()
    one = AuditEvent.objects.create(
        at=before + timedelta(days=days),
        seq=40,
        chain="task:other",
        prev=b"x",
        leaf=b"mine",
        leaf_hash=b"mine",
        body=b"{}",
        actor=ada,
        action="thing.done",
        object_type="user",
        object_id="1",
    )
    one = AuditEvent.objects.get(pk=one.pk)
    assert abs((one.at - before).total_seconds()) < 60
    assert check_chain("platform") == one.seq == 2  # after the account's own event
    assert event(ada, ada).seq == 3


def test_nobody_chooses_the_id_of_an_event(ada: User) -> None:
    last = event(ada, ada)
    for chosen in (last.pk, last.pk + 100, -1):
        with pytest.raises(DatabaseError, match="pld: the database numbers"), transaction.atomic():
            AuditEvent.objects.create(pk=chosen, actor=ada, action="thing.done", object_type="user", object_id="1")


@pytest.mark.parametrize("number", [1.5, 2**53, -(2**53)])
def test_numbers_that_readers_would_round_are_refused(number: float, ada: User) -> None:
    with pytest.raises(DatabaseError, match="no fractions and no integer"):
        event(ada, ada, deep=[{"n": number}])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=12,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_database_and_python_write_the_same_canonical_json(db: None, value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in text:  # jsonb holds no NUL
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pld_canonical_json(%s::jsonb), (%s::jsonb)::text", [text, text])
        written, stored = cursor.fetchone()
    assert written.encode() == canonical_json(value)
    assert record.data_sha256(stored) == hashlib.sha256(canonical_json(value)).hexdigest()


def test_keys_beyond_the_basic_plane_sort_by_utf_16(db: None) -> None:
    value = {"\ue000": 1, "\U00010000": 2, "\ud7ff": 3, "z": 4, "\uffff": 5, "\U0010fffe": 6}
    with connection.cursor() as cursor:
        cursor.execute("SELECT pld_canonical_json(%s::jsonb)", [json.dumps(value)])
        assert cursor.fetchone()[0].encode() == canonical_json(value)


def test_an_upgrade_gives_old_events_the_leaves_they_would_have_got(
    task: Task, ana: User, sam: User, sue: User, ada: User
) -> None:
    steps.in_production(task, ana, sam, sue)
    event(ada, task, task.slug, deep={"é": [1, {"b": None, "a": True}]})
    made = list(AuditEvent.objects.order_by("pk").values_list("pk", "at", "chain", "seq", "leaf", "leaf_hash", "body"))
    heads = sorted(AuditChain.objects.values_list("name", "seq", "head"))
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(
            "ALTER TABLE pld_app_auditevent DISABLE TRIGGER pld_append_only;"
            "ALTER TABLE pld_app_auditevent DROP CONSTRAINT audit_chain_without_gaps;"
            "ALTER TABLE pld_app_auditevent DROP CONSTRAINT audit_chain_without_forks;"
            "ALTER TABLE pld_app_auditchain DISABLE TRIGGER pld_no_delete;"
            "UPDATE pld_app_auditevent SET chain = '', seq = 0, prev = '', body = '', leaf = '', leaf_hash = '';"
            "DELETE FROM pld_app_auditchain;"
        )
        cursor.execute(importlib.import_module("pld_app.migrations.0004_audit_leaves").BACKFILL)
    again = list(AuditEvent.objects.order_by("pk").values_list("pk", "at", "chain", "seq", "leaf", "leaf_hash", "body"))
    assert [[*map(_plain, row)] for row in again] == [[*map(_plain, row)] for row in made]
    assert [*map(_plain, sum(heads, ()))] == [
        *map(_plain, sum(sorted(AuditChain.objects.values_list("name", "seq", "head")), ()))
    ]


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


def at_once(acts: list[Callable[[], None]]) -> None:
    barrier, errors = threading.Barrier(len(acts)), list[BaseException]()

    def run(act: Callable[[], None]) -> None:
        try:
            connection.ensure_connection()
            barrier.wait()
            act()
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if errors:
        raise errors[0]


@pytest.mark.django_db(transaction=True)
class TestManyWriters:
    """C13: the head of a chain is locked, so that writers queue and never fork it."""

    def test_eight_writers_on_one_task(self) -> None:
        task, ada = make_task(), make_user("ada", Role.ADMIN)

        def write() -> None:
            for _ in range(40):
                event(ada, task, task.slug)

        at_once([write] * 8)
        assert check_chain("task:nda") == 320

    def test_twenty_first_events_of_one_chain(self) -> None:
        task, ada = make_task(), make_user("ada", Role.ADMIN)
        at_once([lambda: event(ada, task, task.slug) and None] * 20)  # type: ignore[list-item]
        assert check_chain("task:nda") == 20

    def test_repeatable_read_is_refused_and_repeated_never_forked(self) -> None:
        """An old snapshot would read an old head: Postgres refuses the second writer with 40001, who tries again."""
        task, ana = make_task(), make_user("ana", Role.REVIEWER, Domain.LEGAL)
        refused = list[str]()

        def write() -> None:
            written = 0
            while written < 15:
                try:
                    with transaction.atomic():
                        with connection.cursor() as cursor:
                            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                            cursor.execute("SELECT count(*) FROM pld_app_auditevent")
                        audit_record("thing.done", actor=ana, subject=task, task_slug=task.slug)
                    written += 1
                except DatabaseError as error:
                    refused.append(getattr(error.__cause__, "sqlstate", ""))

        at_once([write] * 8)
        assert check_chain("task:nda") == 120
        assert set(refused) <= {"40001", "23505"}
        assert refused

    def test_what_is_rolled_back_leaves_no_gap(self) -> None:
        task, ada = make_task(), make_user("ada", Role.ADMIN)
        event(ada, task, task.slug)
        with transaction.atomic():
            event(ada, task, task.slug)
            with transaction.atomic():
                event(ada, task, task.slug)
                transaction.set_rollback(True)
            event(ada, task, task.slug)
        with transaction.atomic():
            event(ada, task, task.slug)
            transaction.set_rollback(True)
        event(ada, task, task.slug)
        assert check_chain("task:nda") == 4
