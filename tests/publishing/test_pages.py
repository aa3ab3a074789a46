"""The pages: who may open and send what, what they show, how many queries they take, and that refusals are in words."""

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from pld_app.canonical import canonical_json, sha256_hex
from pld_app.models import AuditEvent, Role, User
from rules.models import (
    ChannelName,
    Instruction,
    Meaning,
    PromptToken,
    Publication,
    Release,
    Ruleset,
    RulesetStatus,
    Signature,
    Task,
)
from rules.services.tokens import token_create
from tests.factories import PROOF, approve_directly, audit_actions, make_instruction
from tests.publishing import steps

type ClientOf = Callable[[User], Client]
HTMX = {"HX-Request": "true"}


def url(name: str, *args: object) -> str:
    return reverse(name, args=["nda", *args])


def streamed(response: Any) -> bytes:
    """What a download sends (the client's response type does not know of streaming)."""
    return b"".join(response.streaming_content)


@pytest.fixture
def people(ana: User, sam: User, abe: User, ada: User) -> dict[str, User]:
    return {Role.REVIEWER: ana, Role.SIGNATORY: sam, Role.AUDITOR: abe, Role.ADMIN: ada}


R, S, A, D = Role.REVIEWER, Role.SIGNATORY, Role.AUDITOR, Role.ADMIN
EVERYONE = {R, S, A, D}
# URL name, its arguments after the slug, method, roles let through. Others get 403, strangers the sign-in page.
MATRIX = [
    ("ruleset-list", (), "get", EVERYONE),
    ("ruleset-new", (), "get", {R}),
    ("ruleset-new", (), "post", {R}),
    ("ruleset-detail", (1,), "get", EVERYONE),
    ("ruleset-item-add", (1,), "post", {R}),
    ("ruleset-item-move", (1, 1), "post", {R}),
    ("ruleset-item-remove", (1, 1), "post", {R}),
    ("ruleset-refresh", (1,), "post", {R}),
    ("ruleset-freeze", (1,), "post", {R}),
    ("ruleset-sign", (1,), "post", {R, S}),
    ("ruleset-withdraw", (1,), "post", {R, S}),
    ("ruleset-release", (1,), "post", {S}),
    ("ruleset-export", (1, "json"), "get", {R, S, A}),
    ("releases", (), "get", EVERYONE),
    ("release-publish", (), "post", {S}),
    ("release-rollback", (), "post", {S}),
    ("release-detail", (1,), "get", EVERYONE),
    ("release-download", (1, "txt"), "get", {R, S, A}),
    ("tokens", (), "get", {A, D}),
    ("token-new", (), "post", {D}),
    ("token-revoke", (1,), "post", {D}),
]


@pytest.mark.parametrize(("name", "args", "method", "allowed"), MATRIX)
def test_each_role_reaches_what_is_its_own(
    name: str,
    args: tuple[object, ...],
    method: str,
    allowed: set[Role],
    people: dict[Role, User],
    client_of: ClientOf,
    task: Task,
    sue: User,
) -> None:
    steps.released(task, people[R], people[S], sue)
    for role, person in people.items():
        status = getattr(client_of(person), method)(url(name, *args)).status_code
        assert (status != 403) == (role in allowed), f"{role}: {status}"
        assert status < 500
    stranger = getattr(Client(), method)(url(name, *args))
    assert stranger.status_code == 302
    assert reverse("login") in stranger["Location"]
    other = "post" if method == "get" else "get"
    if name != "ruleset-new":
        assert getattr(client_of(people[next(iter(allowed))]), other)(url(name, *args)).status_code == 405


