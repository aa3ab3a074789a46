"""Guessing passwords: slow for known and unknown names alike, whatever headers the guesser sends."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client, RequestFactory
from django.utils import timezone
from pytest_django import Settings

from pld_app.models import AuditEvent, Role, User
from pld_app.sign_in import ACCOUNT_FAILURES, ADDRESS_FAILURES, client_address
from tests.factories import PASSWORD, event_backdate, make_user

WAIT = "Too many sign-ins with a wrong name or password"
WRONG = "Name or password is not right"


def sign_in(username: str = "sam", password: str = PASSWORD, address: str = "203.0.113.5", **headers: str) -> Any:
    return Client().post(
        "/sign-in/", {"username": username, "password": password}, REMOTE_ADDR=address, headers=headers
    )


def guess(times: int, username: str = "sam", address: str = "203.0.113.5") -> list[int]:
    return [sign_in(username, f"wrong {n}", address).status_code for n in range(times)]


def failed_before(minutes: float) -> None:
    """Five failures of sam, so long ago."""
    guess(1)
    event = AuditEvent.objects.get(action="login.failed")
    columns = {field.attname: getattr(event, field.attname) for field in AuditEvent._meta.fields if field.name != "id"}
    for same in AuditEvent.objects.bulk_create(AuditEvent(**columns) for _ in range(ACCOUNT_FAILURES)):
        event_backdate(same, timezone.now() - timedelta(minutes=minutes))


def actions() -> list[str]:
    """What is on record, without that the accounts were made."""
    events = AuditEvent.objects.exclude(action="account.created").order_by("pk")
    return list(events.values_list("action", flat=True))


def test_five_wrong_passwords_make_even_the_right_one_wait(sam: User) -> None:
    assert guess(ACCOUNT_FAILURES) == [200, 200, 200, 200, 429]
    response = sign_in()
    assert response.status_code == 429
    assert 800 < int(response.headers["Retry-After"]) <= 900
    assert WAIT in response.content.decode()
    assert "_auth_user_id" not in response.client.session
    # The account waits wherever it is tried from.
    assert sign_in(address="198.51.100.7").status_code == 429


@pytest.mark.parametrize(("minutes", "status"), [(14, 429), (15.1, 302)])
def test_the_wait_ends_after_fifteen_minutes(sam: User, minutes: float, status: int) -> None:
    failed_before(minutes)
    assert sign_in().status_code == status


def test_a_few_mistakes_cost_nothing(sam: User) -> None:
    guess(ACCOUNT_FAILURES - 1)
    assert sign_in().status_code == 302


def test_one_person_waiting_holds_up_nobody_else(sam: User, sue: User) -> None:
    guess(ACCOUNT_FAILURES)
    assert sign_in("sue").status_code == 302


def test_an_address_waits_after_twenty_failures_over_many_names(sam: User) -> None:
    for number in range(ADDRESS_FAILURES):
        assert sign_in(f"name{number}", "wrong").status_code == (429 if number == ADDRESS_FAILURES - 1 else 200)
    assert sign_in().status_code == 429
    assert sign_in(address="198.51.100.7").status_code == 302


def test_a_name_that_does_not_exist_is_answered_the_same(sam: User) -> None:
    answers = {}
    for name, address in (("sam", "203.0.113.5"), ("nobody", "203.0.113.6")):
        responses = [sign_in(name, "wrong", address) for _ in range(ACCOUNT_FAILURES + 1)]
        answers[name] = [(one.status_code, WRONG in one.content.decode()) for one in responses]
        answers[name] += [(responses[-1].status_code, WAIT in responses[-1].content.decode())]
    assert answers["sam"] == answers["nobody"]


def test_a_closed_account_is_answered_the_same(sam: User) -> None:
    User.objects.filter(pk=sam.pk).update(is_active=False)
    response = sign_in()
    assert WRONG in response.content.decode()
    assert actions() == ["login.failed"]


def test_failures_and_the_lock_are_on_record_without_what_was_typed(sam: User) -> None:
    guess(ACCOUNT_FAILURES)
    guess(3)
    sign_in("my secret password", "x")
    assert actions() == ["login.failed"] * 5 + ["login.locked", "login.failed"]
    about_sam, unknown = AuditEvent.objects.get(action="login.locked"), AuditEvent.objects.order_by("pk").last()
    assert (about_sam.object_id, about_sam.object_label, about_sam.data["address"]) == (
        str(sam.pk),
        "Sam",
        "203.0.113.5",
    )
    assert unknown is not None
    assert unknown.object_label == "unknown account"
    assert "secret" not in str(unknown.__dict__)


def test_a_forged_forwarding_header_is_no_new_address(sam: User, settings: Settings) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="203.0.113.5", headers={"X-Forwarded-For": "10.9.9.9"})
    assert client_address(request) == "203.0.113.5"
    settings.BEHIND_PROXY = True
    request = RequestFactory().get(
        "/", REMOTE_ADDR="10.0.0.1", headers={"X-Forwarded-For": "10.9.9.9, forged, 203.0.113.5"}
    )
    assert client_address(request) == "203.0.113.5"


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("", "unknown"),
        ("no address", "unknown"),
    ],
)
def test_an_ipv6_client_is_counted_by_its_network(address: str, counted: str) -> None:
    assert client_address(RequestFactory().get("/", REMOTE_ADDR=address)) == counted


def test_a_browser_left_open_does_not_tell_the_password(sam: User) -> None:
    """The form for a new password asks for the present one: it must not answer guesses without end."""
    browser = Client()
    browser.force_login(sam)
    new = {"new_password1": "a quite different horse", "new_password2": "a quite different horse"}
    answers = [browser.post("/password/", {"old_password": f"wrong {n}"} | new) for n in range(ACCOUNT_FAILURES)]
    assert [WAIT in one.content.decode() for one in answers] == [False] * 4 + [True]
    assert browser.post("/password/", {"old_password": PASSWORD} | new).status_code == 422
    sam.refresh_from_db()
    assert sam.check_password(PASSWORD)
    assert actions() == ["login.failed"] * 5 + ["login.locked"]


@pytest.mark.django_db(transaction=True)
def test_parallel_guesses_are_counted() -> None:
    make_user("sam", Role.SIGNATORY)
    barrier = threading.Barrier(12)
    statuses: list[int] = []

    def try_one(number: int) -> None:
        barrier.wait()
        try:
            statuses.append(sign_in(password=f"wrong {number}").status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=try_one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 4 + [429] * 8
    assert AuditEvent.objects.filter(action="login.failed").count() == ACCOUNT_FAILURES
