"""The ledger's pages: filters, totals to the cent, replies as text, and queries that do not grow with the rows."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from pld_app.models import ModelEndpoint, User
from tests.factories import make_call, make_endpoint

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def teacher(db: None) -> ModelEndpoint:
    return make_endpoint("http://127.0.0.1:9/v1", slug="teacher")


def test_the_list_takes_the_same_queries_with_one_row_and_with_25(
    teacher: ModelEndpoint,
    abe: User,
    client_of: Callable[[User], Client],
    django_assert_num_queries: Callable[[int], Any],
) -> None:
    browser = client_of(abe)
    make_call(teacher, run="nda mining 1")
    browser.get("/ledger/")
    # Session, person, count, rows, totals, by run, choices of the endpoint.
    with django_assert_num_queries(8):
        browser.get("/ledger/")
    for n in range(30):
        make_call(make_endpoint("http://127.0.0.1:9/v1", slug=f"e-{n}"), run=f"nda mining {n}")
    with django_assert_num_queries(8):
        page = browser.get("/ledger/")
    assert page.text.count('href="/ledger/') >= 25


def test_totals_and_filters(teacher: ModelEndpoint, ada: User, client_of: Callable[[User], Client]) -> None:
    other = make_endpoint("http://127.0.0.1:9/v1", slug="other")
    for _ in range(3):
        make_call(teacher, run="nda mining 1", cost=Decimal("1.111"))
    make_call(teacher, run="nda mining 2", purpose="synthesize", cost=Decimal(10))
    make_call(other, run="nda evaluation 1", purpose="evaluate", outcome="timeout", cost=Decimal(0))
    get = client_of(ada).get
    whole = get("/ledger/")
    assert whole.context["totals"]["cost"] == Decimal("13.333")
    assert "13.33" in whole.text
    assert [(one["run"], one["calls"], one["cost"]) for one in whole.context["runs"]] == [
        ("nda mining 2", 1, Decimal(10)),
        ("nda mining 1", 3, Decimal("3.333")),
        ("nda evaluation 1", 1, Decimal(0)),
    ]
    for query, calls in (
        ("run=nda mining 1", 3),
        ("purpose=synthesize", 1),
        ("outcome=timeout", 1),
        (f"endpoint={teacher.pk}", 4),
        (f"endpoint={teacher.pk}&purpose=extract", 3),
        ("run=no such run", 0),
    ):
        assert get(f"/ledger/?{query}").context["totals"]["calls"] == calls, query
    assert get("/ledger/?outcome=approved").status_code == 422


def test_a_reply_is_shown_as_text(teacher: ModelEndpoint, abe: User, client_of: Callable[[User], Client]) -> None:
    call = make_call(teacher, raw_reply=HOSTILE, error=HOSTILE, outcome="malformed", run=HOSTILE)
    for url in (f"/ledger/{call.pk}/", "/ledger/"):
        page = client_of(abe).get(url).text
        assert HOSTILE not in page
        assert "&lt;script&gt;" in page
    assert client_of(abe).get(f"/ledger/{call.pk + 1}/").status_code == 404
