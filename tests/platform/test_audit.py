"""The audit log: written with the change or not at all, never changed, found by filters, exported without formulas."""

import csv
import html
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from django.core.exceptions import FieldError
from django.db import IntegrityError, connection, transaction
from django.db.models import Model
from django.http import StreamingHttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from pld_app.audit import audit_record
from pld_app.models import AuditEvent, User
from rules.models import Task
from tests.factories import event_backdate, make_task

type ClientOf = Callable[[User], Client]


def event(actor: User | None, action: str = "thing.done", subject: Model | None = None, **data: Any) -> AuditEvent:
    """An event about `subject`, or about the actor."""
    about = subject or actor
    assert about
    with transaction.atomic():
        return audit_record(action, actor=actor, subject=about, data=data)


def event_at(actor: User, when: str, action: str = "thing.dated") -> AuditEvent:
    """An event of a chosen time, which only the database sets otherwise."""
    made = AuditEvent.objects.create(
        actor=actor,
        actor_name="x",
        actor_role="admin",
        action=action,
        object_type="task",
        object_id="1",
        object_label="=SUM(A1)",
    )
    return event_backdate(made, datetime.fromisoformat(when).replace(tzinfo=UTC))


@pytest.fixture
def auditor(client_of: ClientOf, abe: User) -> Client:
    return client_of(abe)


def listed(client: Client, query: str) -> list[str]:
    """The actions on the page, newest first, but for the accounts the test was given."""
    found = [one.action for one in client.get(f"/audit/?{query}").context["page"]]
    return [action for action in found if action != "account.created"]


def body(response: Any) -> str:
    return str((response.getvalue() if isinstance(response, StreamingHttpResponse) else response.content).decode())


# Writing.


@pytest.mark.django_db(transaction=True)
def test_an_event_is_refused_outside_a_transaction_and_undone_with_it(ada: User) -> None:
    with pytest.raises(RuntimeError, match="transaction of the change"):
        audit_record("thing.done", actor=ada, subject=ada)
    with transaction.atomic():
        audit_record("thing.done", actor=ada, subject=ada)
        transaction.set_rollback(True)
    assert not AuditEvent.objects.filter(action="thing.done").exists()


def test_an_event_says_who_did_what_to_which_and_in_which_request(ada: User, task: Task) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"), transaction.atomic():
        made = audit_record("task.changed", actor=ada, subject=task, task_slug=task.slug, data={"fields": ["name"]})
    made.refresh_from_db()
    assert (made.actor, made.actor_name, made.actor_role) == (ada, "Ada", "admin")
    assert (made.object_type, made.object_id, made.object_label) == ("task", str(task.pk), "NDA")
    assert (made.task_slug, made.data, made.request_id) == ("nda", {"fields": ["name"]}, "r-1")
    assert abs((datetime.now(UTC) - made.at).total_seconds()) < 60


def test_the_record_reads_the_same_after_the_account_changed(ada: User) -> None:
    made = event(ada)
    User.objects.filter(pk=ada.pk).update(display_name="Someone else")
    made.refresh_from_db()
    assert made.actor_name == "Ada"


def test_the_system_has_a_name(task: Task) -> None:
    made = event(None, subject=task)
    assert (made.actor, made.actor_name, made.actor_role) == (None, "system", "system")


# The database refuses every change.


def orm_update(one: AuditEvent) -> None:
    AuditEvent.objects.filter(pk=one.pk).update(action="other")


def orm_save(one: AuditEvent) -> None:
    one.action = "other"
    one.save()


def orm_delete(one: AuditEvent) -> None:
    one.delete()


def orm_bulk(one: AuditEvent) -> None:
    one.action = "other"
    AuditEvent.objects.bulk_update([one], ["action"])


def orm_upsert(one: AuditEvent) -> None:
    one.action = "other"
    AuditEvent.objects.bulk_create([one], update_conflicts=True, unique_fields=["id"], update_fields=["action"])


def sql(statement: str) -> Callable[[AuditEvent], None]:
    def run(_one: AuditEvent) -> None:
        with connection.cursor() as cursor:
            # Foreign keys are checked at once, so that it is our own trigger that refuses a TRUNCATE.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute(statement)

    return run


