"""Sessions end: with the account's password, role or state, after idle time, after a day, and at sign-out."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client

from pld_app.accounts import account_set_role
from pld_app.models import Notification, Role, User, UserSession

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
    account_set_role(user_id=sam.pk, role=Role.AUDITOR, domain="", by=ada)
    assert browser.get("/").status_code == 302
    assert Notification.objects.get(user=sam).text == (
        "Ada changed your role from Signatory to Auditor. Your sessions have ended."
    )
