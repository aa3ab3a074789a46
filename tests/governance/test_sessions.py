"""Sessions end: with the account's password, role or state, after idle time, after a day, and at sign-out."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.db import connection
from django.test import Client

from pld_app.models import Notification, Role, User, UserSession
from rules.models import Task
from tests.factories import PASSWORD, audit_actions, change_role, make_instruction

type ClientOf = Callable[[User], Client]


@pytest.mark.parametrize("change", ["is_active = false", "password = 'x'"], ids=["closed", "password"])
def test_a_change_of_the_account_ends_its_sessions_even_in_sql(
    sam: User, sue: User, client_of: ClientOf, change: str
) -> None:
    browser, other = client_of(sam), client_of(sue)
    assert UserSession.objects.filter(user_id=sam.pk).count() == 1
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE pld_app_user SET {change} WHERE id = %s", [sam.pk])
    assert not UserSession.objects.filter(user_id=sam.pk).exists()
    assert browser.get("/").status_code == 302
    assert other.get("/").status_code == 200


def test_another_role_ends_the_sessions_of_the_old_one(sam: User, ada: User, client_of: ClientOf) -> None:
    browser = client_of(sam)
    change_role(sam, Role.AUDITOR, by=ada)
    assert browser.get("/").status_code == 302
    assert Notification.objects.get(user=sam).text == (
        "Ada changed your role from Signatory to Auditor. Your sessions have ended."
    )


def test_the_session_has_another_id_after_signing_in_and_none_after_signing_out(sam: User) -> None:
    browser = Client()
    browser.get("/sign-in/")
    session = browser.session
    session["planted"] = True
    session.save()
    planted = session.session_key
    browser.cookies["sessionid"] = str(planted)
    browser.post("/sign-in/", {"username": "sam", "password": PASSWORD})
    signed_in = browser.session.session_key
    assert signed_in != planted
    assert not UserSession.objects.filter(pk=planted).exists()
    browser.post("/sign-out/")
    assert not UserSession.objects.filter(pk=signed_in).exists()
    thief = Client()
    thief.cookies["sessionid"] = str(signed_in)
    assert thief.get("/").status_code == 302
    assert audit_actions(sam) == ["login.succeeded", "login.ended"]


def test_an_idle_session_ends_and_one_in_use_goes_on(sam: User, client_of: ClientOf) -> None:
    start = datetime(2026, 11, 24, 8, tzinfo=UTC)
    with time_machine.travel(start, tick=False) as clock:
        idle, used, polled = client_of(sam), client_of(sam), client_of(sam)
        for _quarter in range(3):
            clock.shift(timedelta(minutes=15))
            assert used.get("/").status_code == 200
            polled.get("/", headers={"X-PLD-Poll": "1"})
        assert idle.get("/").status_code == 302
        assert polled.get("/").status_code == 302  # a page that asks for progress by itself is nobody


def test_no_session_outlives_twelve_hours(sam: User, client_of: ClientOf) -> None:
    with time_machine.travel(datetime(2026, 11, 24, 8, tzinfo=UTC), tick=False) as clock:
        browser = client_of(sam)
        for _quarter in range(47):
            clock.shift(timedelta(minutes=15))
            assert browser.get("/inbox/").status_code == 200
        clock.shift(timedelta(minutes=15))
        assert browser.get("/inbox/").status_code == 302


def test_being_seen_is_written_once_a_minute(sam: User, client_of: ClientOf) -> None:
    with time_machine.travel(datetime(2026, 11, 24, 8, tzinfo=UTC), tick=False) as clock:
        browser = client_of(sam)
        before = UserSession.objects.get().expire_date
        clock.shift(timedelta(seconds=59))
        browser.get("/")
        assert UserSession.objects.get().expire_date == before
        clock.shift(timedelta(seconds=1))
        browser.get("/")
        assert UserSession.objects.get().expire_date == before + timedelta(seconds=60)


def test_a_new_password_ends_the_other_sessions_and_keeps_this_one(sam: User, client_of: ClientOf) -> None:
    here, elsewhere = client_of(sam), client_of(sam)
    fresh = "a quite different horse"
    form = {"old_password": PASSWORD, "new_password1": fresh, "new_password2": fresh}
    assert here.post("/password/", form).status_code == 302
    assert here.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 302


def test_people_end_their_other_sessions(sam: User, sue: User, client_of: ClientOf) -> None:
    here, elsewhere, hers = client_of(sam), client_of(sam), client_of(sue)
    assert "2 browsers are signed in" in here.get("/security/").content.decode()
    here.post("/security/sessions/end/")
    assert here.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 302
    assert hers.get("/").status_code == 200
    assert audit_actions(sam) == ["account.sessions_ended"]


def test_a_text_sent_after_the_session_ended_comes_back(task: Task, ana: User, client_of: ClientOf) -> None:
    one = make_instruction(task)
    browser = client_of(ana)
    UserSession.objects.all().delete()
    path = f"/tasks/nda/review/{one.number}/"
    referer = {"Referer": f"http://testserver{path}"}
    response = browser.post(f"{path}edit/", {"version": 1, "text": "An hour of <work>."}, headers=referer)
    page = response.content.decode()
    assert response.status_code == 401
    assert "An hour of &lt;work&gt;." in page
    # And signing in leads back to a page that can be shown, not to the address of the form.
    assert f"/sign-in/?next={path}" in page
    response = browser.post(f"{path}approve/", {"version": 1}, headers=referer)
    assert response.headers["Location"] == f"/sign-in/?next={path}"
