"""The small pieces others rest on: canonical JSON, spreadsheet cells, health, refusals and request ids."""

import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from pld_app import urls as project
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.errors import InvalidInput, NotAllowed, Refusal, WrongState
from pld_app.models import User
from pld_app.spreadsheets import disarm

type ClientOf = Callable[[User], Client]

# Canonical JSON.

exact_ints = st.integers(-(2**53) + 1, 2**53 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | exact_ints | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_canonical_json_says_the_same(value: Any) -> None:
    data = canonical_json(value)
    assert json.loads(data) == value
    assert canonical_json(json.loads(data)) == data


@given(st.dictionaries(texts, exact_ints, min_size=2, max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_keys_stand_in_the_order_of_rfc_8785() -> None:
    """Section 3.2.3 sorts by UTF-16 code units: an emoji (surrogates, U+D83D) stands before U+FB33."""
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical_json(value)).values()) == [2, 4, 6, 7, 1, 5, 3]


def test_characters_are_escaped_as_rfc_8785_has_it() -> None:
    assert (
        canonical_json("\u20ac$\u000f\nA'\"\\/\u2028\u007f") == b'"\xe2\x82\xac$\\u000f\\nA\'\\"\\\\/\xe2\x80\xa8\x7f"'
    )
    assert canonical_json({"b": [True, None], "a": {}}) == b'{"a":{},"b":[true,null]}'


@pytest.mark.parametrize("value", [1.0, float("nan"), [{"a": 0.5}], {1: "x"}, "\ud800", {"\udfff": 1}, 2**53, -(2**53)])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # UnicodeEncodeError is one, with other words
        canonical_json(value)


def test_text_is_hashed_as_utf_8() -> None:
    assert sha256_hex("é") == sha256_hex("é".encode()) == hashlib.sha256(b"\xc3\xa9").hexdigest()
    assert sha256_hex("e\u0301") != sha256_hex("\u00e9")


# Spreadsheet cells.


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://evil.example")',
        "=cmd|'/c calc'!A1",
        "+1+1",
        "-2",
        "@SUM(A1)",
        "\N{FULLWIDTH EQUALS SIGN}1",
        "\N{FULLWIDTH PLUS SIGN}1",
        "\N{FULLWIDTH HYPHEN-MINUS}1",
        "\N{FULLWIDTH COMMERCIAL AT}x",
    ],
)
def test_a_cell_that_would_run_is_disarmed(text: str) -> None:
    assert disarm(text) == f"'{text}"


@pytest.mark.parametrize("space", ["\t", "\r", "\n"])
def test_white_space_hides_no_formula_behind_it(space: str) -> None:
    assert disarm(f"{space}=1") == f"'{space}'=1"
    assert disarm(f"{space}1") == f"'{space}1"


@pytest.mark.parametrize("text", ["", "plain", "a=1", "'=1", "1-2", " =1"])
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert disarm(text) == text


# Health.


@pytest.mark.django_db
def test_health_is_open_and_says_little(client: Client) -> None:
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "audit_log": "sealed"})


@pytest.mark.django_db
@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE pld_app_auditevent DISABLE TRIGGER pld_append_only",
        "ALTER TABLE rules_release ENABLE TRIGGER pld_guard_release",
        "DROP TRIGGER pld_no_truncate ON pld_app_auditevent",
    ],
)
def test_health_fails_when_a_guard_is_gone(client: Client, damage: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(damage)
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (503, {"status": "a guard is disabled"})


@pytest.mark.django_db
def test_health_fails_when_the_database_does_not_answer(client: Client) -> None:
    with connection.cursor() as cursor, pytest.raises(Exception, match="division by zero"):
        cursor.execute("SELECT 1/0")  # the transaction is now of no use, as a connection that broke
    response = client.get("/healthz")
    assert (response.status_code, response.json()) == (503, {"status": "the database does not answer"})


# Refusals and request ids. The views raise; the project's own middleware answers.

MARKUP = "<script>alert(1)</script>"


def refused(request: HttpRequest, status: int) -> HttpResponse:
    raised: dict[int, Refusal] = {403: NotAllowed(), 409: WrongState(), 422: InvalidInput(f"No: {MARKUP}")}
    raise raised[status]


urlpatterns = [*project.urlpatterns, path("refused/<int:status>/", refused)]


@pytest.fixture
def refusing(settings: Settings, client_of: ClientOf, ana: User) -> Client:
    settings.ROOT_URLCONF = __name__
    return client_of(ana)


@pytest.mark.parametrize("status", [403, 409, 422])
def test_a_refusal_is_a_page_with_its_status_and_what_was_typed(refusing: Client, status: int) -> None:
    response = refusing.post(f"/refused/{status}/", {"text": MARKUP, "note": "a\r\nnote", "password": "secret"})
    page = response.content.decode()
    assert response.status_code == status
    assert "<html" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;</textarea>" in page
    assert "a\r\nnote" in page
    assert "secret" not in page
    assert MARKUP not in page


def test_a_refusal_to_htmx_is_a_fragment_for_its_place(refusing: Client) -> None:
    response = refusing.post("/refused/409/", {"text": "mine"}, headers={"HX-Request": "true"})
    page = response.content.decode()
    assert response.status_code == 409
    assert (response.headers["HX-Retarget"], response.headers["HX-Reswap"]) == ("#refusal", "innerHTML")
    assert "<html" not in page
    assert "This has changed since you opened it" in page
    assert ">mine</textarea>" in page


def test_a_bug_is_no_refusal(refusing: Client) -> None:
    with pytest.raises(KeyError):
        refusing.get("/refused/500/")
    refusing.raise_request_exception = False
    response = refusing.get("/refused/500/")
    assert response.status_code == 500
    assert "KeyError" not in response.content.decode()


@pytest.mark.django_db
def test_each_answer_carries_an_id_of_our_own(client: Client) -> None:
    ids = [client.get("/healthz", headers={"X-Request-ID": "forged"}).headers["X-Request-ID"] for _ in range(2)]
    assert len({uuid.UUID(one) for one in ids}) == 2


@pytest.mark.django_db
def test_the_frame_of_every_answer_is_closed(client: Client) -> None:
    response = client.get("/sign-in/")
    policy = response.headers["Content-Security-Policy"]
    for part in ("default-src 'self'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.django_db
def test_sign_in_goes_to_no_other_site(client: Client, ana: User) -> None:
    response = client.post(
        "/sign-in/?next=https://evil.example/", {"username": "ana", "password": "correct horse battery"}
    )
    assert response.headers["Location"] == "/"


def test_the_next_page_of_a_stranger_is_kept(client: Client, db: None) -> None:
    assert client.get("/audit/?action=x").headers["Location"] == "/sign-in/?next=/audit/%3Faction%3Dx"
