"""The prompt API: hash, ETag, 304, and every refusal; never bytes that are not the signed ones."""

import hashlib
import json
import logging

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from pld_app.models import User
from rules.models import ChannelName, Release, Task
from rules.services.tokens import token_create, token_revoke
from rules.services.withdrawing import ruleset_withdraw
from tests.factories import make_proof, make_task
from tests.publishing import steps

URL = "/api/v1/tasks/nda/prompt"


@pytest.fixture
def release(task: Task, ana: User, sam: User, sue: User) -> Release:
    return steps.in_production(task, ana, sam, sue)


@pytest.fixture
def secret(task: Task, ada: User) -> str:
    return token_create(task=task, name="student", actor=ada)[1]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_the_prompt_comes_with_hash_version_signers_and_schema(
    release: Release, secret: str, client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_max_num_queries(4):  # one of them notes the first read of the minute
        response = client.get(URL, headers=bearer(secret))
    body = response.json()
    assert response.status_code == 200
    assert hashlib.sha256(body["prompt"].encode()).hexdigest() == body["prompt_sha256"] == response["X-Prompt-SHA256"]
    assert response["ETag"] == f'"{release.prompt_sha256}-1"'
    assert response["Cache-Control"] == "private, no-cache"
    assert not response.cookies
    assert (body["task"], body["channel"], body["version"]) == ("nda", "production", 1)
    assert [(one["name"], one["role"], one["meaning"]) for one in body["signers"]] == [
        ("Sam", "signatory", "reviewed"),
        ("Sue", "signatory", "approved"),
    ]
    assert body["answer_schema"]["properties"]["label"]["enum"] == ["Compliant", "Breach", "Unclear"]
    assert body["manifest_sha256"] == release.manifest_sha256
    assert reverse("api-prompt", args=["nda"]) == URL


def test_labels_changed_after_signing_are_not_served(release: Release, secret: str, client: Client) -> None:
    Task.objects.update(labels=["Other", "Unsigned"])
    body = client.get(URL, headers=bearer(secret)).json()
    assert body["answer_schema"]["properties"]["label"]["enum"] == ["Compliant", "Breach", "Unclear"]


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', "*"])
def test_an_unchanged_prompt_is_not_sent_again(release: Release, secret: str, client: Client, form: str) -> None:
    etag = client.get(URL, headers=bearer(secret))["ETag"]
    response = client.get(URL, headers={**bearer(secret), "If-None-Match": form.format(etag)})
    assert (response.status_code, response.content, response["ETag"]) == (304, b"", etag)


def test_another_release_has_another_etag(
    release: Release, secret: str, client: Client, task: Task, ana: User, sam: User, sue: User
) -> None:
    etag = client.get(URL, headers=bearer(secret))["ETag"]
    second = steps.again(task, ana, sam, sue)
    for channel in ChannelName:
        steps.publish(second, sam, channel)
    response = client.get(URL, headers={**bearer(secret), "If-None-Match": etag})
    assert (response.status_code, response.json()["version"]) == (200, 2)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer \xff", "Basic eDp5", "Token x"]
)
def test_without_a_valid_token_there_is_401(release: Release, client: Client, header: str | None) -> None:
    response = client.get(URL, headers={} if header is None else {"Authorization": header})
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == "Bearer"
    assert "prompt" not in response.json()


def test_a_session_is_no_token(release: Release, client: Client, sam: User) -> None:
    client.force_login(sam)
    assert client.get(URL).status_code == 401


def test_a_revoked_token_is_refused(release: Release, secret: str, client: Client, task: Task, ada: User) -> None:
    token_revoke(token_id=task.tokens.get().pk, actor=ada)
    assert client.get(URL, headers=bearer(secret)).status_code == 401


def test_a_token_of_another_task_is_refused_and_learns_nothing(release: Release, client: Client, ada: User) -> None:
    other = token_create(task=make_task("ads"), name="other", actor=ada)[1]
    for slug in ("nda", "no-such-task"):
        response = client.get(f"/api/v1/tasks/{slug}/prompt", headers=bearer(other))
        assert (response.status_code, response.json()) == (403, {"detail": "This token is for another task."})


