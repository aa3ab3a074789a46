"""The figures of a run equal scikit-learn's and SciPy's."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from evaluation.metrics import (
    CallSummary,
    Metrics,
    PairedComparison,
    compare_runs,
    score_run,
    summarise_calls,
)

LABELS = ("Entailment", "Contradiction", "NotMentioned")
MALFORMED = "(malformed)"  # scikit-learn needs a name for what we call None

gold_labels = st.sampled_from(LABELS)
answers = st.none() | st.sampled_from(LABELS)
runs = st.lists(st.tuples(gold_labels, answers), min_size=1, max_size=80)
paired_runs = st.lists(st.tuples(gold_labels, answers, answers), min_size=1, max_size=80)


def named(predicted: list[str | None]) -> list[str]:
    return [MALFORMED if label is None else label for label in predicted]


@settings(deadline=None)
@given(runs)
def test_figures_equal_scikit_learn(run: list[tuple[str, str | None]]) -> None:
    gold, predicted = [g for g, _ in run], [p for _, p in run]
    figures = score_run(gold, predicted, LABELS, resamples=2)
    theirs = named(predicted)

    assert figures.n == len(run)
    assert figures.accuracy == pytest.approx(sk.accuracy_score(gold, theirs))
    assert figures.macro_f1 == pytest.approx(
        sk.f1_score(gold, theirs, labels=LABELS, average="macro", zero_division=np.nan)
    )
    precision, recall, _, support = sk.precision_recall_fscore_support(gold, theirs, labels=LABELS, zero_division=0)
    assert [score.label for score in figures.by_label] == list(LABELS)
    assert [score.precision for score in figures.by_label] == pytest.approx(precision)
    assert [score.recall for score in figures.by_label] == pytest.approx(recall)
    assert [score.support for score in figures.by_label] == support.tolist()
    f1 = sk.f1_score(gold, theirs, labels=LABELS, average=None, zero_division=np.nan)
    assert [np.nan if score.f1 is None else score.f1 for score in figures.by_label] == pytest.approx(f1, nan_ok=True)
    matrix = sk.confusion_matrix(gold, theirs, labels=[*LABELS, MALFORMED])
    assert figures.confusion.counts == tuple(tuple(row) for row in matrix[:-1].tolist())
    assert figures.malformed == predicted.count(None)
    assert figures.malformed_rate == pytest.approx(predicted.count(None) / len(run))


@settings(deadline=None)
@given(runs)
def test_figures_survive_json(run: list[tuple[str, str | None]]) -> None:
    figures = score_run([g for g, _ in run], [p for _, p in run], LABELS, resamples=20)
    assert Metrics.model_validate_json(figures.model_dump_json()) == figures


def test_a_malformed_answer_is_an_error_and_is_not_dropped() -> None:
    figures = score_run(["Entailment"] * 4, ["Entailment", None, None, None], LABELS)
    assert (figures.n, figures.accuracy, figures.malformed, figures.malformed_rate) == (4, 0.25, 3, 0.75)
    assert figures.by_label[0].recall == 0.25
    assert figures.confusion.counts[0] == (1, 0, 0, 3)


def test_a_class_never_predicted_scores_zero_and_an_absent_one_has_no_score() -> None:
    figures = score_run(["Entailment", "Contradiction"], ["Entailment", "Entailment"], LABELS)
    assert [score.f1 for score in figures.by_label] == [pytest.approx(2 / 3), 0.0, None]
    assert figures.macro_f1 == pytest.approx(1 / 3)


def seeded_run(n: int, accuracy: float) -> tuple[list[str], list[str | None]]:
    random = np.random.default_rng(7)
    gold = random.choice(LABELS, size=n, p=[0.5, 0.1, 0.4]).tolist()
    predicted = [g if random.random() < accuracy else str(random.choice(LABELS)) for g in gold]
    return gold, [None if random.random() < 0.05 else label for label in predicted]


def test_intervals_agree_with_scipy() -> None:
    gold, predicted = seeded_run(150, 0.6)
    ours = score_run(gold, predicted, LABELS, resamples=4_000)
    codes = {label: code for code, label in enumerate([*LABELS, MALFORMED])}
    data = (np.array([codes[g] for g in gold]), np.array([codes[p] for p in named(predicted)]))

    def accuracy(truth: np.ndarray, answer: np.ndarray) -> float:
        return float(np.mean(truth == answer))

    def macro_f1(truth: np.ndarray, answer: np.ndarray) -> float:
        return float(sk.f1_score(truth, answer, labels=[0, 1, 2], average="macro", zero_division=np.nan))

    for statistic, interval in ((accuracy, ours.accuracy_interval), (macro_f1, ours.macro_f1_interval)):
        theirs = stats.bootstrap(
            data, statistic, paired=True, vectorized=False, n_resamples=500, method="percentile", rng=1
        ).confidence_interval
        assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_intervals_are_seeded_and_say_their_n() -> None:
    gold, predicted = seeded_run(90, 0.7)
    one, same = (score_run(gold, predicted, LABELS, seed=3) for _ in range(2))
    other = score_run(gold, predicted, LABELS, seed=4)
    assert one == same
    assert one.macro_f1_interval != other.macro_f1_interval
    interval = one.macro_f1_interval
    assert (interval.n, interval.seed, interval.resamples, interval.level) == (90, 3, 1_000, 0.95)
    assert interval.low < one.macro_f1 < interval.high


def test_the_interval_covers_the_true_accuracy_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(11)
    covered = 0
    for seed in range(300):
        right = random.random(150) < 0.7
        predicted = ["Entailment" if ok else "Contradiction" for ok in right]
        interval = score_run(["Entailment"] * 150, predicted, LABELS, seed=seed, resamples=400).accuracy_interval
        covered += interval.low <= 0.7 <= interval.high
    assert 0.90 <= covered / 300 <= 0.99


@pytest.mark.parametrize(
    ("gold", "predicted", "labels"),
    [
        ([], [], LABELS),
        (["Entailment"], [], LABELS),
        (["Entailment"], ["Maybe"], LABELS),
        (["Maybe"], [None], LABELS),
        (["Entailment"], [None], ("Entailment", "Entailment")),
    ],
)
def test_bad_runs_are_refused(gold: list[str], predicted: list[str | None], labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"run needs|labels|label may"):
        score_run(gold, predicted, labels)


@settings(deadline=None)
@given(paired_runs)
def test_comparison_equals_scipy(run: list[tuple[str, str | None, str | None]]) -> None:
    gold, before, after = ([row[i] for row in run] for i in range(3))
    paired = compare_runs([str(g) for g in gold], before, after)
    fixed = sum(b != g and a == g for g, b, a in run)
    broken = sum(b == g and a != g for g, b, a in run)
    assert (paired.fixed, paired.broken, paired.n) == (fixed, broken, len(run))
    assert paired.fixed + paired.broken + paired.both_right + paired.both_wrong == len(run)
    if fixed + broken:
        assert paired.p_value == pytest.approx(stats.binomtest(fixed, fixed + broken, 0.5).pvalue)
    else:
        assert paired.p_value == 1.0
    scores = [sk.accuracy_score(gold, named(list(predicted))) for predicted in (before, after)]
    assert paired.accuracy_change == pytest.approx(scores[1] - scores[0])
    assert PairedComparison.model_validate_json(paired.model_dump_json()) == paired


def test_mcnemar_on_a_known_table() -> None:
    """9 fixed and 1 broken: 2 * (1 + 10) / 2**10."""
    gold = ["Entailment"] * 12
    before = [*[None] * 9, "Entailment", "Entailment", None]
    after = [*["Entailment"] * 9, None, "Entailment", None]
    paired = compare_runs(gold, before, after)
    assert (paired.fixed, paired.broken, paired.both_right, paired.both_wrong) == (9, 1, 1, 1)
    assert paired.p_value == pytest.approx(22 / 1024)


def test_unequal_or_empty_runs_are_not_compared() -> None:
    with pytest.raises(ValueError, match="argument"):
        compare_runs(["Entailment"], [None], [])
    with pytest.raises(ValueError, match="at least one"):
        compare_runs([], [], [])


calls = st.lists(
    st.tuples(st.floats(0, 1e6), st.none() | st.integers(0, 9_000), st.none() | st.integers(0, 500)), min_size=1
)


@settings(deadline=None)
@given(calls)
def test_call_summary(rows: list[tuple[float, int | None, int | None]]) -> None:
    assume(rows)
    latencies = [row[0] for row in rows]
    summary = summarise_calls(latencies, [row[1] for row in rows], [row[2] for row in rows])
    assert summary.latency_p50_ms == pytest.approx(np.median(latencies))
    assert summary.latency_p95_ms == pytest.approx(stats.scoreatpercentile(latencies, 95))
    assert summary.prompt_tokens == sum(row[1] or 0 for row in rows)
    assert summary.completion_tokens == sum(row[2] or 0 for row in rows)
    assert summary.calls_without_usage == sum(None in row for row in rows)
    assert CallSummary.model_validate_json(summary.model_dump_json()) == summary


def test_no_calls_have_no_latency() -> None:
    summary = summarise_calls([], [], [])
    assert (summary.calls, summary.latency_p50_ms, summary.latency_p95_ms) == (0, None, None)
    with pytest.raises(ValueError, match="one latency"):
        summarise_calls([1.0], [], [])
