"""The map in a real browser: accessible, readable on a phone, and a point opens its trace."""

from collections.abc import Callable

import pytest
from django.conf import settings
from django.test import Client

from pld_app.models import Role
from tests.e2e.conftest import Person
from tests.e2e.test_accessibility import PHONE, Visitor
from tests.factories import make_user
from tests.mining_runs.test_stages import filled_task, mined

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_map_is_accessible_and_a_point_opens_its_trace(person: Callable[..., Person]) -> None:
    run = mined(filled_task())
    client = Client()
    client.force_login(make_user("abel", Role.AUDITOR))
    assert settings.SESSION_COOKIE_NAME in client.cookies
    auditor = person()
    visitor = Visitor(auditor, client)
    map_path = f"/tasks/nda/mining/{run.pk}/map/"
    for path in (map_path, f"{map_path}?topic=1", f"/tasks/nda/mining/{run.pk}/"):
        assert visitor.faults_of(path) == [], path

    page = auditor.open(map_path)
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]  # Playwright's own typed dict
    number = page.locator(".map-number").first.bounding_box()
    assert number is not None
    assert number["height"] >= 10
    page.locator(".table a").first.click()
    page.wait_for_url("**?topic=1")
    point = page.locator(".map a").first
    address = point.get_attribute("href")
    point.click()
    page.wait_for_url(f"**{address}")


def test_points_are_no_tab_stops_but_topics_are(person: Callable[..., Person]) -> None:
    run = mined(filled_task())
    make_user("abel", Role.AUDITOR)
    page = person("abel").open(f"/tasks/nda/mining/{run.pk}/map/")
    page.evaluate("() => document.querySelector('#content').focus()")
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("() => document.activeElement.getAttribute('href') || ''"))
    assert "?topic=1" in seen
    assert not [href for href in seen if "/traces/" in href]
