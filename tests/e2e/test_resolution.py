"""A loop of conflict resolution in a real browser: its pages with something in them, and the card it leads to."""

from collections.abc import Callable

import pytest
from django.test import Client

from pld_app.models import User
from rules.models import Task, TextProposal
from tests.e2e.conftest import Person
from tests.e2e.test_accessibility import Visitor
from tests.evaluation.resolution_scene import round_of, scene_in, turn
from tests.evaluation.scene import make_run

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_its_pages_and_the_card_beside_its_examples_are_accessible(
    task: Task, ada: User, ana: User, ben: User, client_of: Callable[[User], Client], request: pytest.FixtureRequest
) -> None:
    with scene_in(task, ana, ben) as scene:
        make_run(task, ada)
        loop = turn(scene.loop(ada))
    # Only now: where Playwright is at work, no event loop of a server can run.
    person: Callable[..., Person] = request.getfixturevalue("person")
    proposal = TextProposal.objects.get()
    uncovered = round_of(loop).groups.get(instruction=None)
    base = "/tasks/nda/evaluation/loops/"
    card = f"/tasks/nda/review/{proposal.instruction.number}/"
    visitor = Visitor(person(), client_of(ana))
    pages = [base, f"{base}1/", f"{base}1/groups/{uncovered.pk}/", card]
    found = {path: visitor.faults_of(path) for path in pages}
    page = visitor.page
    page.goto(visitor.base + f"{base}1/")
    page.get_by_role("link", name=f"Compare and decide on #{proposal.instruction.number}").click()
    page.get_by_role("heading", name="Proposed by conflict resolution").wait_for()
    page.get_by_role("heading", name="Measured examples").wait_for()
    page.get_by_role("button", name="Dismiss the proposal").click()
    page.get_by_text("the same proposal does not come again").wait_for()
    assert {path: faults for path, faults in found.items() if faults} == {}
