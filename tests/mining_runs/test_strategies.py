"""Our strategy beside the paper's DBSCAN on the same vectors, checked by scikit-learn alone."""

from collections import Counter
from collections.abc import Callable
from io import StringIO

import numpy as np
import pytest
from django.core.management import call_command
from django.test import Client
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_mutual_info_score

from pld_app.models import User
from rules.mining.vectors import centre, embed_tfidf
from rules.models import MicroRule, MiningRun
from rules.services import mining_clusters
from tests.factories import make_task, make_trace
from tests.mining.support_rules import LABELS, support_rules
from tests.mining_runs.test_stages import filled_task, mined

pytestmark = pytest.mark.django_db
EPS, MIN_SAMPLES = 0.5, 5


@pytest.fixture
def browser(client_of: Callable[[User], Client], ada: User) -> Client:
    return client_of(ada)


@pytest.fixture
def support_run() -> MiningRun:
    task = make_task("support", labels=list(LABELS))
    for text, label, topic in list(zip(*support_rules(), strict=True))[:300]:
        make_trace(task, label=label, instruction=text, metadata={"yardstick": topic})
    return mined(task, eps=EPS, min_samples=MIN_SAMPLES)


def test_both_strategies_have_the_figures_of_an_independent_call(support_run: MiningRun) -> None:
    rules = list(MicroRule.objects.filter(run=support_run).select_related("trace", "cluster").order_by("trace_id"))
    topics = [rule.trace.metadata["yardstick"] for rule in rules]
    labels = [rule.trace.label for rule in rules]
    vectors = centre(embed_tfidf([rule.text for rule in rules], labels=list(LABELS)))
    noisy = DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="cosine").fit_predict(vectors)
    ours = [rule.cluster.topic for rule in rules if rule.cluster]
    theirs = support_run.figures["comparison"]
    assert theirs["topics"] == noisy.max() + 1 > 1
    assert theirs["noise"] == np.count_nonzero(noisy == -1) > 0
    assert theirs["covered_share"] == pytest.approx(np.mean(noisy >= 0))
    assert theirs["biggest_topic_share"] == pytest.approx(np.bincount(noisy[noisy >= 0]).max() / 300)
    pairs = list(map("/".join, zip(topics, labels, strict=True)))
    groups = [f"{number}/{label}" if number >= 0 else "noise" for number, label in zip(noisy, labels, strict=True)]
    assert theirs["clusters"] == len(set(groups) - {"noise"})
    assert theirs["ami_yardstick"] == pytest.approx(adjusted_mutual_info_score(topics, noisy))
    assert theirs["ami_yardstick_and_label"] == pytest.approx(adjusted_mutual_info_score(pairs, groups))
    assert theirs["agreement"] == pytest.approx(adjusted_mutual_info_score(ours, noisy))
    assert support_run.figures["ami_yardstick"] == pytest.approx(adjusted_mutual_info_score(topics, ours))
    assert support_run.figures["biggest_topic_share"] == pytest.approx(max(Counter(ours).values()) / 300)


def test_page_and_report_show_both(support_run: MiningRun, browser: Client) -> None:
    other = support_run.figures["comparison"]
    page = browser.get(f"/tasks/support/mining/{support_run.pk}/").content.decode()
    assert 'id="strategies"' in page
    assert f"{other['ami_yardstick']:.3f}" in page
    assert f"{other['agreement']:.3f}" in page
    output = StringIO()
    call_command("mining_report", str(support_run.pk), stdout=output)
    lines = dict(line.split(None, 1) for line in output.getvalue().splitlines() if len(line.split()) > 1)
    assert float(lines["comparison.agreement"]) == other["agreement"]


def test_the_comparison_can_be_left_out() -> None:
    assert mined(filled_task(), compare_dbscan=False).figures["comparison"] is None


def test_a_set_too_big_for_dbscan_says_so(monkeypatch: pytest.MonkeyPatch, browser: Client) -> None:
    monkeypatch.setattr(mining_clusters, "MAX_COMPARED", 20)
    run = mined(filled_task())
    assert run.figures["comparison"] == {"method": "dbscan", "left_out": 20}
    page = browser.get(f"/tasks/{run.task.slug}/mining/{run.pk}/").content.decode()
    assert "above 20 micro-rules" in page
