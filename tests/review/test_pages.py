"""The queue and the card as a browser without JavaScript sees them, and the fragments htmx asks for."""

import re
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from pld_app.models import User
from rules.models import Cluster, EvidenceRole, Instruction, MicroRule, MiningRun, Task, Waiting
from rules.services import rulesets
from tests import factories
from tests.review.conftest import EDIT, RULE, approve, defer, edit, reject, send_back

type ClientOf = Callable[[User], Client]

ACTIONS = ("approve", "edit", "reject", "defer", "send-back", "reopen", "undo")
HTMX = {"HX-Request": "true"}


def url(name: str, *args: object, query: str = "") -> str:
    return reverse(name, args=["nda", *args]) + (f"?{query}" if query else "")


def post(client: Client, action: str, instruction: Instruction, query: str = "", **data: Any) -> HttpResponse:
    instruction.refresh_from_db()
    sent = {"version": instruction.version} | data
    headers = sent.pop("headers", {})
    response: Any = client.post(url(f"instruction-{action}", instruction.number, query=query), sent, headers=headers)
    assert isinstance(response, HttpResponse)
    return response


class Answer(Protocol):
    """A response of the test client, whichever class its stubs give it."""

    @property
    def content(self) -> bytes: ...


def text_of(response: Answer) -> str:
    return response.content.decode()


def plain(response: Answer) -> str:
    """The page without its tags, spaces joined: what a person reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text_of(response)))


def seen_in(response: Answer) -> str:
    """What the page's form says of the warnings beside it."""
    found = re.search(r'name="seen" value="(\w*)"', text_of(response))
    assert found
    return found.group(1)


def many(task: Task, count: int) -> list[Instruction]:
    run = MiningRun.objects.create(task=task, number=1, state="succeeded")
    made = []
    for number in range(1, count + 1):
        cluster = Cluster.objects.create(run=run, number=number, topic=1, label="Compliant", size=2)
        # A topic each: within one the order is every reviewer's own.
        values: dict[str, Any] = {"run": run, "cluster": cluster, "domain": "legal", "topic": f"copies {number:03d}"}
        instruction = factories.make_instruction(task, f"{RULE} ({number})", **values)
        for role in EvidenceRole:
            trace = factories.make_trace(task)
            factories.make_evidence(instruction, trace, role)
            MicroRule.objects.create(run=run, trace=trace, origin="imported", text="x", cluster=cluster)
        made.append(instruction)
    return made


def test_the_queue_shows_what_is_open_in_ones_own_domain(task: Task, ana: User, ben: User, client_of: ClientOf) -> None:
    factories.make_instruction(task, "Legal rule.", domain="legal")
    factories.make_instruction(task, "Finance rule.", domain="finance")
    factories.make_instruction(task, "Rule of no domain.")
    page = plain(client_of(ana).get(url("review-queue")))
    assert "Legal rule." in page
    assert "Rule of no domain." in page
    assert "Finance rule." not in page
    assert "Finance rule." in plain(client_of(ana).get(url("review-queue", query="domain=all")))
    assert "Finance rule." in plain(client_of(ben).get(url("review-queue")))


def test_each_tab_holds_its_own(task: Task, ana: User, ben: User, client_of: ClientOf) -> None:
    names = ["open", "second", "mine", "deferred", "sent_back", "approved", "rejected"]
    rows = {name: factories.make_instruction(task, f"Text of {name}.") for name in names}
    edit(rows["second"], ben, text="Text of second, better.")
    edit(rows["mine"], ana, text="Text of mine, better.")
    defer(rows["deferred"], ana)
    send_back(rows["sent_back"], ana, reason="scope")
    approve(rows["approved"], ana)
    reject(rows["rejected"], ana, reason="scope")
    client = client_of(ana)
    for name in names:
        response = client.get(url("review-queue", query=f"tab={name}&domain=all"))
        found = [other for other in names if f"Text of {other}" in plain(response)]
        assert found == [name]
        assert {count.tab.value: count.count for count in response.context["counts"].tabs} == {
            **dict.fromkeys(names, 1),
            "opinions": 0,
            "disputed": 0,
            "all": 7,
            "assigned": 0,
            "unassigned": 1,
            "done": 2,
        }
        assert (response.context["counts"].decided, response.context["counts"].total) == (2, 7)
        assert "2 of 7 decided" in plain(response)


