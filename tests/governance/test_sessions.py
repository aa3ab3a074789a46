"""Sessions end: with the account's password, role or state, after idle time, after a day, and at sign-out."""

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client

from pld_app.models import User, UserSession

type ClientOf = Callable[[User], Client]


@pytest.mark.parametrize(
    "change", ["role = 'auditor'", "is_active = false", "password = 'x'"], ids=["role", "closed", "password"]
)
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
