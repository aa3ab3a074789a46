"""The nearest rules on a card: kept once a mining run, shown with both texts, renewed without a trace of the old."""

from collections.abc import Callable

from django.test import Client

from pld_app.models import User
from rules.models import NearDuplicate, SimilarRule, Task
from rules.services.mining_similar import similar_refresh
from tests import factories

type ClientOf = Callable[[User], Client]


def test_the_card_shows_the_nearest_rules_with_their_texts(task: Task, ana: User, client_of: ClientOf) -> None:
    texts = ["If copies may be kept after the end, then label Compliant.", "If notice is late, then label Breach."]
    first = factories.make_instruction(task, texts[0])
    factories.make_instruction(task, texts[0].replace("Compliant", "Breach"), label="Breach")
    factories.make_instruction(task, texts[0].replace("may be", "are"))
    factories.make_instruction(task, texts[1], label="Breach")
    assert similar_refresh(task) == similar_refresh(task) == 6
    kinds = set(SimilarRule.objects.filter(instruction=first).values_list("other__number", "kind"))
    assert kinds == {(2, "contradicts"), (3, "duplicate")}
    assert set(NearDuplicate.objects.values_list("instruction__number", "family")) == {(1, 1), (3, 1)}
    page = client_of(ana).get(f"/tasks/nda/review/{first.number}/").text
    assert "Nearest rule" in page
    assert "Contradicts" in page
    assert "If copies are kept after the end" in page
    assert "If notice is late" not in page