def test_the_whole_way_by_plain_forms(
    task: Task, ana: User, sam: User, sue: User, abe: User, client_of: ClientOf
) -> None:
    instructions = steps.approved(task, ana)
    reviewer, first, second = client_of(ana), client_of(sam), client_of(sue)
    reviewer.post(url("ruleset-new"), {"name": "Spring", "start": "approved"})
    ruleset = Ruleset.objects.get()
    page = reviewer.get(url("ruleset-detail", 1)).content.decode()
    assert all(one.current_revision is not None and one.current_revision.text in page for one in instructions)
    last = ruleset.items.get(position=3)
    reviewer.post(url("ruleset-item-move", 1, last.pk), {"version": 1, "to": 1})
    reviewer.post(url("ruleset-item-remove", 1, last.pk), {"version": 2})
    reviewer.post(url("ruleset-item-add", 1), {"version": 3, "instruction": last.instruction_id})
    assert list(ruleset.items.values_list("instruction__number", flat=True)) == [1, 2, 3]
    reviewer.post(url("ruleset-freeze", 1), {"version": 4})
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.IN_SIGN_OFF

    said = {**PROOF, "manifest_sha256": ruleset.manifest_sha256}
    first.post(url("ruleset-sign", 1), {**said, "meaning": "reviewed"})
    second.post(url("ruleset-sign", 1), {**said, "meaning": "approved"})
    response = first.post(url("ruleset-release", 1))
    assert response["Location"] == url("release-detail", 1)
    release = Release.objects.get()
    for channel in ("staging", "production"):
        first.post(url("release-publish"), {"release": release.pk, "channel": channel, "newest": 0, **PROOF})
    assert [one.channel for one in Publication.objects.order_by("pk")] == ["staging", "production"]
    for name, args in (("ruleset-list", ()), ("ruleset-detail", (1,)), ("releases", ()), ("release-detail", (1,))):
        response = client_of(abe).get(url(name, *args))
        assert response.status_code == 200
        assert (
            "<form" not in response.content.decode().split("<main", 1)[1].split("</main>", 1)[0]
        )  # an auditor only reads


def test_htmx_gets_the_composing_part_with_focus_and_words(task: Task, ana: User, client_of: ClientOf) -> None:
    ruleset = steps.draft(task, ana)
    second = ruleset.items.get(position=2)
    response = client_of(ana).post(url("ruleset-item-move", 1, second.pk), {"version": 1, "to": 1}, headers=HTMX)
    page = response.content.decode()
    assert response.status_code == 200
    assert page.lstrip().startswith('<div id="draft"')
    assert 'data-announce="Now at place 1 of 3."' in page
    assert page.count("data-focus-after-swap") == 1
    assert "HX-Request" in response["Vary"]


def test_a_draft_that_moved_on_is_refused_in_words(task: Task, ana: User, ben: User, client_of: ClientOf) -> None:
    ruleset = steps.draft(task, ana)
    item = ruleset.items.get(position=1)
    client_of(ben).post(url("ruleset-item-move", 1, item.pk), {"version": 1, "to": 3})
    for name, args, data in (
        ("ruleset-item-remove", (1, item.pk), {"version": 1}),
        ("ruleset-freeze", (1,), {"version": 1}),
        ("ruleset-item-move", (1, item.pk), {"version": 1, "to": 2}),
    ):
        response = client_of(ana).post(url(name, *args), data)
        assert response.status_code == 409
        assert "Someone changed this" in response.content.decode()
    assert ruleset.items.count() == 3


def test_the_sign_form_preselects_nothing_and_shows_what_is_missing(
    task: Task, ana: User, sam: User, client_of: ClientOf
) -> None:
    ruleset = steps.frozen(task, ana)
    client = client_of(sam)
    page = client.get(url("ruleset-detail", 1)).content.decode()
    assert page.count('type="radio"') == 4
    assert "checked" not in page
    response = client.post(url("ruleset-sign", 1), {"manifest_sha256": ruleset.manifest_sha256})
    assert response.status_code == 422
    assert response.content.decode().count("This field is required.") == 1
    assert not Signature.objects.exists()


def test_a_wrong_password_shows_the_page_again_without_the_password(
    task: Task, ana: User, sam: User, client_of: ClientOf
) -> None:
    ruleset = steps.frozen(task, ana)
    data = {
        "manifest_sha256": ruleset.manifest_sha256,
        "meaning": "approved",
        "password": "wrong guess",
        "consent": "on",
    }
    response = client_of(sam).post(url("ruleset-sign", 1), data)
    page = response.content.decode()
    assert response.status_code == 422
    assert "The password is not right" in page
    assert "wrong guess" not in page
    assert audit_actions(ruleset)[-1] == "signature.refused"


def test_a_forged_hash_is_refused(task: Task, ana: User, sam: User, client_of: ClientOf) -> None:
    steps.frozen(task, ana)
    data = {"manifest_sha256": "0" * 64, "meaning": "approved", **PROOF}
    assert client_of(sam).post(url("ruleset-sign", 1), data).status_code == 409
    assert not Signature.objects.exists()