def test_nothing_published_is_404_in_words(task: Task, secret: str, client: Client) -> None:
    response = client.get(URL, headers=bearer(secret))
    assert (response.status_code, response.json()) == (
        404,
        {"detail": "Nothing valid is published to production of nda.", "reason": "nothing_published"},
    )


def test_a_withdrawn_release_is_not_served(release: Release, secret: str, client: Client, sam: User) -> None:
    ruleset_withdraw(ruleset_id=release.ruleset_id, actor=sam, reason="Wrong.", proof=make_proof(sam))
    assert client.get(URL, headers=bearer(secret)).status_code == 404


def test_a_draft_a_frozen_and_a_staged_prompt_are_not_production(
    task: Task, secret: str, client: Client, ana: User, sam: User, sue: User
) -> None:
    steps.draft(task, ana)
    steps.frozen(task, ana)
    steps.publish(steps.released(task, ana, sam, sue), sam)
    assert client.get(URL, headers=bearer(secret)).status_code == 404
    assert client.get(f"{URL}?channel=staging", headers=bearer(secret)).status_code == 200


@pytest.mark.parametrize("channel", ["draft", "", "PRODUCTION"])
def test_an_unknown_channel_is_422_in_words(release: Release, secret: str, client: Client, channel: str) -> None:
    response = client.get(URL, {"channel": channel}, headers=bearer(secret))
    assert response.status_code == 422
    assert "staging, production" in response.json()["detail"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nothing_but_reading_is_offered(release: Release, secret: str, client: Client, method: str) -> None:
    assert getattr(client, method)(URL, headers=bearer(secret)).status_code == 405


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("rules_release", "prompt = prompt || ' '"),
        ("rules_release", "prompt_sha256 = repeat('0', 64)"),
        ("rules_release", "manifest_sha256 = repeat('0', 64)"),
        ("rules_ruleset", "manifest = manifest || 'x'::bytea"),
        ("rules_ruleset", "manifest = NULL"),
        ("rules_signature", "manifest_sha256 = repeat('0', 64)"),
        ("rules_signature", "meaning = 'reviewed'"),
    ],
)
def test_bytes_changed_under_the_guards_are_not_served(
    release: Release, secret: str, client: Client, caplog: pytest.LogCaptureFixture, table: str, change: str
) -> None:
    """The owner of the database switches its triggers off and edits: the API serves nothing, and says so in the log."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute("ALTER TABLE rules_ruleset DROP CONSTRAINT ruleset_sign_off_has_manifest")
        cursor.execute(f"UPDATE {table} SET {change}")
    with caplog.at_level(logging.CRITICAL, logger="rules.api"):
        response = client.get(URL, headers=bearer(secret))
    assert response.status_code == 503
    assert "prompt" not in {key for key in response.json() if key != "detail"}
    assert "prompt not served" in caplog.text


def test_the_openapi_document_describes_what_is_served(client: Client) -> None:
    document = client.get("/api/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    operation = document["paths"]["/api/v1/tasks/{task}/prompt"]["get"]
    assert set(operation["responses"]) == {"200", "304", "401", "403", "404", "422", "503"}
    assert operation["security"] == [{"TokenAuth": []}]
    assert document["components"]["securitySchemes"]["TokenAuth"] == {"type": "http", "scheme": "bearer"}
    assert {one["name"]: one["in"] for one in operation["parameters"]} == {"task": "path", "channel": "query"}
    _references_resolve(document, document)


def _references_resolve(document: dict[str, object], part: object) -> None:
    """Every $ref of the document names something in it."""
    if isinstance(part, dict):
        reference = part.get("$ref")
        if isinstance(reference, str):
            found: object = document
            for key in reference.removeprefix("#/").split("/"):
                assert isinstance(found, dict)
                found = found[key]
        for inner in part.values():
            _references_resolve(document, inner)
    elif isinstance(part, list):
        for inner in part:
            _references_resolve(document, inner)


def test_no_page_of_the_api_loads_anything_from_elsewhere(client: Client) -> None:
    assert client.get("/api/v1/docs").status_code == 404
    assert "cdn" not in json.dumps(client.get("/api/v1/openapi.json").json())
