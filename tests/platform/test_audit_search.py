"""Searching the log: filters, pages by key, counts, kept searches, single events; and that reading is on record."""

import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from pld_app.audit import audit_record
from pld_app.audit_search import PER_PAGE, READINGS, AuditSearch, events_page, facets, values_of
from pld_app.models import AuditEvent, AuditKey, AuditQuery, User
from rules.models import Task
from tests.factories import event_backdate, make_instruction, make_task, now
from tests.governance.conftest import log  # noqa: F401  # a fixture
from tests.governance.sealing import Log

type ClientOf = Callable[[User], Client]


def event(actor: User, action: str = "thing.done", subject: Any = None, slug: str = "", **data: Any) -> AuditEvent:
    with transaction.atomic():
        return audit_record(action, actor=actor, subject=subject or actor, data=data, task_slug=slug)


@pytest.fixture
def auditor(client_of: ClientOf, abe: User) -> Client:
    return client_of(abe)


def found(client: Client, query: str) -> list[int]:
    return [one.pk for one in client.get(f"/audit/?{query}").context["page"]]


def readings(action: str = "audit.searched") -> list[dict[str, Any]]:
    return list(AuditEvent.objects.filter(action=action).order_by("pk").values_list("data", flat=True))


class TestFilters:
    def test_words_are_found_in_labels_reasons_and_notes(self, auditor: Client, ada: User, task: Task) -> None:
        one = event(ada, "a.made", task, reason="The backup copies were burnt.")
        other = event(ada, "a.made", ada, note="Nothing was burnt", deeper={"list": ["a Zebra"]})
        assert found(auditor, "text=burnt") == [other.pk, one.pk]
        assert found(auditor, "text=%22backup+copies%22") == [one.pk]
        assert found(auditor, "text=burnt+-nothing") == [one.pk]
        assert found(auditor, "text=zebra") == [other.pk]
        assert found(auditor, "text=nda") == [one.pk]
        assert found(auditor, "text=unheard") == []

    def test_object_task_and_request(self, auditor: Client, ada: User, task: Task) -> None:
        one, two = event(ada, subject=task, slug="nda"), event(ada, subject=make_task("lease"), slug="lease")
        event(ada)
        assert found(auditor, "task=nda") == [one.pk]
        assert found(auditor, f"object_type=task&object_id={two.object_id}") == [two.pk]
        assert found(auditor, "object=LEA") == [two.pk]
        auditor.get("/audit/?readings=on")
        reading = AuditEvent.objects.filter(action="audit.searched").latest("pk")
        assert found(auditor, f"request={reading.request_id}&readings=on") == [reading.pk]

    def test_a_text_of_any_length_can_be_written_and_is_found_by_its_beginning(
        self, auditor: Client, ada: User
    ) -> None:
        words = "beginning " + " ".join(f"word{number}" for number in range(200_000))
        one = event(ada, note=words)
        assert found(auditor, "text=beginning") == [one.pk]