def test_the_composer_sees_why_others_sign(task: Task, ana: User, ben: User, client_of: ClientOf) -> None:
    steps.policy(task, signer_roles=[Role.SIGNATORY, Role.REVIEWER])
    ruleset = steps.frozen(task, ana)
    page = client_of(ana).get(url("ruleset-detail", 1)).content.decode()
    assert "Composed this ruleset" in page
    assert re.findall(r'name="meaning" value="(\w+)"', page) == ["authored"]
    data = {"manifest_sha256": ruleset.manifest_sha256, "meaning": "approved", **PROOF}
    assert client_of(ana).post(url("ruleset-sign", 1), data).status_code == 403
    assert client_of(ben).post(url("ruleset-sign", 1), data).status_code == 302


def test_changes_against_production_are_named(
    task: Task, ana: User, ben: User, sam: User, sue: User, client_of: ClientOf
) -> None:
    steps.in_production(task, ana, sam, sue)
    one = Instruction.objects.get(number=1)
    steps.reopen(one, ben)
    steps.edit(one, ben, "If clause 1 forbids copies, then label Breach.")
    approve_directly(one, ana)
    approve_directly(make_instruction(task, "A wholly new text."), ana)
    ruleset = steps.again_frozen(task, ana)
    page = client_of(sam).get(url("ruleset-detail", ruleset.number)).content.decode()
    assert all(words in page for words in ("1 added", "0 removed", "1 reworded", "0 moved", "A wholly new text."))
    assert "<ins><span" in page


def test_staging_comes_first_on_the_page_too(task: Task, ana: User, sam: User, sue: User, client_of: ClientOf) -> None:
    release = steps.released(task, ana, sam, sue)
    client = client_of(sam)
    page = client.get(url("releases")).content.decode()
    assert "Publish to Staging" in page
    assert "Publish to Production" not in page
    data = {"release": release.pk, "channel": "production", "newest": 0, **PROOF}
    response = client.post(url("release-publish"), data)
    assert response.status_code == 409
    assert "staging before production" in response.content.decode()


def test_a_failed_publish_keeps_its_form_open_in_its_channel(
    task: Task, ana: User, sam: User, sue: User, client_of: ClientOf
) -> None:
    steps.in_production(task, ana, sam, sue)
    second = steps.again(task, ana, sam, sue)
    data = {"release": second.pk, "channel": "staging", "newest": Publication.objects.get(channel="staging").pk}
    response = client_of(sam).post(url("release-publish"), {**data, "password": "wrong"})
    page = response.content.decode()
    assert response.status_code == 422
    assert page.count("The password is not right") == 1
    assert page.count('<details class="fold" open>') == 1
    assert f'value="{second.pk}" selected' in page


def test_after_each_step_the_page_says_what_was_done_and_what_is_next(
    task: Task, ana: User, sam: User, sue: User, client_of: ClientOf
) -> None:
    ruleset = steps.frozen(task, ana)
    said = {**PROOF, "manifest_sha256": ruleset.manifest_sha256, "meaning": "approved"}
    sign = [client_of(one).post(url("ruleset-sign", 1), said, follow=True).content.decode() for one in (sam, sue)]
    assert "Signed. It waits for another signature." in sign[0]
    assert "Signed. That was the last signature" in sign[1]
    client = client_of(sam)
    client.post(url("ruleset-release", 1))
    data = {"release": Release.objects.get().pk, "channel": "staging", "newest": 0, **PROOF}
    assert "Published v1 to Staging." in client.post(url("release-publish"), data, follow=True).content.decode()


@pytest.mark.parametrize("data", [{}, {"release": "x"}, {"release": 999, "channel": "live", "newest": -1}])
def test_a_made_up_publish_is_no_error_page(
    task: Task, ana: User, sam: User, sue: User, client_of: ClientOf, data: dict[str, str]
) -> None:
    steps.in_production(task, ana, sam, sue)
    for name in ("release-publish", "release-rollback"):
        assert client_of(sam).post(url(name), data).status_code == 422


def test_a_token_is_shown_once(task: Task, ada: User, client_of: ClientOf) -> None:
    client = client_of(ada)
    response = client.post(url("token-new"), {"name": "student"})
    secret = response.context["secret"]
    assert secret in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    assert secret not in client.get(url("tokens")).content.decode()
    assert secret not in str(AuditEvent.objects.values_list("data", flat=True))
    assert client.post(url("token-new"), {"name": "student"}).status_code == 422
    client.post(url("token-revoke", PromptToken.objects.get().pk))
    assert PromptToken.objects.get().revoked_at is not None


HOSTILE = [
    '<script>alert(1)</script>{{7*7}}"><img src=x onerror=alert(1)>',
    '=HYPERLINK("http://x","y")',
    "\N{FULLWIDTH EQUALS SIGN}1+1",
]