def test_filters_narrow_the_queue(task: Task, ana: User, client_of: ClientOf) -> None:
    factories.make_instruction(task, "Copies may be kept.", label="Breach", topic="copies")
    factories.make_instruction(task, "Notice is due.", label="Compliant", topic="notice")
    client = client_of(ana)
    for query in ("label=Breach", "topic=copies", "text=COPIES", "text=%231"):
        page = plain(client.get(url("review-queue", query=query)))
        assert "Copies may be kept." in page, query
        assert "Notice is due." not in page, query
    assert "No instruction matches" in plain(client.get(url("review-queue", query="text=nothing")))


@pytest.mark.parametrize(
    "query",
    ["tab=none", "domain=x", "label=x", "page=999", "page=x", "text=%00", "topic=" + "x" * 300, "text=%2399999999999"],
)
def test_a_strange_query_is_no_error(instruction: Instruction, ana: User, client_of: ClientOf, query: str) -> None:
    assert client_of(ana).get(url("review-queue", query=query)).status_code == 200
    assert client_of(ana).get(url("instruction-detail", 1, query=query)).status_code == 200


def test_an_empty_queue_says_what_to_do(task: Task, ana: User, client_of: ClientOf) -> None:
    assert "No instructions yet" in plain(client_of(ana).get(url("review-queue", query="domain=all")))


@pytest.mark.parametrize("name", ["review-queue", "instruction-detail", "instruction-traces"])
def test_queries_do_not_grow_with_the_rows(
    task: Task, ana: User, client_of: ClientOf, django_assert_num_queries: Any, name: str
) -> None:
    cluster = many(task, 25)[0].cluster
    one = MicroRule.objects.filter(cluster=cluster)[:1].values("pk")
    client = client_of(ana)
    args = () if name == "review-queue" else (1,)
    queries = {"review-queue": 17, "instruction-detail": 17, "instruction-traces": 8}[name]
    # First one row: of the queue by its text, of the cluster by leaving it one member. Then all of them.
    MicroRule.objects.exclude(pk__in=one).update(cluster=None)
    with django_assert_num_queries(queries):
        assert client.get(url(name, *args, query="text=(1)")).status_code == 200
    MicroRule.objects.update(cluster=cluster)
    with django_assert_num_queries(queries):
        response = client.get(url(name, *args, query="tab=open"))
    assert response.status_code == 200
    if name != "instruction-detail":
        assert len(response.context["page"].object_list) == 25


def test_the_queue_is_paged(task: Task, ana: User, client_of: ClientOf) -> None:
    many(task, 27)
    client = client_of(ana)
    assert "1 to 25 of 27" in plain(client.get(url("review-queue")))
    second = client.get(url("review-queue", query="page=2"))
    assert [row.instruction.number for row in second.context["rows"]] == [26, 27]


def test_the_card_shows_both_sides_without_a_click(instruction: Instruction, ana: User, client_of: ClientOf) -> None:
    page = plain(client_of(ana).get(url("instruction-detail", 1)))
    for words in (
        RULE,
        "Extractive draft: assembled from traces",
        "Supports it",
        "Contradicts it",
        "Because of clause",
    ):
        assert words in page
    assert "Breach because:" in page


def test_the_card_says_when_nothing_contradicts(task: Task, ana: User, client_of: ClientOf) -> None:
    (instruction,) = many(task, 1)
    instruction.evidence.filter(role=EvidenceRole.CONTRADICTING).delete()
    assert "None found in 2 traces of the same topic." in plain(client_of(ana).get(url("instruction-detail", 1)))


