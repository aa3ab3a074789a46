"""The edge of the server: cookies, headers, hosts and links that somebody else chose."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client, override_settings

from pld_app.models import User
from rules.models import Task
from rules.services.tokens import token_create
from tests.publishing import steps

type ClientOf = Callable[[User], Client]
CLOSED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


def hostile() -> Client:
    return Client(raise_request_exception=False)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "cookie",
    [
        r'sessionid="abcdefghijklmnop\000"',
        r'sessionid="\355\262\200abcdefghijk"',
        "sessionid=" + "a" * 5000,
        r'csrftoken="a\000"',
        r'messages="\000x"',
        r'django_language="\000"',
    ],
)
def test_an_odd_cookie_is_no_server_error(cookie: str) -> None:
    assert hostile().generic("GET", "/", HTTP_COOKIE=cookie).status_code == 302


@pytest.mark.django_db
@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\x00",
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/x-www-form-urlencoded; charset=nope",
        "application/json",
        "",
    ],
)
def test_an_odd_body_is_no_server_error(content_type: str) -> None:
    response: Any = hostile().generic("POST", "/sign-in/", b'{"username": "\xff', CONTENT_TYPE=content_type)
    assert response.status_code < 500


@pytest.mark.django_db
@override_settings(ALLOWED_HOSTS=["review.example.org"])
@pytest.mark.parametrize("redirect", [True, False])
@pytest.mark.parametrize("path", ["/sign-in/", "/healthz", "/api/v1/openapi.json", "/static/css/tokens.css"])
def test_another_host_is_refused_behind_the_same_frame(path: str, redirect: bool) -> None:
    with override_settings(SECURE_SSL_REDIRECT=redirect, SECURE_REDIRECT_EXEMPT=[]):
        response = hostile().get(path, headers={"Host": "evil.example", "X-Forwarded-Host": "review.example.org"})
    if response.status_code == 200:
        assert path.startswith("/static/")
        assert not redirect
    else:
        assert response.status_code == 400
        assert "evil.example" not in response.content.decode()
    assert_closed(response)


def assert_closed(response: Any) -> None:
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    for name, value in CLOSED.items():
        assert response.headers[name] == value, name


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 302),
        ("/nothing-here", 404),
        ("/healthz", 200),
        ("/sign-in/", 200),
        ("/static/css/tokens.css", 200),
        ("/static/nothing.css", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/openapi.json", 200),
        ("/api/v1/tasks/nda/prompt", 401),
    ],
)
def test_every_answer_to_a_stranger_has_the_frame(path: str, status: int) -> None:
    response = hostile().get(path)
    assert response.status_code == status
    assert_closed(response)


def test_downloads_and_refusals_have_the_frame(
    task: Task, ana: User, sam: User, sue: User, ada: User, client_of: ClientOf
) -> None:
    release = steps.in_production(task, ana, sam, sue)
    _token, secret = token_create(task=task, name="student", actor=ada)
    reviewer = client_of(ana)
    for path in (
        f"/tasks/nda/releases/{release.version}/download.json",
        f"/tasks/nda/releases/{release.version}/download.csv",
        f"/tasks/nda/releases/{release.version}/download.txt",
        "/audit/",
    ):
        assert_closed(reviewer.get(path))
    assert_closed(Client().get("/api/v1/tasks/nda/prompt", headers={"Authorization": f"Bearer {secret}"}))


@pytest.mark.parametrize(
    ("referer", "back"),
    [
        ("http://testserver/tasks/nda/", "http://testserver/tasks/nda/"),
        ("https://evil.example/trap", "/"),
        ("http://testserver.evil.example/", "/"),
        ("http://testserver@evil.example/", "/"),
        ("//evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ('http://testserver/"><script>', "http://testserver/&quot;&gt;&lt;script&gt;"),
        ("", "/"),
    ],
)
def test_back_leads_to_no_other_site(referer: str, back: str, ana: User, client_of: ClientOf) -> None:
    response = client_of(ana).get("/audit/", headers={"Referer": referer})
    assert response.status_code == 403
    assert f'<a class="btn" href="{back}">Back</a>' in response.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "goal",
    [
        "https://evil.example/",
        "//evil.example/",
        r"/\evil.example",
        "///evil.example",
        "javascript:alert(1)",
        "https:evil.example",
        "\x00//evil.example",
        "/\r\nSet-Cookie: a=b",
        "http://testserver@evil.example/",
    ],
)
def test_signing_in_leads_to_no_other_site(goal: str, ana: User) -> None:
    browser = hostile()
    page = browser.post("/sign-in/", {"username": "ana", "password": "correct horse battery", "next": goal})
    assert page.status_code == 302
    location = page.headers["Location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
    assert "Set-Cookie: a" not in str(page.headers)
    # Who is signed in already is sent on at once, to the same places.
    assert "evil.example" not in browser.get("/sign-in/", {"next": goal}).headers["Location"]


def test_an_error_page_tells_nothing(ana: User, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_kwargs: object) -> None:
        secret = "hunter2"  # noqa: F841  # a local variable that a debug page would show
        raise RuntimeError("postgresql://pld:password@db/pld")

    monkeypatch.setattr("rules.selectors.tasks.task_list", broken)
    browser = client_of(ana)
    browser.raise_request_exception = False
    response = browser.get("/")
    assert response.status_code == 500
    for word in ("hunter2", "password@", "RuntimeError", "Traceback", "/rules/"):
        assert word not in response.content.decode()
    assert_closed(response)


def test_an_endpoint_key_or_token_is_on_no_page(task: Task, ada: User, abe: User, client_of: ClientOf) -> None:
    _token, secret = token_create(task=task, name="student", actor=ada)
    for person in (ada, abe):
        browser = client_of(person)
        for path in ("/tasks/nda/tokens/", "/audit/", "/audit/export.json", "/audit/export.csv"):
            response: Any = browser.get(path)
            body = b"".join(response.streaming_content) if response.streaming else response.content
            assert secret[10:].encode() not in body