class TestPages:
    @pytest.mark.parametrize("dated", [False, True])
    def test_pages_follow_by_key_without_loss_or_repeat(self, dated: bool, ada: User) -> None:
        made = [event(ada).pk for _number in range(2 * PER_PAGE + 20)]
        if dated:
            # Times that do not go up with the numbers, and three events of one moment.
            at = now()
            for pk in made[10:13]:
                event_backdate(AuditEvent.objects.get(pk=pk), at)
        search = AuditSearch(action="thing.done", since=now().date() if dated else None)
        seen, page = list[int](), events_page(search)
        while True:
            seen += [one.pk for one in page]
            if page.older is None:
                break
            page = events_page(search, before=page.older)
        assert sorted(seen) == made
        back = events_page(search, after=page.newer)
        assert [one.pk for one in back] == seen[PER_PAGE : 2 * PER_PAGE]
        assert back.newer is not None
        first = events_page(search, after=back.newer)
        assert ([one.pk for one in first], first.newer) == (seen[:PER_PAGE], None)

    def test_a_page_costs_the_same_however_many_events_there_are(
        self, auditor: Client, ada: User, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        event(ada)
        auditor.get("/audit/")
        with CaptureQueriesContext(connection) as first:
            auditor.get("/audit/")
        for number in range(60):
            event(ada, f"thing.number{number}", make_task(f"t{number}"), slug=f"t{number}")
        with django_assert_num_queries(len(first)):
            auditor.get("/audit/")


INDEXES = [
    (AuditSearch(text="burnt"), "audit_words"),
    (AuditSearch(object="nda"), "audit_words"),
    (AuditSearch(task="nda", readings=True), "audit_task"),
    (AuditSearch(action="thing.done"), "audit_action"),
    # Either of the two: the foreign key has one of its own.
    (AuditSearch(actor=1, readings=True), "actor"),
    (AuditSearch(object_type="task", object_id="1"), "audit_object"),
    (AuditSearch(request="r"), "audit_request"),
    (AuditSearch(since=now().date()), "audit_at"),
]


@pytest.mark.parametrize(("search", "index"), INDEXES)
def test_every_filter_has_an_index(search: AuditSearch, index: str, ada: User) -> None:
    """On a small table the planner reads it whole, so that way is closed to it here."""
    event(ada)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    assert index in search.events().order_by().explain()


@pytest.mark.parametrize("column", ["task_slug", "action", "object_type"])
def test_the_choices_of_a_filter_are_read_from_an_index(column: str, ada: User, task: Task) -> None:
    for number in range(3):
        event(ada, f"thing.number{number}", task if number else ada, slug=f"t{number}")
    assert values_of(column) == sorted(set(AuditEvent.objects.values_list(column, flat=True)) - {""})


def test_counts_stand_beside_what_was_found(auditor: Client, ada: User, ana: User, task: Task) -> None:
    event(ada, "a.made", task, slug="nda")
    event(ana, "a.made", task, slug="nda")
    event(ana, "b.made")
    counted = facets(AuditSearch())
    accounts = AuditEvent.objects.filter(action="account.created").count()
    assert (counted.total, counted.is_capped) == (3 + accounts, False)
    assert [(one.name, one.count) for one in counted.by_field["actor"]] == [("Ana", 2), ("Ada", 1)]
    made = [("account.created", accounts), ("a.made", 2), ("b.made", 1)]
    assert [(one.value, one.count) for one in counted.by_field["action"]] == made
    page = auditor.get("/audit/?task=nda").content.decode()
    assert "2 events" in page
    assert f"?task=nda&amp;actor={ana.pk}" in page


class TestReadingIsOnRecord:
    """C14."""

    def test_a_search_leaves_one_event_with_its_query_and_how_much_it_found(
        self, auditor: Client, abe: User, ada: User
    ) -> None:
        for _number in range(PER_PAGE + 1):
            event(ada)
        first = auditor.get("/audit/?action=thing.done").context["page"]
        auditor.get(f"/audit/?action=thing.done&before={first.older}")
        auditor.get("/audit/?action=thing.done&actor=")
        assert readings() == [{"query": "action=thing.done", "found": PER_PAGE + 1, "more": False}]
        assert AuditEvent.objects.get(action="audit.searched").actor == abe
        auditor.get("/audit/?text=other")
        assert [one["query"] for one in readings()] == ["action=thing.done", "text=other"]

    def test_after_a_quarter_of_an_hour_it_is_another_reading(self, auditor: Client, ada: User) -> None:
        auditor.get("/audit/?text=x")
        event_backdate(AuditEvent.objects.get(action="audit.searched"), now() - timedelta(minutes=16))
        auditor.get("/audit/?text=x")
        assert len(readings()) == 2

    def test_another_persons_same_search_is_their_own(self, auditor: Client, ada: User, client_of: ClientOf) -> None:
        auditor.get("/audit/")
        client_of(ada).get("/audit/")
        assert len(readings()) == 2

    def test_each_event_opened_and_each_proof_taken(self, auditor: Client, ada: User) -> None:
        one = event(ada)
        auditor.get(f"/audit/{one.pk}/")
        auditor.get(f"/audit/{one.pk}/proof.json")
        assert readings("audit.viewed") == [{"event": one.pk}] * 2

    def test_readings_are_left_out_unless_asked_for_and_the_page_says_so(self, auditor: Client, ada: User) -> None:
        one = event(ada)
        auditor.get(f"/audit/{one.pk}/")
        response = auditor.get("/audit/")
        assert [row.pk for row in response.context["page"] if row.action != "account.created"] == [one.pk]
        assert "without readings of this log" in response.content.decode()
        assert len(found(auditor, "readings=on")) >= 3
        assert found(auditor, f"action={READINGS[1]}") != []

    def test_what_cannot_be_recorded_is_not_shown(self, auditor: Client, ada: User) -> None:
        one = event(ada)
        auditor.raise_request_exception = False
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION full_() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk full'; END $$;"
                "CREATE TRIGGER full_ BEFORE INSERT ON pld_app_auditevent FOR EACH ROW EXECUTE FUNCTION full_()"
            )
        response = auditor.get(f"/audit/{one.pk}/")
        assert response.status_code == 500
        assert "thing.done" not in response.content.decode()