def test_untrusted_text_is_only_text(task: Task, ana: User, client_of: ClientOf) -> None:
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">{{ 7|add:7 }}'
    run = MiningRun.objects.create(task=task, number=1, state="succeeded")
    cluster = Cluster.objects.create(run=run, number=1, topic=1, label="Compliant", size=1, terms=evil)
    made = factories.make_instruction(
        task, evil, topic=evil, run=run, cluster=cluster, provenance={evil: [evil], "deep": {"er": evil}}
    )
    trace = factories.make_trace(
        task, input={"clause": evil, evil: "x"}, rationale=evil, external_id=evil, teacher=evil
    )
    factories.make_evidence(made, trace)
    MicroRule.objects.create(run=run, trace=trace, origin="imported", text=evil, cluster=cluster)
    edit(made, ana, text=evil + " more", note=evil)
    client = client_of(ana)
    for page in (
        client.get(url("review-queue", query="tab=all")),
        client.get(url("instruction-detail", 1)),
        client.get(url("instruction-traces", 1)),
        post(client, "edit", made, text=evil, version=1, note=evil),
    ):
        assert "<script>alert" not in text_of(page)
        assert "<img" not in text_of(page)
        assert "&lt;script&gt;alert(1)" in text_of(page)
        assert "{{ 7|add:7 }}" in text_of(page)


