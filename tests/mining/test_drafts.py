from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score

from rules.mining.arrays import unit_rows
from rules.mining.clusters import ClusterParameters, cluster_microrules
from rules.mining.drafts import draft_instruction, supporting_and_contradicting
from rules.mining.names import topic_terms
from rules.mining.projection import project
from rules.mining.report import clustering_figures
from rules.mining.vectors import centre, embed_tfidf
from tests.mining.conftest import LabelledTexts
from tests.mining.generated import generated_vectors

LABELS = ["Pass", "Fail"]
RETURN = [
    "If all copies must be returned at the end, then label Pass.",
    "If all copies must be returned at the very end, then label Pass for return.",
    "If all copies must be returned or destroyed at the end, label Pass.",
    "If copies go back after a written demand by the owner, label Pass; a call is not enough.",
    "If backup tapes are wiped within ninety days, label Pass.",
]


def test_draft_is_the_medoid_and_the_conditions_of_others() -> None:
    draft = draft_instruction(RETURN, embed_tfidf(RETURN, labels=LABELS), labels=LABELS, max_conditions=2)
    assert draft.cited == [draft.medoid, *draft.conditions]
    assert draft.medoid in {0, 1, 2}
    assert set(draft.conditions) == {3, 4}
    assert draft.text.startswith(RETURN[draft.medoid])
    assert "Also applies where: " in draft.text
    assert "copies go back after a written demand by the owner" in draft.text
    assert "backup tapes are wiped within ninety days" in draft.text
    assert draft.text.count("label Pass") == 1


def test_draft_of_one_or_of_equals_is_the_text_itself() -> None:
    for texts in (["Copies  stay."], ["Copies stay."] * 4):
        draft = draft_instruction(texts, embed_tfidf(texts), labels=LABELS)
        assert (draft.text, draft.cited, draft.conditions) == ("Copies stay.", [0], [])


def test_draft_says_no_condition_twice() -> None:
    texts = ["If notes stay, label Pass.", "If copies go, label Pass.", "If Copies GO: label Pass for all."]
    draft = draft_instruction(texts, unit_rows(np.eye(3)), labels=LABELS)
    assert draft.text == "If notes stay, label Pass. Also applies where: copies go."


def test_no_texts_have_no_draft() -> None:
    with pytest.raises(ValueError, match="at least one text"):
        draft_instruction([], np.zeros((0, 3), dtype=np.float32))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=25), st.integers(0, 4))
def test_draft_of_any_texts_cites_valid_distinct_members(texts: list[str], most: int) -> None:
    vectors = embed_tfidf(texts)
    draft = draft_instruction(texts, vectors, max_conditions=most)
    assert len(set(draft.cited)) == len(draft.cited) <= most + 1
    assert set(draft.cited) <= set(range(len(texts)))
    assert draft == draft_instruction(texts, vectors, max_conditions=most)


def test_evidence_is_ranked_by_nearness_within_the_topic() -> None:
    angles = np.radians([0, 10, 50, 5, 80, 1, 20])
    vectors = unit_rows(np.column_stack([np.cos(angles), np.sin(angles)]))
    topics = np.array([0, 0, 0, 0, 0, 1, 0])
    labels = ["Pass", "Pass", "Pass", "Fail", "Fail", "Fail", "Fail"]
    evidence = supporting_and_contradicting(vectors, topics, labels, topic=0, label="Pass", k=3)
    assert evidence.supporting == [1, 0, 2]  # their mean lies near 19 degrees
    assert evidence.contradicting == [6, 3, 4]
    assert len(supporting_and_contradicting(vectors, topics, labels, topic=0, label="Pass", k=1).contradicting) == 1
    assert supporting_and_contradicting(vectors, topics, labels, topic=7, label="Pass").supporting == []


def test_topics_are_named_by_their_distinctive_words() -> None:
    texts = [
        "Return the copies, label Pass",
        "returned copies of the agreement",
        "Hiring staff of the agreement",
        "hire staff",
    ]
    names = topic_terms([*texts, "noise"], np.array([0, 0, 1, 1, -1]), k=2, labels=LABELS)
    assert names[0] == ["copies", "return"]
    assert names[1][0] == "staff"
    assert set(names) == {0, 1}
    assert topic_terms(["the of"], np.array([0])) == {0: []}


def test_figures_equal_an_independent_count() -> None:
    topics, clusters = np.array([0, 0, 0, 1, -1]), np.array([0, 0, 1, 2, -1])
    labels, truth = ["a", "a", "b", "a", "b"], ["x", "x", "x", "y", "y"]
    figures = clustering_figures(topics, clusters, labels, truth)
    assert (figures.rows, figures.topics, figures.clusters) == (5, 2, 3)
    assert (figures.covered_share, figures.biggest_topic_share) == (0.8, 0.6)
    assert (figures.topic_sizes, figures.cluster_sizes) == ((3, 1), (2, 1, 1))
    assert figures.ami_yardstick == pytest.approx(adjusted_mutual_info_score(truth, topics))
    assert figures.ami_yardstick_and_label == pytest.approx(
        adjusted_mutual_info_score(["xa", "xa", "xb", "ya", "yb"], clusters)
    )
    assert json.loads(json.dumps(figures.as_json()))["topic_sizes"] == [3, 1]


def test_figures_without_yardstick_or_rows() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    figures = clustering_figures(nothing, nothing, [])
    assert (figures.rows, figures.covered_share, figures.ami_yardstick) == (0, 0.0, None)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50])
def test_projection_is_flat_bounded_and_deterministic(n: int) -> None:
    vectors = generated_vectors(n, topics=3, dimensions=10)[0]
    points = project(vectors)
    assert points.shape == (n, 2)
    assert np.abs(points).max(initial=0) <= 1 + 1e-6
    assert np.array_equal(points, project(vectors))
    assert not project(np.ones((n, 4), dtype=np.float32)).any()


def test_contract_nli_groups_of_six_are_cited_under_their_label(contract_nli: LabelledTexts) -> None:
    """The miner never sees the questions, yet drafts cite every (question, label) group of 6 under its label."""
    data = contract_nli
    vectors = centre(embed_tfidf(data.texts, labels=data.label_names))
    clustering = cluster_microrules(vectors, data.labels, ClusterParameters())
    cited = set()
    for cluster in range(len(clustering.cluster_sizes)):
        rows = np.flatnonzero(clustering.clusters == cluster)
        draft = draft_instruction([data.texts[row] for row in rows], vectors[rows], labels=data.label_names)
        assert len({data.labels[row] for row in rows}) == 1
        assert draft.text.startswith(" ".join(data.texts[rows[draft.medoid]].split()).rstrip("."))
        cited |= {(data.questions[row], data.labels[row]) for row in rows[draft.cited]}
    groups = Counter(zip(data.questions, data.labels, strict=True))
    assert {group for group, size in groups.items() if size >= 6} <= cited
