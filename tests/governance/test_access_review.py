"""C20: each account with its role, last activity, and who granted it when; as a page and as CSV."""

import csv
import io
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from pld_app.accounts import account_create, account_deactivate
from pld_app.models import AuditEvent, Role, User
from pld_app.role_grants import role_confirm, role_override, role_request
from tests.factories import PASSWORD, event_backdate, make_user, now

type ClientOf = Callable[[User], Client]


@pytest.fixture
def auditor(client_of: ClientOf, abe: User) -> Client:
    return client_of(abe)


def lines(auditor: Client) -> dict[str, dict[str, str]]:
    response: Any = auditor.get("/accounts/review.csv")
    rows = csv.DictReader(io.StringIO(response.getvalue().decode()))
    return {row["user_name"]: row for row in rows}


def test_each_account_with_role_activity_and_who_granted_it(auditor: Client, ada: User) -> None:
    eve = make_user("eve", Role.ADMIN)
    kim = account_create(username="kim", display_name="Kim", role="signatory", password=PASSWORD)
    first = lines(auditor)["kim"]
    assert (first["role"], first["role_granted_by"], first["last_activity"]) == ("signatory", "system", "")
    grant = role_request(user_id=kim.pk, role=Role.AUDITOR, domain="", reason="Audits now.", by=ada)
    assert lines(auditor)["kim"]["role_granted_by"] == "system", "not in effect yet"
    role_confirm(grant_id=grant.pk, by=eve)
    role_override(grant_id=grant.pk, by=eve, reason="Today.")
    row = lines(auditor)["kim"]
    granted = AuditEvent.objects.get(action="account.role_changed")
    assert (row["role"], row["role_granted_by"], row["event"]) == ("auditor", "Ada, Eve", str(granted.pk))
    assert row["role_granted_at"] == granted.at.isoformat()
    assert lines(auditor)["eve"]["last_activity"] != ""
    page = auditor.get("/accounts/review/").content.decode()
    assert f'<a href="/audit/{granted.pk}/">' in page


def test_closed_and_idle_accounts_are_told_apart(auditor: Client, ada: User, sam: User, sue: User) -> None:
    account_deactivate(user_id=sue.pk, by=ada)
    User.objects.filter(pk=sam.pk).update(created_at=now() - timedelta(days=400))
    rows = lines(auditor)
    assert (rows["sue"]["state"], rows["sue"]["idle_for_a_quarter"]) == ("closed", "no")
    assert (rows["sam"]["state"], rows["sam"]["idle_for_a_quarter"]) == ("active", "yes")
    assert "Idle for a quarter" in auditor.get("/accounts/review/").content.decode()
    event_backdate(AuditEvent.objects.get(action="account.deactivated"), now() - timedelta(days=93))
    assert lines(auditor)["ada"]["idle_for_a_quarter"] == "yes"


def test_the_export_is_on_record_and_no_cell_is_a_formula(auditor: Client, abe: User) -> None:
    User.objects.filter(pk=make_user("mal", Role.ADMIN).pk).update(display_name="=SUM(A1)")
    assert lines(auditor)["mal"]["name"] == "'=SUM(A1)"
    assert AuditEvent.objects.get(action="access_review.exported").actor == abe


def test_reviewers_do_not_see_it(ana: User, client_of: ClientOf) -> None:
    assert client_of(ana).get("/accounts/review/").status_code == 403


def test_the_page_costs_the_same_for_one_account_and_many(auditor: Client, django_assert_num_queries: Any) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    auditor.get("/accounts/review/")
    with CaptureQueriesContext(connection) as first:
        auditor.get("/accounts/review/")
    for number in range(25):
        make_user(f"user{number}", Role.ADMIN)
    with django_assert_num_queries(len(first)):
        auditor.get("/accounts/review/")