def test_invisible_characters_are_made_visible(task: Task, ana: User, client_of: ClientOf) -> None:
    factories.make_instruction(task, "If \u202ethe clause is silent\u202c, label Unclear.")
    for name, args in (("review-queue", ()), ("instruction-detail", (1,))):
        page = text_of(client_of(ana).get(url(name, *args)))
        assert "U+202E" in page
        assert "right-to-left override" in page
    # Only the field that edits the raw text still holds it.
    assert "\u202e" not in re.sub(r"<textarea.*?</textarea>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("name", ["review-queue", "instruction-detail", "instruction-traces"])
@pytest.mark.parametrize("who", ["ana", "sam", "abe", "ada"])
def test_every_role_may_read(
    instruction: Instruction, client_of: ClientOf, request: pytest.FixtureRequest, who: str, name: str
) -> None:
    client = client_of(request.getfixturevalue(who))
    args = () if name == "review-queue" else (1,)
    assert client.get(url(name, *args)).status_code == 200
    assert client.post(url(name, *args)).status_code == 405


@pytest.mark.parametrize("who", ["sam", "abe", "ada"])
def test_only_reviewers_may_decide(
    instruction: Instruction, client_of: ClientOf, request: pytest.FixtureRequest, who: str
) -> None:
    client = client_of(request.getfixturevalue(who))
    for action in ACTIONS:
        assert post(client, action, instruction, text=EDIT, reason="scope", note="x").status_code == 403
        assert client.get(url(f"instruction-{action}", 1)).status_code == 403
    page = text_of(client.get(url("instruction-detail", 1)))
    assert "/edit/" not in page
    assert "/approve/" not in page
    assert not instruction.decisions.exists()


def test_strangers_are_sent_to_sign_in(instruction: Instruction, client: Client) -> None:
    for name, args in (("review-queue", ()), ("instruction-detail", (1,)), ("instruction-traces", (1,))):
        assert client.get(url(name, *args)).status_code == 302
    for action in ACTIONS:
        response = post(client, action, instruction)
        assert response.status_code == 302
        assert response["Location"].startswith(reverse("login"))


def test_a_get_decides_nothing(instruction: Instruction, ana: User, client_of: ClientOf) -> None:
    for action in ACTIONS:
        assert client_of(ana).get(url(f"instruction-{action}", 1)).status_code == 405


def test_what_is_not_there_is_404(instruction: Instruction, ana: User, client_of: ClientOf) -> None:
    other = factories.make_task("other")
    client = client_of(ana)
    assert client.get(reverse("instruction-detail", args=[other.slug, 1])).status_code == 404
    assert client.post(reverse("instruction-approve", args=[other.slug, 1]), {"version": 1}).status_code == 404
    assert client.get(reverse("review-queue", args=["nowhere"])).status_code == 404


def test_a_decision_leads_to_the_next_card_of_the_view(task: Task, ana: User, client_of: ClientOf) -> None:
    rows = many(task, 4)
    client = client_of(ana)
    query = "tab=open&domain=legal"
    response = post(client, "approve", rows[1], query)
    assert response["Location"] == url("instruction-detail", 3, query=query)
    page = plain(client.get(response["Location"]))
    assert "Approved #2." in page
    assert "2 of 3" in page
    # Past the last one the first that is still open comes next, and then the queue.
    assert post(client, "defer", rows[3], query)["Location"] == url("instruction-detail", 1, query=query)
    assert post(client, "reject", rows[0], query, reason="scope")["Location"] == url(
        "instruction-detail", 3, query=query
    )
    response = post(client, "send-back", rows[2], query, reason="scope")
    assert response["Location"] == url("review-queue", query=query)
    assert "Nothing is left for you to decide in this view." in plain(client.get(response["Location"]))


def test_an_edit_says_who_approves_it_and_lets_the_kept_draft_go(task: Task, ana: User, client_of: ClientOf) -> None:
    first, _second = many(task, 2)
    client = client_of(ana)
    response = post(client, "edit", first, text=f"{RULE} (1) Indeed.")
    page = client.get(response["Location"])
    assert "Edited #1; a second reviewer approves it." in plain(page)
    assert f'data-draft-clear="instruction-nda-{first.number}"' in text_of(page)


def test_a_dangerous_edit_comes_back_with_warnings(instruction: Instruction, ana: User, client_of: ClientOf) -> None:
    client = client_of(ana)
    text = EDIT.replace("may", "may not")
    response = post(client, "edit", instruction, text=text)
    assert response.status_code == 422
    page = plain(response)
    assert "A word that decides what is allowed changed: added “not”." in page
    assert "A number, date or period changed: removed “thirty”, added “sixty”." in page
    assert "Save it with these changes" in page
    assert not instruction.decisions.exists()
    # Once read it is no hindrance; another text has other warnings.
    seen = seen_in(response)
    assert post(client, "edit", instruction, text=f"{text} Never.", seen=seen).status_code == 422
    assert post(client, "edit", instruction, text=text, seen=seen).status_code == 302
    page = plain(client.get(url("instruction-detail", 1)))
    assert "A word that decides what is allowed changed: added “not”." in page
    assert "Your own edit: a colleague approves it" in page


@pytest.mark.parametrize(
    ("action", "data", "said", "kept"),
    [
        ("edit", {"text": RULE}, "The text is unchanged", RULE),
        ("edit", {"text": "x" * 4_005}, "5 characters too long", "x" * 4_005),
        ("edit", {"text": "If \u202eso, label Breach."}, "invisible characters", "If so, label Breach."),
        ("reject", {"reason": "", "note": "my words"}, "Choose a reason", "my words"),
        ("reject", {"reason": "other"}, "needs a note", ""),
        ("send-back", {"reason": "x", "note": "my words"}, "Choose a reason", "my words"),
    ],
)
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_bad_input_comes_back_in_its_form(
    instruction: Instruction,
    ana: User,
    client_of: ClientOf,
    action: str,
    data: dict[str, str],
    said: str,
    kept: str,
    headers: dict[str, str],
) -> None:
    response = post(client_of(ana), action, instruction, headers=headers, **data)
    assert response.status_code == 422
    assert said in plain(response)
    assert kept in text_of(response)
    assert ("<html" in text_of(response)) is not bool(headers)
    assert re.search(r"<details[^>]* open>", text_of(response))
    assert not instruction.decisions.exists()


def test_a_missing_version_is_refused_in_words(instruction: Instruction, ana: User, client_of: ClientOf) -> None:
    response: Any = client_of(ana).post(url("instruction-approve", 1), {"version": "x"})
    assert response.status_code == 422


def test_own_edit_is_refused_over_http(instruction: Instruction, ana: User, client_of: ClientOf) -> None:
    edit(instruction, ana, text=EDIT)
    response = post(client_of(ana), "approve", instruction)
    assert response.status_code == 403
    assert "another reviewer approves it" in plain(response)
    instruction.refresh_from_db()
    assert instruction.waiting == Waiting.SECOND_REVIEWER


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_the_second_of_two_reviewers_keeps_every_word(
    instruction: Instruction, ana: User, ben: User, client_of: ClientOf, headers: dict[str, str]
) -> None:
    edit(instruction, ana, text=EDIT, note="Per the new policy.")
    mine = RULE.replace("thirty", "forty") + "\n  With a second line."
    response = post(client_of(ben), "edit", instruction, version=1, text=mine, note="my why", headers=headers)
    assert response.status_code == 409
    page = text_of(response)
    assert ("<html" in page) is not bool(headers)
    assert response["HX-Push-Url"] == "false"
    assert mine in page.replace("&#x27;", "'")
    assert "my why" in page
    assert EDIT in plain(response)
    assert "by Ana" in plain(response)
    assert "Per the new policy." in plain(response)
    assert "<del>" in page
    # What is offered to send again works on the new version.
    assert 'name="version" value="2"' in page
    again = post(client_of(ben), "edit", instruction, text=mine, seen=seen_in(response))
    assert again.status_code == 302
    instruction.refresh_from_db()
    assert instruction.current_revision is not None
    assert instruction.current_revision.text == mine


def test_after_a_decision_the_late_text_can_still_be_copied(
    instruction: Instruction, ana: User, ben: User, client_of: ClientOf
) -> None:
    reject(instruction, ana, reason="duplicate")
    response = post(client_of(ben), "edit", instruction, version=1, text="My careful text.")
    assert response.status_code == 409
    assert "My careful text." in text_of(response)
    assert "Duplicate" in plain(response)
    assert "Reopen it on its card" in plain(response)
    assert "Save my text over this one" not in plain(response)


def test_a_late_note_is_kept_too(instruction: Instruction, ana: User, ben: User, client_of: ClientOf) -> None:
    approve(instruction, ana)
    response = post(client_of(ben), "reject", instruction, version=1, reason="scope", note="It is too wide.")
    assert response.status_code == 409
    assert "It is too wide." in text_of(response)
    assert "Approved" in plain(response)


def test_undo_is_offered_on_the_next_card(task: Task, ana: User, client_of: ClientOf) -> None:
    first, _second = many(task, 2)
    client = client_of(ana)
    following = post(client, "approve", first)["Location"]
    assert "Undo: approved #1" in plain(client.get(following))
    response = post(client, "undo", first)
    assert response["Location"].startswith(url("instruction-detail", 1))
    page = plain(client.get(response["Location"]))
    assert "#1 is in review again." in page
    assert "Undone: approved" in page
    assert "Undo:" not in page
    assert post(client, "undo", first).status_code == 409


def test_reopen_says_what_it_withdraws(instruction: Instruction, task: Task, ana: User, client_of: ClientOf) -> None:
    approve(instruction, ana)
    ruleset = rulesets.ruleset_create(task=task, composer=ana, name="Spring")
    rulesets.ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)
    client = client_of(ana)
    page = plain(client.get(url("instruction-detail", 1)))
    assert "This withdraws ruleset 1 (Spring): it is frozen with this text and not released." in page
    assert post(client, "reopen", instruction, note="").status_code == 422
    response = post(client, "reopen", instruction, note="New case law.")
    assert "#1 is in review again. This withdrew ruleset 1." in plain(client.get(response["Location"]))


