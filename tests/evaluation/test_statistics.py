"""Statistics that hold: what is noise is reported as noise, in as many of a hundred trials as the level promises.

The trials call the metric code on the scripted student's own answers; a few go the whole way through a server, to show
that the page's figures are those of the metric code.
"""

import random
from collections import Counter

import numpy as np
import pytest

from evaluation.comparison import comparison
from evaluation.metrics import compare_runs, score_run
from evaluation.models import EvaluationRun, PromptKind
from evaluation.services.groups import group_create, group_estimate
from evaluation.services.runs import Conditions, PromptChoice
from pld_app.models import User
from rules.manifest import prompt_compile
from rules.models import Split, Task
from tests.evaluation.scene import student, work
from tests.evaluation.worlds import world_instructions, world_trace
from tests.publishing import steps
from tests.scripted_student import World, scripted_student

WORLD = World.example()
PROMPT = prompt_compile("You check clauses.", WORLD.labels, WORLD.instructions, "Answer as JSON.")
N_TEST = 300


def shuffled(pairs: list[tuple[str, str]], seed: int) -> list[tuple[str, str]]:
    """The same texts with their gold labels dealt out at random: nothing is left to learn."""
    gold = [label for _text, label in pairs]
    random.Random(seed).shuffle(gold)
    return [(text, label) for (text, _old), label in zip(pairs, gold, strict=True)]


def balanced(count: int, *, seed: int) -> list[tuple[str, str]]:
    """Examples of the world with each label equally often."""
    found: dict[str, list[tuple[str, str]]] = {label: [] for label in WORLD.labels}
    for text, gold in WORLD.examples(4 * count, seed=seed):
        if len(found[gold]) < count // len(WORLD.labels):
            found[gold].append((text, gold))
    return [pair for group in found.values() for pair in group]


def test_on_shuffled_labels_no_gain_over_the_majority_is_reported() -> None:
    """The reported gain is that of accuracy: macro-F1 of a one-label answer is low whatever the labels are."""
    texts = balanced(N_TEST, seed=7)
    said = WORLD.answers(PROMPT, [text for text, _gold in texts])
    assert compare_runs([gold for _, gold in texts], [WORLD.labels[0]] * len(texts), said).verdict == "better"
    covered = called = 0
    for seed in range(100):
        gold = [label for _text, label in shuffled(texts, seed)]
        train = Counter(label for _text, label in shuffled(texts, 1000 + seed)[: N_TEST // 2])
        majority = max(WORLD.labels, key=lambda label: train[label])
        change = compare_runs(gold, [majority] * len(gold), said, seed=seed)
        interval = change.accuracy_change_interval
        covered += interval.low <= 0 <= interval.high
        called += change.verdict != "not shown"
    assert covered >= 93
    assert called <= 7


def test_two_runs_without_a_true_difference_are_called_different_in_at_most_7_percent() -> None:
    """Each is right with the same chance, independently: 200 trials of 200 examples, at three levels of skill."""
    called = trials = covered = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        skill = (0.5, 0.7, 0.9)[seed % 3]
        gold = draw.choice(WORLD.labels, 200).tolist()
        before, after = (
            [
                label if right else WORLD.labels[(WORLD.labels.index(label) + 1) % 3]
                for label, right in zip(gold, draw.random(200) < skill, strict=True)
            ]
            for _ in range(2)
        )
        change = compare_runs(gold, before, after, seed=seed)
        trials += 1
        called += change.verdict != "not shown"
        covered += change.macro_f1_change_interval.low <= 0 <= change.macro_f1_change_interval.high
    assert called <= 0.07 * trials
    assert covered >= 0.91 * trials


def test_a_true_difference_is_called_and_its_sign_is_right() -> None:
    pairs = WORLD.examples(200, seed=4)
    gold = [label for _text, label in pairs]
    texts = [text for text, _gold in pairs]
    better = compare_runs(gold, WORLD.answers("", texts), WORLD.answers(PROMPT, texts))
    assert (better.verdict, better.macro_f1_change_interval.low > 0) == ("better", True)
    worse = compare_runs(gold, WORLD.answers(PROMPT, texts), WORLD.answers("", texts))
    assert (worse.verdict, worse.accuracy_change) == ("worse", -better.accuracy_change)


def test_the_paired_bootstrap_is_that_of_resampled_examples() -> None:
    """Drawing cells is the same as drawing examples: against a plain loop over examples, within its own noise."""
    draw = np.random.default_rng(1)
    gold = draw.choice(["A", "B", "C"], 120)
    before = np.where(draw.random(120) < 0.6, gold, "A")
    after = np.where(draw.random(120) < 0.7, gold, "B")
    change = compare_runs(gold.tolist(), before.tolist(), after.tolist(), seed=3, resamples=4000)
    plain_accuracy, plain_f1 = [], []
    for _ in range(1000):
        rows = draw.integers(0, 120, 120)
        scores = [
            score_run(gold[rows].tolist(), said[rows].tolist(), ["A", "B", "C"], resamples=1)
            for said in (before, after)
        ]
        plain_accuracy.append(scores[1].accuracy - scores[0].accuracy)
        plain_f1.append(scores[1].macro_f1 - scores[0].macro_f1)
    for found, plain in (
        (change.accuracy_change_interval, plain_accuracy),
        (change.macro_f1_change_interval, plain_f1),
    ):
        assert [found.low, found.high] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.02)


@pytest.mark.django_db
def test_through_the_server_and_the_pages_it_is_the_same(
    task: Task, ada: User, ana: User, ben: User, sam: User, sue: User
) -> None:
    """The control on the test split as an administrator runs it: release and majority baseline in one comparison."""
    texts = shuffled(balanced(60, seed=3), seed=5)
    for place, (text, gold) in enumerate(texts):
        world_trace(task, text, gold, split=Split.TEST if place % 2 else Split.TRAIN)
    world_instructions(task, ben, WORLD)
    release = steps.again(task, ana, sam, sue)
    with scripted_student(WORLD) as stub:
        endpoint = student(stub.url, task)
        chosen = {
            "prompts": [
                PromptChoice(kind=PromptKind.MAJORITY),
                PromptChoice(kind=PromptKind.RELEASE, release=release),
            ],
            "students": [endpoint],
            "conditions": Conditions(split=Split.TEST),
        }
        confirmed = group_estimate(task=task, **chosen).digest  # type: ignore[arg-type]  # one dict of several kinds
        group = group_create(task=task, user=ada, confirmed=confirmed, **chosen)  # type: ignore[arg-type]
        runs = [work(run) for run in group.runs.order_by("number")]
    found = comparison(task, runs)
    assert found is not None
    (pair,) = found.pairs
    assert pair.paired is not None
    interval = pair.paired.accuracy_change_interval
    assert interval.low <= 0 <= interval.high
    tested = [(text, gold) for place, (text, gold) in enumerate(texts) if place % 2]
    distilled = EvaluationRun.objects.get(kind=PromptKind.RELEASE)
    assert distilled.figures["metrics"]["macro_f1"] == pytest.approx(WORLD.macro_f1(release.prompt, tested))
    assert pair.paired == compare_runs(
        [gold for _, gold in tested],
        list(runs[0].predictions.order_by("example_id").values_list("label", flat=True)),
        WORLD.answers(release.prompt, [text for text, _ in tested]),
        seed=runs[0].seed,
    )