def test_hostile_text_is_text_on_every_page_and_no_formula_in_csv(
    task: Task, ana: User, sam: User, sue: User, abe: User, client_of: ClientOf
) -> None:
    for text in HOSTILE:
        approve_directly(make_instruction(task, text), ana)
    draft_page = client_of(ana).get(url("ruleset-detail", steps.again_draft(task, ana).number)).content.decode()
    ruleset = steps.again_frozen(task, ana)
    steps.sign(ruleset, sam, Meaning.REVIEWED)
    steps.sign(ruleset, sue)
    release_page = client_of(sam).post(url("ruleset-release", ruleset.number), follow=True).content.decode()
    frozen_page = client_of(sam).get(url("ruleset-detail", ruleset.number)).content.decode()
    for page in (draft_page, frozen_page, release_page):
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "{{7*7}}" in page
    client = client_of(abe)
    text = streamed(client.get(url("ruleset-export", ruleset.number, "csv"))).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["text"] for row in rows] == [HOSTILE[0], f"'{HOSTILE[1]}", f"'{HOSTILE[2]}"]
    data = streamed(client.get(url("ruleset-export", ruleset.number, "json")))
    export = json.loads(data)
    assert [one["text"] for one in export["manifest"]["instructions"]] == HOSTILE
    assert sha256_hex(canonical_json(export["manifest"])) == export["manifest_sha256"] == ruleset.manifest_sha256
    assert bytes(ruleset.manifest or b"") in data
    assert [one["username"] for one in export["signatures"]] == ["sam", "sue"]
    assert audit_actions(ruleset)[-2:] == ["ruleset.exported", "ruleset.exported"]


def test_downloads_are_the_exact_bytes(task: Task, ana: User, sam: User, sue: User, client_of: ClientOf) -> None:
    release = steps.released(task, ana, sam, sue)
    for kind, expected in (("txt", release.prompt_sha256), ("manifest.json", release.manifest_sha256)):
        response = client_of(sam).get(url("release-download", 1, kind))
        assert sha256_hex(streamed(response)) == expected
        assert response["Content-Disposition"].startswith("attachment")
    assert client_of(sam).get(url("release-download", 1, "exe")).status_code == 404


def test_a_draft_is_not_exported(task: Task, ana: User, client_of: ClientOf) -> None:
    steps.draft(task, ana)
    assert client_of(ana).get(url("ruleset-export", 1, "json")).status_code == 409
    assert not AuditEvent.objects.filter(action="ruleset.exported").exists()


def queries(client: Client, address: str) -> int:
    client.get(address)  # the first request of a session may do more
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(address).status_code == 200
    return len(captured)


def test_lists_take_the_same_queries_for_one_row_and_for_many(
    task: Task, ana: User, sam: User, sue: User, ada: User, client_of: ClientOf
) -> None:
    steps.in_production(task, ana, sam, sue)
    token_create(task=task, name="0", actor=ada)
    pages = [
        (client_of(person), url(name)) for person, name in ((sam, "ruleset-list"), (sam, "releases"), (ada, "tokens"))
    ]
    steps.publish(steps.again(task, ana, sam, sue), sam)  # so that every form is on the page
    few = [queries(client, address) for client, address in pages]
    for number in range(1, 6):
        release = steps.again(task, ana, sam, sue)
        for channel in ChannelName:
            steps.publish(release, sam, channel)
        token_create(task=task, name=str(number), actor=ada)
    assert [queries(client, address) for client, address in pages] == few
    assert max(few) <= 28


def test_ruleset_pages_take_the_same_queries_for_one_instruction_and_for_25(
    task: Task, ana: User, ben: User, sam: User, client_of: ClientOf
) -> None:
    def pages() -> list[int]:
        draft, frozen = steps.again_draft(task, ana), steps.again_frozen(task, ana)
        return [
            queries(client_of(person), url("ruleset-detail", one.number))
            for person, one in ((ana, draft), (sam, frozen))
        ]

    steps.approved(task, ana, 1)
    few = pages()
    steps.approved(task, ben, 24)
    assert pages() == few


def test_an_empty_task_says_what_to_do_next(task: Task, ana: User, ada: User, client_of: ClientOf) -> None:
    for person, name, words in (
        (ana, "ruleset-list", "No ruleset yet"),
        (ana, "ruleset-new", "Only approved instructions enter a ruleset"),
        (ana, "releases", "A signatory makes one from a signed ruleset"),
        (ada, "tokens", "needs one to fetch its prompt"),
    ):
        assert words in client_of(person).get(url(name)).content.decode()