@pytest.mark.parametrize(
    "change",
    [
        orm_update,
        orm_save,
        orm_delete,
        orm_bulk,
        orm_upsert,
        sql("UPDATE pld_app_auditevent SET at = now()"),
        sql("DELETE FROM pld_app_auditevent"),
        sql("TRUNCATE pld_app_auditevent CASCADE"),
        sql("TRUNCATE pld_app_user CASCADE"),
        sql("SET LOCAL session_replication_role = replica; UPDATE pld_app_auditevent SET action = 'other'"),
        sql("SET LOCAL session_replication_role = replica; DELETE FROM pld_app_auditevent"),
        sql("SET LOCAL session_replication_role = replica; TRUNCATE pld_app_auditevent CASCADE"),
        sql("MERGE INTO pld_app_auditevent e USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE"),
    ],
)
def test_a_written_event_is_never_changed_or_removed(change: Callable[[AuditEvent], None], ada: User) -> None:
    made = event(ada)
    with pytest.raises(IntegrityError, match=r"append-only|^pld: the database numbers"), transaction.atomic():
        change(AuditEvent.objects.get(pk=made.pk))
    assert AuditEvent.objects.get(pk=made.pk).action == "thing.done"


def test_an_account_with_history_is_never_deleted(ada: User) -> None:
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
        User.objects.filter(pk=ada.pk).delete()


# The list.


def test_each_filter_finds_its_events(auditor: Client, ada: User, ana: User, task: Task) -> None:
    event(ada, "thing.one")
    event(ana, "thing.two", task)
    event(ada, "other.three", task)
    assert listed(auditor, "") == ["other.three", "thing.two", "thing.one"]
    assert listed(auditor, f"actor={ana.pk}") == ["thing.two"]
    assert listed(auditor, "action=thing.one") == ["thing.one"]
    assert listed(auditor, "object_type=task") == ["other.three", "thing.two"]
    assert listed(auditor, "object=nd") == ["other.three", "thing.two"]
    assert listed(auditor, f"actor={ada.pk}&object_type=task") == ["other.three"]
    assert listed(auditor, "object=%25") == []
    assert listed(auditor, "actor=&action=&since=") == ["other.three", "thing.two", "thing.one"]


def test_kinds_of_objects_are_named_as_people_call_them(auditor: Client, ada: User) -> None:
    event(ada)
    for object_type in ("miningrun", "gone"):
        AuditEvent.objects.create(actor=ada, action="thing.done", object_type=object_type, object_label="x")
    page = auditor.get("/audit/").content.decode()
    assert '<option value="miningrun">mining run</option>' in page
    assert '<option value="user">account</option>' in page
    assert all(f"{word} “" in page for word in ("mining run", "account", "gone"))


def test_days_are_whole_and_in_utc(auditor: Client, ada: User) -> None:
    for when in ("2026-03-01T00:00:00", "2026-03-01T23:59:59.999999", "2026-03-02T00:00:00"):
        event_at(ada, when, when)
    assert len(listed(auditor, "since=2026-03-01&until=2026-03-01")) == 2
    assert listed(auditor, "since=2026-03-02") == ["2026-03-02T00:00:00"]
    assert listed(auditor, "until=2026-02-28") == []
    assert len(listed(auditor, "since=0001-01-01&until=9999-12-31")) == 3


@pytest.mark.parametrize(
    "query",
    [
        "actor=999999",
        "actor=x",
        "action=unknown",
        "object_type=unknown",
        "since=yesterday",
        "until=2026-02-30",
        "object=%00",
        "object=" + "x" * 201,
    ],
)
def test_an_invalid_filter_is_said_and_finds_nothing(auditor: Client, ada: User, query: str) -> None:
    event(ada)
    response = auditor.get(f"/audit/?{query}")
    assert response.status_code == 422
    assert response.context["page"].object_list == []
    assert 'class="field-error"' in body(response)
    for kind in ("csv", "json"):
        exported = auditor.get(f"/audit/export.{kind}?{query}")
        assert exported.status_code == 422
        assert "nothing was exported" in body(exported)
    assert not AuditEvent.objects.filter(action="audit.exported").exists()