def test_htmx_gets_the_card_alone_and_hears_what_happened(task: Task, ana: User, client_of: ClientOf) -> None:
    first, _second = many(task, 2)
    client = client_of(ana)
    response = post(client, "approve", first, headers=HTMX)
    fragment = client.get(response["Location"], headers=HTMX)
    assert "<html" not in text_of(fragment)
    assert "<title>Instruction 2 · NDA" in text_of(fragment)
    assert '<article class="review" id="card"' in text_of(fragment)
    assert 'data-announce="Approved #1. 1 of 1"' in text_of(fragment)
    assert "HX-Request" in fragment["Vary"]


def test_every_decision_is_a_plain_form(instruction: Instruction, ana: User, client_of: ClientOf) -> None:
    page = text_of(client_of(ana).get(url("instruction-detail", 1)))
    for action in ("approve", "edit", "reject", "defer", "send-back"):
        form = re.search(rf'<form[^>]*action="[^"]*/{action}/[^"]*"[^>]*>(.*?)</form>', page, re.DOTALL)
        assert form
        assert 'method="post"' in form.group(0)
        assert "csrfmiddlewaretoken" in form.group(1)
        assert 'name="version" value="1"' in form.group(1)
        assert 'type="submit"' in form.group(1)
    for key in "aerdb1234567":
        assert f'data-key="{key}"' in page
    assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", page)


def test_an_edit_of_another_domain_is_not_left_waiting_unseen(
    task: Task, ana: User, ben: User, client_of: ClientOf
) -> None:
    edit(factories.make_instruction(task, RULE, domain="legal"), ana, text=EDIT)
    page = client_of(ben).get(reverse("review-queue", args=[task.slug])).text
    assert "1 edit outside this selection waits for a second reviewer" in page
    assert "outside this selection" not in client_of(ana).get(reverse("review-queue", args=[task.slug])).text