class TestKeptSearches:
    def test_has_its_own_address_and_is_private_or_shared(
        self, auditor: Client, abe: User, ada: User, client_of: ClientOf
    ) -> None:
        one = event(ada, "a.made")
        event(ada, "b.made")
        answer = auditor.post("/audit/searches/new/?action=a.made", {"name": "Only a"})
        assert [row.pk for row in auditor.get(answer["Location"]).context["page"]] == [one.pk]
        admin = client_of(ada)
        assert admin.get(answer["Location"]).status_code == 404
        assert not AuditEvent.objects.filter(action__startswith="audit_query").exists(), "a private one tells nobody"
        shared = auditor.post("/audit/searches/new/?action=a.made", {"name": "Only a", "shared": "yes"})["Location"]
        assert admin.get(shared).status_code == 200
        assert AuditEvent.objects.filter(action="audit_query.created", actor=abe).count() == 1
        assert admin.post(f"{shared}delete/").status_code == 302
        assert AuditQuery.objects.count() == 1

    def test_nobody_deletes_anothers(self, auditor: Client, ada: User, client_of: ClientOf) -> None:
        address = client_of(ada).post("/audit/searches/new/", {"name": "Mine", "shared": "yes"})["Location"]
        assert auditor.post(f"{address}delete/").status_code == 403
        assert auditor.post("/audit/searches/new/", {"name": " "}).status_code == 422
        assert auditor.post("/audit/searches/new/?action=unknown", {"name": "x"}).status_code == 422
        assert AuditQuery.objects.count() == 1


class TestOneEvent:
    def test_says_who_did_what_why_and_what_changed(self, auditor: Client, ada: User, task: Task) -> None:
        rule = make_instruction(task)
        one = event(ada, "instruction.approved", rule, slug="nda", before="draft", after="approved", note="Clear.")
        page = auditor.get(f"/audit/{one.pk}/").content.decode()
        assert "Ada approved instruction “#1”: Clear." in page
        assert "<del>" in page
        assert f'href="/tasks/nda/review/{rule.number}/"' in page
        assert bytes(AuditEvent.objects.get(pk=one.pk).leaf_hash).hex()[8:] in page
        assert "not yet sealed" in page

    def test_leads_to_its_neighbours_in_the_chain(self, auditor: Client, ada: User) -> None:
        one, _other_chain, two = event(ada, slug="nda"), event(ada), event(ada, slug="nda")
        place = auditor.get(f"/audit/{two.pk}/").context["place"]
        assert (place.before, place.after, place.newest) == (one.pk, None, 2)
        assert auditor.get(f"/audit/{one.pk}/").context["place"].after == two.pk

    def test_an_unknown_one_is_not_found(self, auditor: Client) -> None:
        assert auditor.get("/audit/999999/").status_code == 404


def verified(proof: Path, key: Path) -> tuple[int, str]:
    out = io.StringIO()
    try:
        call_command("verify_event", str(proof), "--key", str(key), stdout=out, stderr=out)
    except SystemExit as stop:
        return int(str(stop.code)), out.getvalue()
    return 0, out.getvalue()


def test_the_proof_of_an_event_verifies_without_the_database_and_not_when_touched(
    auditor: Client,
    ada: User,
    log: Log,  # noqa: F811
    tmp_path: Path,
) -> None:
    for _number in range(5):
        one = event(ada, note="x")
    key, file = tmp_path / "key.pem", tmp_path / "event.json"
    public = Ed25519PublicKey.from_public_bytes(bytes(AuditKey.objects.get().public_key))
    key.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    file.write_bytes(auditor.get(f"/audit/{one.pk}/proof.json").content)
    assert verified(file, key)[0] == 1, "not sealed yet"
    log.seal()
    page = auditor.get(f"/audit/{one.pk}/").content.decode()
    assert "first covered by the checkpoint" in page
    file.write_bytes(auditor.get(f"/audit/{one.pk}/proof.json").content)
    code, said = verified(file, key)
    assert code == 0, said
    assert "Ada thing.done" in said
    proof = json.loads(file.read_text())
    changed = {
        "body": proof["body"].replace("Ada", "Eve"),
        "leaf": proof["leaf"].replace('"seq":', '"seq":1'),
        "index": proof["index"] - 1,
        "path": proof["path"][::-1],
        "checkpoint": proof["checkpoint"].replace("audit\n", "audit\n1", 1),
    }
    for name, value in changed.items():
        file.write_text(json.dumps(proof | {name: value}))
        assert verified(file, key)[0] == 1, name
    file.write_text("[]")
    assert verified(file, key)[0] == 1
    assert verified(tmp_path / "none", key)[0] == 64
