"""The map of a run: what is drawn, where a point leads, and the same without a picture."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from pld_app.models import User
from rules.models import Cluster, MicroRule, MiningRun
from rules.schemas import MiningParameters
from rules.selectors.mining_map import HEIGHT, TONES, WIDTH, mining_map
from rules.services import mining_map as services
from rules.services.mining import mining_run_create
from tests.factories import make_trace
from tests.mining_runs.test_stages import filled_task, mined

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser(client_of: Callable[[User], Client], ben: User) -> Client:
    return client_of(ben)


@pytest.fixture
def run() -> MiningRun:
    return mined(filled_task())


def url(run: MiningRun) -> str:
    return f"/tasks/{run.task.slug}/mining/{run.pk}/map/"


def test_every_micro_rule_is_a_mark_that_opens_its_trace(run: MiningRun, browser: Client) -> None:
    page = browser.get(url(run)).content.decode()
    marks = re.findall(r'<a class="map-\d" tabindex="-1" href="([^"]+)"><title>([^<]+)</title>', page)
    rules = {rule.trace_id: rule for rule in run.micro_rules.select_related("cluster")}
    assert sorted(href for href, _ in marks) == sorted(f"/tasks/nda/traces/{pk}/" for pk in rules)
    for href, title in marks:
        rule = rules[int(href.split("/")[-2])]
        assert rule.cluster is not None
        assert title.startswith(f"{rule.cluster.topic}. {rule.cluster.terms} · {rule.cluster.label}\n")
        assert rule.text[:20] in title
    assert "style=" not in page
    assert browser.get(marks[0][0]).status_code == 200


def test_the_shape_says_the_label_and_every_label_of_the_run_is_in_the_legend(run: MiningRun) -> None:
    drawing = mining_map(run)
    shapes = dict(drawing.shapes)
    assert shapes == {"Compliant": 0, "Breach": 1}
    label_of = dict(run.micro_rules.values_list("trace_id", "trace__label"))
    assert all(mark.shape == shapes[label_of[mark.trace_id]] for mark in drawing.marks)
    assert all(0 <= mark.x <= WIDTH and 0 <= mark.y <= HEIGHT for mark in drawing.marks)
    assert len({topic.tone for topic in drawing.topics}) == min(len(drawing.topics), TONES)


def test_the_table_holds_the_topics_with_their_counts(run: MiningRun, browser: Client) -> None:
    page = browser.get(url(run)).content.decode()
    for cluster in Cluster.objects.filter(run=run):
        assert f'<a href="?topic={cluster.topic}">{cluster.terms}</a>' in page
        assert f"{cluster.label} {cluster.size}" in page


def test_a_topic_alone_shows_its_points_and_lists_its_micro_rules(run: MiningRun, browser: Client) -> None:
    topic = Cluster.objects.filter(run=run).order_by("-topic")[0].topic
    members = run.micro_rules.filter(cluster__topic=topic)
    page = browser.get(url(run), {"topic": topic}).content.decode()
    assert len(re.findall(r'<a class="map-\d"', page)) == members.count() < run.micro_rules.count()
    assert page.count('<th scope="row" class="nowrap"><a href="/tasks/nda/traces/') == members.count()
    assert mining_map(run, topic).total == members.count()


@pytest.mark.parametrize("asked", ["999", "x", "-1", "²"])
def test_an_unknown_topic_is_not_found(run: MiningRun, browser: Client, asked: str) -> None:
    assert browser.get(url(run), {"topic": asked}).status_code == 404


def test_a_big_run_draws_a_sample_with_every_cluster_and_says_so(
    monkeypatch: pytest.MonkeyPatch, browser: Client
) -> None:
    monkeypatch.setattr(services, "MAX_DRAWN", 20)
    run = mined(filled_task())
    drawn = MicroRule.objects.filter(run=run).exclude(map_x=None)
    assert drawn.count() == 20 < run.micro_rules.count()
    assert set(drawn.values_list("cluster", flat=True)) == set(run.clusters.values_list("pk", flat=True))
    assert "A random sample" in browser.get(url(run)).content.decode()


def test_rows_to_draw_keep_the_rarest_cluster_and_repeat() -> None:
    clusters = np.array([0] * 5_000 + [1] * 3 + [-1] * 10)
    rows = services.rows_to_draw(clusters, 0)
    assert len(set(rows.tolist())) == services.MAX_DRAWN
    assert set(Counter(clusters[rows].tolist())) == {0, 1, -1}
    assert np.array_equal(rows, services.rows_to_draw(clusters, 0))


def test_a_run_without_points_says_why(browser: Client) -> None:
    waiting = mining_run_create(task=filled_task(), user=None, parameters=MiningParameters())
    assert "Not drawn yet" in browser.get(url(waiting)).content.decode()
    MiningRun.objects.filter(pk=waiting.pk).update(state="failed")
    assert "Mine again" in browser.get(url(waiting)).content.decode()


def test_text_of_a_trace_stays_text(browser: Client) -> None:
    task = filled_task()
    make_trace(task, instruction="If <script>alert(1)</script> & 'x', then label Breach.", label="Breach")
    page = browser.get(url(mined(task))).content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_queries_do_not_grow_with_the_run(browser: Client, django_assert_num_queries: Callable[..., Any]) -> None:
    task = filled_task(per_group=2)
    small = mined(task)
    for n in range(40):
        make_trace(task, instruction=f"If {n} notes on warranty stay {n % 7}, then label Unclear.", label="Unclear")
    big = mined(task)
    assert big.micro_rules.count() > 3 * small.micro_rules.count()
    few, many = url(small), url(big)
    browser.get(few)
    for query in ("", "?topic=1"):
        with CaptureQueriesContext(connection) as captured:
            browser.get(few + query)
        with django_assert_num_queries(len(captured)):
            browser.get(many + query)
