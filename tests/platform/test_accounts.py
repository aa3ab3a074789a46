"""Accounts: one role each, made and closed by an administrator, shut out at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from pld_app.accounts import account_create, account_deactivate
from pld_app.errors import InvalidInput, NotAllowed, Refusal, WrongState
from pld_app.models import AuditEvent, Domain, ModelEndpoint, Role, RoleGrant, User, UserSession
from tests.factories import PASSWORD, audit_actions, make_endpoint, make_task, make_user

type ClientOf = Callable[[User], Client]


@pytest.fixture
def admin(client_of: ClientOf, ada: User) -> Client:
    return client_of(ada)


def fields(**changes: str) -> dict[str, str]:
    values = {"username": "eva", "display_name": "Eva", "role": "signatory", "password": "quiet river stone 7"}
    return values | changes


def test_an_administrator_makes_an_account_that_a_second_one_opens(
    admin: Client, ada: User, client: Client, client_of: ClientOf
) -> None:
    assert admin.post("/accounts/new/", fields()).headers["Location"] == "/accounts/"
    eva = User.objects.get(username="eva")
    assert (eva.role, eva.domain, eva.is_active) == (Role.SIGNATORY, "", False)
    made = AuditEvent.objects.get(action="account.created", object_id=eva.pk)
    assert (made.actor, made.data) == (ada, {"role": "signatory", "domain": ""})
    second = make_user("eve", Role.ADMIN)
    grant = RoleGrant.objects.get()
    for path, form in (("confirm", {}), ("override", {"reason": "She begins today."})):
        assert client_of(second).post(f"/accounts/roles/{grant.pk}/{path}/", form).status_code == 302
    assert "quiet river" not in str(made.data)
    response = client.post("/sign-in/", {"username": "eva", "password": "quiet river stone 7"})
    assert response.headers["Location"] == "/"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"username": "ada"}, "already exists"),
        ({"username": "é"}, "valid username"),
        ({"role": "superuser"}, "not one of the available choices"),
        ({"role": "reviewer"}, "A reviewer needs a domain"),
        ({"domain": "legal"}, "only a reviewer has one"),
        ({"password": "short"}, "too short"),
        ({"password": "123456789012345"}, "entirely numeric"),
        ({"password": "password1234"}, "too common"),
        ({"username": "evangelina-x", "password": "evangelina-x1"}, "too similar to the user name"),
        ({"display_name": ""}, "required"),
        ({"email": "nobody"}, "valid email"),
    ],
)
def test_an_account_that_does_not_fit_is_refused_in_words(admin: Client, changes: dict[str, str], message: str) -> None:
    response = admin.post("/accounts/new/", fields(**changes))
    assert response.status_code == 422
    assert message in response.content.decode()
    assert not User.objects.filter(username="eva").exists()
    assert set(AuditEvent.objects.values_list("object_label", flat=True)) == {"Ada"}


def test_an_empty_form_is_refused_too(admin: Client) -> None:
    for url in ("/accounts/new/", "/endpoints/new/", "/tasks/new/"):
        response = admin.post(url)
        assert response.status_code == 422
        assert "This field is required" in response.content.decode()


def test_a_closed_account_is_signed_out_and_stays_out(admin: Client, ada: User, ana: User, client_of: ClientOf) -> None:
    browser = client_of(ana)
    assert browser.get("/").status_code == 200
    admin.post(f"/accounts/{ana.pk}/deactivate/")
    assert browser.get("/").status_code == 302
    assert not [one for one in UserSession.objects.all() if one.get_decoded().get("_auth_user_id") == str(ana.pk)]
    assert admin.get("/").status_code == 200
    response = Client().post("/sign-in/", {"username": "ana", "password": PASSWORD})
    assert response.status_code == 200
    assert "not right, or the account is not active" in response.content.decode()
    assert audit_actions(ana) == ["account.deactivated", "login.failed"]


def test_nobody_closes_their_own_account_or_one_twice(ada: User, ana: User) -> None:
    with pytest.raises(InvalidInput, match="your own account"):
        account_deactivate(user_id=ada.pk, by=ada)
    account_deactivate(user_id=ana.pk, by=ada)
    with pytest.raises(WrongState, match="closed already"):
        account_deactivate(user_id=ana.pk, by=ada)
    assert audit_actions(ana) == ["account.deactivated"]


def test_an_account_that_is_not_there_is_not_found(admin: Client) -> None:
    assert admin.post("/accounts/999999/deactivate/").status_code == 404


@pytest.mark.django_db(transaction=True)
def test_two_administrators_cannot_close_each_other() -> None:
    """Whoever is second is no administrator any more, so that one always stays."""
    for number in range(10):
        pair = [make_user(f"adm{number}{side}", Role.ADMIN) for side in "ab"]

        def close(mine: int, pair: list[User] = pair) -> Any:
            try:
                return account_deactivate(user_id=pair[1 - mine].pk, by=pair[mine])
            except Refusal as refusal:
                return refusal
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(close, range(2)))
        assert sum(isinstance(one, NotAllowed) for one in outcomes) == 1
        assert User.objects.filter(pk__in=[one.pk for one in pair], is_active=True).count() == 1


@pytest.mark.parametrize(
    "columns",
    [
        {"role": "superuser", "domain": ""},
        {"role": "reviewer", "domain": ""},
        {"role": "reviewer", "domain": "medicine"},
        {"role": "admin", "domain": "legal"},
    ],
)
def test_the_database_refuses_roles_that_do_not_exist(columns: dict[str, Any], db: None) -> None:
    with pytest.raises(ValidationError):
        account_create(username="eva", display_name="Eva", password="x", **columns)
    ana = make_user("ana", Role.REVIEWER, Domain.LEGAL)
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.filter(pk=ana.pk).update(**columns)


# Endpoints, configured on the page beside.


def endpoint_fields(**changes: str) -> dict[str, str]:
    values = {
        "name": "Teacher",
        "slug": "teacher",
        "kind": "chat",
        "api": "chat",
        "base_url": "https://models.example/v1",
        "model": "m-1",
        "structured_output": "json_schema",
        "concurrency": "8",
        "timeout_s": "60",
        "max_output_tokens": "1024",
        "price_in": "0",
        "price_out": "0",
        "batch_price_percent": "100",
        "is_active": "on",
    }
    return values | changes


def test_an_endpoint_is_made_and_changed_with_an_event_each(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "sk-secret")
    assert admin.post("/endpoints/new/", endpoint_fields(api_key_env="TEACHER_API_KEY")).status_code == 302
    assert admin.post("/endpoints/teacher/", endpoint_fields(model="m-2")).status_code == 302
    endpoint = ModelEndpoint.objects.get()
    assert endpoint.model == "m-2"
    assert audit_actions(endpoint) == ["endpoint.created", "endpoint.changed"]
    assert "sk-secret" not in str(list(AuditEvent.objects.values_list("data", flat=True)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"api_key_env": "PLD_SECRET_KEY"}, "not the name of a provider"),
        ({"api_key_env": "DATABASE_URL"}, "not the name of a provider"),
        ({"slug": "new"}, "address of the form itself"),
        ({"base_url": "ftp://x"}, "valid URL"),
        ({"base_url": "javascript:alert(1)"}, "valid URL"),
        ({"concurrency": "65"}, "between 1 and 64"),
        ({"timeout_s": "0"}, "between 1 and 120"),
        ({"price_in": "NaN"}, "Enter a number"),
    ],
)
def test_an_endpoint_that_does_not_fit_is_refused_in_words(
    admin: Client, changes: dict[str, str], message: str
) -> None:
    response = admin.post("/endpoints/new/", endpoint_fields(**changes))
    assert response.status_code == 422
    assert message in unescape(response.content.decode())
    assert not ModelEndpoint.objects.exists()


# Cost of the lists.


def one_more(path: str, number: int) -> None:
    if path == "/accounts/":
        make_user(f"user{number}", Role.AUDITOR)
    elif path == "/endpoints/":
        make_endpoint("http://127.0.0.1:1/v1", slug=f"e{number}")
    else:
        make_task(f"t{number}")


@pytest.mark.parametrize("path", ["/", "/accounts/", "/endpoints/"])
def test_a_list_costs_the_same_for_1_and_25_rows(
    admin: Client, path: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    one_more(path, 0)
    admin.get(path)
    with CaptureQueriesContext(connection) as first:
        admin.get(path)
    for number in range(1, 30):
        one_more(path, number)
    with django_assert_num_queries(len(first)):
        page = admin.get(path).context["page"]
    assert len(page.object_list) == 25
    assert page.has_next()


def test_people_change_their_own_password_and_other_sessions_end(
    ana: User, client_of: Callable[[User], Client]
) -> None:
    here, elsewhere = client_of(ana), client_of(ana)
    fresh = "a quite different horse"
    form = {"old_password": PASSWORD, "new_password1": fresh, "new_password2": fresh}
    assert here.post("/password/", form | {"old_password": "wrong"}).status_code == 422
    assert here.post("/password/", form).status_code == 302
    ana.refresh_from_db()
    assert ana.check_password(fresh)
    assert audit_actions(ana) == ["login.failed", "account.password_set"]
    assert here.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 302