@pytest.mark.parametrize("page", ["0", "-1", "99", "x", "1e9", "%00"])
def test_any_page_number_shows_a_page(auditor: Client, ada: User, page: str) -> None:
    event(ada)
    assert auditor.get(f"/audit/?page={page}").status_code == 200


@pytest.mark.parametrize("key", ["items", "keys", "<script>alert(1)</script>"])
def test_details_are_shown_as_text_whatever_their_names(auditor: Client, ada: User, key: str) -> None:
    details: dict[str, Any] = {key: "<img src=x>"}
    event(ada, **details)
    page = body(auditor.get("/audit/"))
    assert "&lt;img src=x&gt;" in page
    assert "<img" not in page
    assert "<script>alert" not in page


def test_the_filter_stays_in_the_links(auditor: Client, ada: User) -> None:
    for _number in range(60):
        event(ada)
    response = auditor.get("/audit/?action=thing.done")
    older = f"?action=thing.done&amp;before={response.context['page'].older}"
    assert older in body(response)
    page = body(auditor.get(html.unescape(f"/audit/{older}")))
    assert "export.csv?action=thing.done" in page
    assert "before=" not in page.split("export.csv")[1][:40]


# The export.


def test_csv_and_json_hold_the_filtered_events_newest_first(auditor: Client, ada: User, task: Task) -> None:
    first = event(ada, "thing.one", task, note="über", n=1)
    event(ada, "thing.two", task)
    lines = list(csv.DictReader(io.StringIO(body(auditor.get("/audit/export.csv?action=thing.one")))))
    assert [line["id"] for line in lines] == [str(first.pk)]
    assert (lines[0]["actor"], lines[0]["object"], lines[0]["data"]) == ("Ada", "NDA", '{"n": 1, "note": "über"}')
    records = [json.loads(line) for line in body(auditor.get("/audit/export.json?object_type=task")).splitlines()]
    assert [record["action"] for record in records] == ["thing.two", "thing.one"]
    assert records[1]["data"] == {"note": "über", "n": 1}
    assert datetime.fromisoformat(records[1]["at"]) == AuditEvent.objects.get(pk=first.pk).at


def test_csv_cells_are_no_formulas_and_json_is_exact(auditor: Client, ada: User) -> None:
    event_at(ada, "2026-03-01T00:00:00")
    (line,) = csv.DictReader(io.StringIO(body(auditor.get("/audit/export.csv?action=thing.dated"))))
    assert line["object"] == "'=SUM(A1)"
    assert json.loads(body(auditor.get("/audit/export.json?action=thing.dated")))["object"] == "=SUM(A1)"


def test_an_export_is_streamed_and_is_itself_an_event(auditor: Client, abe: User, ada: User) -> None:
    event(ada)
    response = auditor.get("/audit/export.csv?action=thing.done")
    assert isinstance(response, StreamingHttpResponse)
    assert "attachment" in response.headers["Content-Disposition"]
    made = AuditEvent.objects.get(action="audit.exported")
    assert (made.actor, made.data) == (abe, {"kind": "csv", "query": "action=thing.done", "events": 1})
    assert made.request_id == response.headers["X-Request-ID"]
    assert str(made.pk) not in [line.split(",")[0] for line in body(response).splitlines()]


def test_an_unknown_kind_of_export_is_not_found(auditor: Client) -> None:
    assert auditor.get("/audit/export.xlsx").status_code == 404


# Cost.


def test_the_list_costs_the_same_for_1_and_25_rows(
    auditor: Client, ada: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    event(ada)
    auditor.get("/audit/")
    with CaptureQueriesContext(connection) as first:
        auditor.get("/audit/")
    for number in range(60):
        event(ada, f"thing.number{number}", make_task(f"t{number}"))
    with django_assert_num_queries(len(first)):
        page = auditor.get("/audit/").context["page"]
    assert len(page.object_list) == 50


def test_the_filter_of_unknown_columns_does_not_exist(auditor: Client, ada: User) -> None:
    """Names in the query that are no filter are ignored, not passed on to the database."""
    event(ada)
    try:
        assert listed(auditor, "actor__password=x&data__x=1&order_by=pk") == ["thing.done"]
    except FieldError:
        pytest.fail("a query string reached the database as a lookup")
