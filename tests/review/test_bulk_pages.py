"""The pages of bulk actions: what they offer, what they say before and after, and how often they ask the database."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from pld_app.errors import InvalidInput
from pld_app.models import AuditEvent, User
from rules.forms.bulk import shown_read, shown_written
from rules.models import Assignment, Decision, Instruction, InstructionTag, KeptPair, NearDuplicate, ReviewBatch, Task
from rules.services import batches, tags
from rules.services.mining_similar import similar_refresh
from tests import factories
from tests.review.conftest import RULE, approve, edit, reject
from tests.review.test_bulk import ALIKE, family, shown, some

type ClientOf = Callable[[User], Client]
BASE = "/tasks/nda/review/"
ALL = "?tab=open&domain=all"


def bulk(client: Client, act: str, **fields: Any) -> Any:
    return client.post(f"{BASE}bulk/{ALL}", {"act": act, **fields})


def numbered(rows: list[Instruction]) -> str:
    return ",".join(f"{number}:{version}" for number, version in shown(*rows).items())


class TestChoosing:
    def test_nothing_ticked_is_refused_in_words(self, task: Task, ana: User, client_of: ClientOf) -> None:
        answer = bulk(client_of(ana), "reject")
        assert answer.status_code == 422
        assert "Tick at least one" in answer.text

    @pytest.mark.parametrize("fields", [{"act": "burn"}, {}, {"act": "reject", "pick": ["x", "-1", "1e3"]}])
    def test_strange_forms_are_refused(
        self, task: Task, ana: User, client_of: ClientOf, fields: dict[str, Any]
    ) -> None:
        assert client_of(ana).post(f"{BASE}bulk/", fields).status_code == 422

    @pytest.mark.parametrize("sent", ["", "1", "1:2:3", "1:1,", "a:1", "1:1;DROP", "9999999999:1"])
    def test_a_broken_list_of_instructions_is_refused(
        self, task: Task, ana: User, client_of: ClientOf, sent: str
    ) -> None:
        some(task, 1)
        answer = bulk(client_of(ana), "reject", shown=sent, reason="unclear")
        assert answer.status_code == 422
        assert not Decision.objects.exists()

    def test_the_queue_offers_it_to_reviewers_and_administrators(
        self, task: Task, ana: User, ada: User, sam: User, client_of: ClientOf
    ) -> None:
        some(task, 1)
        page = client_of(ana).get(BASE + ALL).text
        assert 'name="pick"' in page
        assert 'value="reject"' in page
        page = client_of(ada).get(BASE + ALL).text
        assert 'value="assign"' in page
        assert 'value="reject"' not in page
        assert 'name="pick"' not in client_of(sam).get(BASE + ALL).text

    def test_an_administrator_decides_nothing_here_either(self, task: Task, ada: User, client_of: ClientOf) -> None:
        rows = some(task, 1)
        assert bulk(client_of(ada), "reject", pick=[1]).status_code == 403
        assert bulk(client_of(ada), "reject", shown=numbered(rows), reason="unclear").status_code == 403


class TestPreviewAndConfirming:
    def test_it_says_what_will_happen_to_each_and_writes_nothing(
        self, task: Task, ana: User, ben: User, client_of: ClientOf
    ) -> None:
        rows = some(task, 3)
        approve(rows[2], ben)
        events = AuditEvent.objects.count()
        page = bulk(client_of(ana), "reject", pick=[1, 2, 3])
        assert page.status_code == 200
        assert "Reject 2 instructions?" in page.text
        assert 'value="1:1,2:1"' in page.text
        assert "It is already approved." in page.text
        assert AuditEvent.objects.count() == events

    def test_confirming_rejects_and_leads_to_the_undoing(self, task: Task, ana: User, client_of: ClientOf) -> None:
        rows = some(task, 2)
        client = client_of(ana)
        answer = bulk(client, "reject", shown=numbered(rows), reason="unclear", note="Both.")
        batch = ReviewBatch.objects.get()
        assert answer.headers["Location"] == f"{BASE}batches/{batch.pk}/"
        page = client.get(answer.headers["Location"]).text
        assert "Take back 2 decisions" in page
        assert client.post(f"{BASE}batches/{batch.pk}/undo/").status_code == 302
        page = client.get(answer.headers["Location"]).text
        assert "Taken back" in page
        assert "Take back" not in page
        assert [row.status for row in Instruction.objects.all()] == ["in_review"] * 2

    def test_without_a_reason_everything_comes_back(self, task: Task, ana: User, client_of: ClientOf) -> None:
        rows = some(task, 2)
        answer = bulk(client_of(ana), "reject", shown=numbered(rows), reason="", note="Typed long.")
        assert answer.status_code == 422
        assert "Typed long." in answer.text
        assert 'value="1:1,2:1"' in answer.text
        other = bulk(client_of(ana), "reject", shown=numbered(rows), reason="other", note="")
        assert "needs a note" in other.text
        assert not Decision.objects.exists()

    def test_what_changed_meanwhile_is_told_and_the_rest_is_done(
        self, task: Task, ana: User, ben: User, client_of: ClientOf
    ) -> None:
        rows = some(task, 2)
        sent = numbered(rows)
        approve(rows[0], ben)
        client = client_of(ana)
        answer = bulk(client, "reject", shown=sent, reason="unclear")
        page = client.get(answer.headers["Location"]).text
        assert "#1: It is already approved." in page
        assert Decision.objects.filter(actor=ana).count() == 1

    def test_the_same_form_twice_acts_once(self, task: Task, ana: User, client_of: ClientOf) -> None:
        rows = some(task, 2)
        client, sent = client_of(ana), numbered(rows)
        for act, fields in (
            ("tag", {"name": "x", "what": "on"}),
            ("assign", {"to": f"person {ana.pk}"}),
            ("defer", {}),
            ("reject", {"reason": "unclear"}),
        ):
            first = {"shown": numbered(rows) if act == "reject" else sent, **fields}
            assert bulk(client, act, **first).status_code == 302, act
            events = AuditEvent.objects.count()
            assert bulk(client, act, **first).status_code == 409, act
            assert AuditEvent.objects.count() == events, act

    def test_more_than_twenty_are_counted_by_the_person(self, task: Task, ana: User, client_of: ClientOf) -> None:
        rows = some(task, 21)
        client = client_of(ana)
        page = bulk(client, "defer", all="1")
        assert "Type 21" in page.text
        for typed in ("", "20"):
            answer = bulk(client, "defer", shown=numbered(rows), typed=typed)
            assert answer.status_code == 422
            assert not Decision.objects.exists()
        assert bulk(client, "defer", shown=numbered(rows), typed="21").status_code == 302
        assert Decision.objects.count() == 21

    def test_all_that_match_are_those_of_the_view(self, task: Task, ana: User, client_of: ClientOf) -> None:
        some(task, 2)
        some(task, 2, label="Breach")
        page = client_of(ana).post(f"{BASE}bulk/?domain=all&label=Breach", {"act": "reject", "all": "1"})
        assert 'value="3:1,4:1"' in page.text or 'value="4:1,3:1"' in page.text

    def test_deferring_until_a_day_says_so(self, task: Task, ana: User, client_of: ClientOf) -> None:
        rows = some(task, 1)
        client = client_of(ana)
        past = bulk(client, "defer", shown=numbered(rows), until="2020-01-01")
        assert "Choose a day to come" in past.text
        bulk(client, "defer", shown=numbered(rows), until="2099-01-01", note="Audit first.")
        assert Decision.objects.get().note == "Until 2099-01-01. Audit first."

    def test_withheld_wording_stays_withheld(self, ana: User, client_of: ClientOf) -> None:
        task = factories.make_task(policy={"blind_first": True, "blind_percent": 100})
        some(task, 1)
        page = bulk(client_of(ana), "defer", pick=[1])
        assert "thirty days" not in page.text
        assert "Wording shown after" in page.text

    def test_assigning_and_tagging_lead_back_to_the_queue(
        self, task: Task, ana: User, ben: User, client_of: ClientOf
    ) -> None:
        rows = some(task, 2)
        client = client_of(ana)
        answer = bulk(client, "assign", shown=numbered(rows), to=f"person {ben.pk}", due_on="2099-01-01")
        assert answer.headers["Location"].startswith(f"{BASE}?")
        assert Assignment.objects.filter(person=ben).count() == 2
        bulk(client, "tag", shown=numbered(rows), name="side letters", what="on")
        page = client.get(BASE + ALL).text
        assert page.count("tag=side%20letters") >= 2
        assert "All tags" in page
        narrowed = client.get(f"{BASE}{ALL}&tag=nothing").text
        assert "No instruction matches" in narrowed


class TestPastBatches:
    def test_a_waiting_opinion_is_shown_to_its_giver_alone(
        self, ana: User, ben: User, abe: User, client_of: ClientOf
    ) -> None:
        task = factories.make_task(policy={"double_percent": 100})
        rows = some(task, 2)
        seeded = factories.make_instruction(task, RULE, is_seeded=True)
        done = batches.batch_reject(task=task, actor=ana, shown=shown(*rows, seeded), reason="unclear")
        assert done.batch
        path = f"{BASE}batches/{done.batch.pk}/"
        assert client_of(ana).get(path).text.count('scope="row"') == 3
        page = client_of(ben).get(path).text
        assert 'scope="row"' not in page
        assert "decides on these without seeing" in page
        assert "Nothing was decided in bulk yet" in client_of(ben).get(f"{BASE}batches/").text
        # An auditor may know of opinions, and of no answer to a check item.
        assert client_of(abe).get(path).text.count('scope="row"') == 2
        reject(rows[0], ben, reason="scope")
        page = client_of(ben).get(path).text
        assert page.count('scope="row"') == 1
        assert "Instruction 1" in page

    def test_only_its_actor_is_offered_the_undoing(self, task: Task, ana: User, ben: User, client_of: ClientOf) -> None:
        done = batches.batch_reject(task=task, actor=ana, shown=shown(*some(task, 1)), reason="unclear")
        assert done.batch
        path = f"{BASE}batches/{done.batch.pk}/"
        assert "Take back 1 decision" in client_of(ana).get(path).text
        assert "Take back" not in client_of(ben).get(path).text
        assert client_of(ben).post(f"{path}undo/").status_code == 403

    def test_of_another_task_there_is_none(self, task: Task, ana: User, client_of: ClientOf) -> None:
        factories.make_task("other")
        done = batches.batch_reject(task=task, actor=ana, shown=shown(*some(task, 1)), reason="unclear")
        assert done.batch
        assert client_of(ana).get(f"/tasks/other/review/batches/{done.batch.pk}/").status_code == 404


class TestNearDuplicatesOnTheCard:
    def test_they_are_offered_with_what_differs(self, task: Task, ana: User, client_of: ClientOf) -> None:
        rows = family(task, 3)
        similar_refresh(task)
        for row in rows:
            NearDuplicate.objects.update_or_create(instruction=row, defaults={"family": 1})
        client = client_of(ana)
        card = client.get(f"{BASE}1/{ALL}").text
        assert "2 near-duplicates" in card
        assert card.count('form="alike-form"') == 2
        assert "<ins>" in card
        preview = bulk(client, "approve", opened=1, pick=[2, 3])
        assert "Approve 3 instructions?" in preview.text
        answer = bulk(client, "approve", opened=1, shown=numbered(rows))
        assert answer.status_code == 302
        assert Instruction.objects.filter(status="approved").count() == 3

    def test_a_different_number_is_not_offered(self, task: Task, ana: User, client_of: ClientOf) -> None:
        family(task, 2)
        sixty = factories.make_instruction(task, ALIKE.replace("thirty", "sixty"))
        NearDuplicate.objects.create(instruction=sixty, family=1)
        card = client_of(ana).get(f"{BASE}1/{ALL}").text
        assert card.count('form="alike-form"') == 1

    def test_the_question_after_the_evidence_stands_in_the_preview(self, ana: User, client_of: ClientOf) -> None:
        task = factories.make_task(policy={"evidence_percent": 100})
        rows = family(task, 1, ana)
        factories.make_evidence(rows[0], factories.make_trace(task))
        client = client_of(ana)
        assert "Which evidence convinced you?" in bulk(client, "approve", opened=1).text
        assert bulk(client, "approve", opened=1, shown=numbered(rows)).status_code == 422
        assert bulk(client, "approve", opened=1, shown=numbered(rows), convinced="1").status_code == 302

    def test_texts_due_for_the_evidence_first_are_not_shown_beside_another(
        self, ana: User, client_of: ClientOf
    ) -> None:
        task = factories.make_task(policy={"blind_first": True, "blind_percent": 100})
        first = family(task, 2)[0]
        similar_refresh(task)
        client_of(ana).post(f"{BASE}1/evidence/", {"supports": "yes"})
        card = client_of(ana).get(f"{BASE}{first.number}/{ALL}").text
        assert RULE in card
        assert ALIKE not in card
        assert 'form="alike-form"' not in card


class TestSimilarRules:
    @pytest.fixture
    def like(self, task: Task) -> list[Instruction]:
        rows = family(task, 2)
        similar_refresh(task)
        return rows

    def test_keeping_both_takes_the_suggestion_away_and_says_who(
        self, task: Task, like: list[Instruction], ana: User, ben: User, client_of: ClientOf
    ) -> None:
        client = client_of(ana)
        versions = {"version": 1, "other_version": 1}
        assert client.post(f"{BASE}1/similar/2/keep/", versions).status_code == 302
        assert KeptPair.objects.count() == 1
        for number in (1, 2):
            card = client_of(ben).get(f"{BASE}{number}/{ALL}").text
            assert "Both kept" in card
            assert "keeps both" in card
            assert "similar/" not in card
        assert client.post(f"{BASE}1/similar/2/keep/", versions).status_code == 409
        # Worded anew, it is suggested again.
        edit(like[1], ben, text=f"{ALIKE} Always.")
        assert "Both kept" not in client.get(f"{BASE}1/{ALL}").text

    def test_superseding_is_a_decision_on_the_other_and_leads_back(
        self, task: Task, like: list[Instruction], ana: User, client_of: ClientOf
    ) -> None:
        client = client_of(ana)
        assert "Superseded by #1." in client.get(f"{BASE}1/{ALL}").text
        fields = {"version": 1, "reason": "duplicate", "note": "Superseded by #1.", "back": 1}
        answer = client.post(f"{BASE}2/reject/{ALL}", fields)
        assert answer.headers["Location"].startswith(f"{BASE}1/")
        decision = Decision.objects.get()
        assert (decision.instruction, decision.reason, decision.note) == (like[1], "duplicate", "Superseded by #1.")

    def test_merging_shows_both_texts_and_then_offers_the_other(
        self, task: Task, like: list[Instruction], ana: User, client_of: ClientOf
    ) -> None:
        client = client_of(ana)
        card = client.get(f"{BASE}1/{ALL}&merge=2").text
        assert "#2 says" in card
        fields = {"version": 1, "text": f"{RULE} Or so.", "merge": "2"}
        answer = client.post(f"{BASE}1/edit/{ALL}", fields)
        assert "offer=2" in answer.headers["Location"]
        page = client.get(answer.headers["Location"]).text
        assert "What about #2" in page
        # Nothing was done to the other one.
        like[1].refresh_from_db()
        assert like[1].status == "proposed"

    @pytest.mark.parametrize("number", ["99", "1", "x", "", "-1", "\u0663"])
    def test_a_strange_number_merges_nothing(
        self, task: Task, like: list[Instruction], ana: User, client_of: ClientOf, number: str
    ) -> None:
        page = client_of(ana).get(f"{BASE}1/", {"merge": number, "offer": number})
        assert page.status_code == 200
        assert "says" not in page.text.partition("Edit this text")[2].partition("</details>")[0]


class TestTagsOnTheCard:
    def test_put_on_and_taken_off(self, task: Task, ana: User, ada: User, client_of: ClientOf) -> None:
        some(task, 1)
        client = client_of(ana)
        assert client.post(f"{BASE}1/tags/", {"name": "side letters"}).status_code == 302
        assert "side letters" in client_of(ada).get(f"{BASE}1/").text
        assert client.post(f"{BASE}1/tags/", {"name": "side letters"}).status_code == 422
        assert client_of(ada).post(f"{BASE}1/tags/", {"remove": "side letters"}).status_code == 302
        assert not InstructionTag.objects.exists()

    def test_a_saved_view_keeps_its_tag(self, task: Task, ana: User, client_of: ClientOf) -> None:
        rows = some(task, 2)
        tags.batch_tag(task=task, by=ana, shown=shown(rows[1]), name="side letters")
        client = client_of(ana)
        answer = client.post(
            f"{BASE}views/new/?tab=all&domain=all&tag=side+letters", {"name": "Letters", "audience": "private"}
        )
        page = client.get(answer.headers["Location"]).text
        assert f"{BASE}2/?" in page
        assert f"{BASE}1/?" not in page


def queries(client: Client, path: str, **fields: Any) -> int:
    with CaptureQueriesContext(connection) as captured:
        answer = client.post(path, fields) if fields else client.get(path)
    assert answer.status_code == 200
    return len(captured)


def test_pages_ask_as_often_for_one_as_for_twenty_five(task: Task, ana: User, client_of: ClientOf) -> None:
    client = client_of(ana)
    rows = family(task, 25, ana)
    tags.batch_tag(task=task, by=ana, shown=shown(*rows), name="x")
    numbers = [row.number for row in rows]
    for act in ("reject", "defer", "assign", "tag"):
        one = queries(client, f"{BASE}bulk/{ALL}", act=act, pick=numbers[:1])
        assert queries(client, f"{BASE}bulk/{ALL}", act=act, pick=numbers) == one, act
    one = queries(client, f"{BASE}bulk/{ALL}", act="approve", opened=1, pick=numbers[:1])
    assert queries(client, f"{BASE}bulk/{ALL}", act="approve", opened=1, pick=numbers[1:]) == one
    small = batches.batch_reject(task=task, actor=ana, shown=shown(rows[0]), reason="unclear").batch
    large = batches.batch_reject(task=task, actor=ana, shown=shown(*rows[1:]), reason="unclear").batch
    assert small
    assert large
    path = f"{BASE}batches/"
    assert queries(client, f"{path}{small.pk}/") == queries(client, f"{path}{large.pk}/")
    before = queries(client, path)
    for row in some(task, 23):
        batches.batch_defer(task=task, actor=ana, shown=shown(row))
    assert queries(client, path) == before


@given(st.dictionaries(st.integers(1, 10**9 - 1), st.integers(0, 10**9 - 1), min_size=1, max_size=5))
def test_what_a_page_shows_comes_back_as_it_was(rows: dict[int, int]) -> None:
    assert shown_read(shown_written(rows)) == rows


@given(st.text(alphabet="0123456789:,;- \u0663\n"))
def test_anything_else_is_refused_in_words(text: str) -> None:
    try:
        rows = shown_read(text)
    except InvalidInput:
        return
    assert rows
    assert all(number < 10**9 for number in rows)
