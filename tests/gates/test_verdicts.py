"""Each gate passes and fails exactly at its threshold, on figures that are known to be true of the scripted student."""

from decimal import ROUND_DOWN, Decimal

import pytest

from evaluation.gates import six
from evaluation.metrics import compare_runs
from evaluation.models import EvaluationRun
from evaluation.services.judging import task_judge
from pld_app.errors import InvalidInput, WrongState
from pld_app.models import User
from rules.models import ChannelName, GateVerdict, Instruction, Release, Task
from rules.selectors.gates import publish_refusal, standing
from rules.selectors.publishing import current_release
from tests.factories import audit_actions
from tests.gates.scene import (
    WORLD,
    N,
    dataset_of,
    evaluated,
    gates,
    proposed,
    released,
    run_of,
    student_set,
    students_task,
)
from tests.publishing import steps
from tests.scripted_student import World

PRODUCTION = ChannelName.PRODUCTION
HALF = WORLD.instructions[:4]


def newest(release: Release) -> GateVerdict:
    found = GateVerdict.objects.filter(ruleset=release.ruleset).order_by("-pk").first()
    assert found is not None
    return found


def outcomes(release: Release) -> dict[str, str]:
    return {f"{one['gate']} {one['label']}".strip(): one["outcome"] for one in newest(release).results}


def publish(release: Release, actor: User) -> None:
    steps.publish(release, actor, PRODUCTION)


class TestEachGateAtItsThreshold:
    """The threshold is set to the true figure (it passes) and one step beyond it (it fails)."""

    def test_macro_f1_is_the_true_one_and_passes_exactly_from_there(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        with students_task(task) as examples:
            release = released(task, ana, sam, sue, HALF)
            true = WORLD.macro_f1(release.prompt, examples)
            step = Decimal("0.001")
            below = Decimal(repr(true)).quantize(step, ROUND_DOWN)
            gates(task, min_macro_f1=below)
            evaluated(release)
            assert newest(release).results[0]["value"] == six(true)
            assert outcomes(release) == {"macro_f1": "passed"}
            gates(task, min_macro_f1=below + step)
            task_judge(task)
            assert outcomes(release) == {"macro_f1": "failed"}
            with pytest.raises(WrongState, match="does not pass every gate"):
                publish(release, sam)

    def test_a_perfect_prompt_passes_a_floor_of_one(self, task: Task, ana: User, sam: User, sue: User) -> None:
        with students_task(task):
            release = released(task, ana, sam, sue)
            gates(task, min_macro_f1=Decimal(1), label_floors=dict.fromkeys(WORLD.labels, "1"))
            evaluated(release)
            assert set(outcomes(release).values()) == {"passed"}
            publish(release, sam)
        assert current_release(task, PRODUCTION) == release

    def test_malformed_answers_at_the_very_share_pass_and_one_more_fails(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        world = World.example(malformed_rate=0.25)
        with students_task(task, world, n=50) as examples:
            release = released(task, ana, sam, sue, world=world)
            broken = sum(one is None for one in world.answers(release.prompt, [text for text, _ in examples]))
            assert 0 < broken < 50
            gates(task, max_malformed_rate=Decimal(broken) / 50)
            evaluated(release)
            assert newest(release).results[0]["value"] == six(broken / 50)
            assert outcomes(release) == {"malformed": "passed"}
            gates(task, max_malformed_rate=Decimal(broken) / 50 - Decimal("0.001"))
            task_judge(task)
            assert outcomes(release) == {"malformed": "failed"}

    def test_the_tokens_of_the_prompt(self, task: Task, ana: User, sam: User, sue: User) -> None:
        with students_task(task):
            release = released(task, ana, sam, sue)
            gates(task, max_prompt_tokens=1)
            evaluated(release)
            assert outcomes(release) == {"prompt_tokens": "failed"}
            tokens = int(newest(release).results[0]["value"])
            gates(task, max_prompt_tokens=tokens)
            task_judge(task)
            assert outcomes(release) == {"prompt_tokens": "passed"}
            gates(task, max_prompt_tokens=tokens - 1)
            task_judge(task)
            assert outcomes(release) == {"prompt_tokens": "failed"}

    def test_a_floor_for_each_label_is_its_own(self, task: Task, ana: User, sam: User, sue: User) -> None:
        """HALF knows nothing of Unclear: that label fails alone, though the mean is fair."""
        with students_task(task):
            release = released(task, ana, sam, sue, HALF)
            gates(task, label_floors={"Compliant": "0.1", "Unclear": "0.1"})
            evaluated(release)
            assert outcomes(release) == {"label_f1 Compliant": "passed", "label_f1 Unclear": "failed"}

    def test_a_drop_is_bounded_at_the_lower_end_of_its_paired_interval(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        with students_task(task) as examples:
            first = released(task, ana, sam, sue)
            publish(first, sam)
            run_of(first)
            second = released(task, ana, sam, sue, WORLD.instructions[:7])
            gold = [label for _text, label in examples]
            texts = [text for text, _label in examples]
            old, new = WORLD.answers(first.prompt, texts), WORLD.answers(second.prompt, texts)
            true = compare_runs(gold, old, new)
            assert true.macro_f1_change < 0
            step = Decimal("0.001")
            least = -Decimal(six(true.macro_f1_change_interval.low))
            within = (least / step).to_integral_value("ROUND_CEILING") * step
            gates(task, max_drop=within)
            evaluated(second)
            said = newest(second).results[0]
            assert (said["value"], said["low"]) == (
                six(true.macro_f1_change),
                six(true.macro_f1_change_interval.low),
            )
            assert outcomes(second) == {"drop": "passed"}
            gates(task, max_drop=within - step)
            task_judge(task)
            # The estimate alone would be within the threshold: what cannot be ruled out does not pass.
            assert -true.macro_f1_change < float(within - step)
            assert outcomes(second) == {"drop": "failed"}


class TestNothingShownIsNotPassed:
    def test_without_a_run_nothing_is_published(self, task: Task, ana: User, sam: User, sue: User) -> None:
        with students_task(task):
            release = released(task, ana, sam, sue)
            gates(task, min_macro_f1=Decimal("0.001"))
            with pytest.raises(WrongState, match="Nothing is shown yet"):
                publish(release, sam)
        assert standing(release.ruleset).verdict is None  # type: ignore[union-attr]

    def test_too_few_examples_show_nothing(self, task: Task, ana: User, sam: User, sue: User) -> None:
        with students_task(task):
            release = released(task, ana, sam, sue)
            gates(task, min_macro_f1=Decimal("0.1"), minimum_n=N)
            evaluated(release)
            assert outcomes(release) == {"macro_f1": "passed"}
        with pytest.raises(InvalidInput, match="The split holds 60 examples"):
            proposed(task, min_macro_f1=Decimal("0.1"), minimum_n=N + 1)

    def test_a_sample_an_older_prompt_another_split_or_model_say_nothing(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        with students_task(task):
            release = released(task, ana, sam, sue)
            gates(task, min_macro_f1=Decimal("0.1"))
            evaluated(release, sample_size=10)
            assert not GateVerdict.objects.exists()
            evaluated(release)
            assert publish_refusal(release, PRODUCTION) == ""
            student_set(task, model="stub-2")
            assert "changed from stub-1 to stub-2" in publish_refusal(release, PRODUCTION)
            with pytest.raises(WrongState):
                publish(release, sam)

    def test_a_drop_without_a_run_of_production_is_not_shown(self, task: Task, ana: User, sam: User, sue: User) -> None:
        with students_task(task):
            first = released(task, ana, sam, sue)
            publish(first, sam)
            second = released(task, ana, sam, sue, HALF)
            gates(task, max_drop=Decimal("0.9"))
            evaluated(second)
            assert outcomes(second) == {"drop": "not_shown"}
            assert not newest(second).passed
            run_of(first)
            task_judge(task)
            assert outcomes(second) == {"drop": "passed"}

    def test_with_nothing_in_production_there_is_no_drop_and_the_row_says_so(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        with students_task(task):
            release = released(task, ana, sam, sue, HALF)
            gates(task, max_drop=Decimal(0))
            evaluated(release)
            assert "nothing to drop from" in newest(release).results[0]["why"]
            publish(release, sam)

    def test_a_drop_is_judged_again_when_production_serves_another_release(
        self, task: Task, ana: User, sam: User, sue: User
    ) -> None:
        with students_task(task):
            weak = released(task, ana, sam, sue, HALF[:1])
            publish(weak, sam)
            strong, middle = released(task, ana, sam, sue), released(task, ana, sam, sue, HALF)
            for release in (weak, strong, middle):
                run_of(release)
            gates(task, max_drop=Decimal("0.05"))
            task_judge(task)
            assert outcomes(middle) == {"drop": "passed"}
            publish(strong, sam)
            assert "another release than the one it was compared with" in publish_refusal(middle, PRODUCTION)
            task_judge(task)
            assert outcomes(middle) == {"drop": "failed"}


def test_judging_again_writes_nothing_and_each_verdict_has_its_event(
    task: Task, ana: User, sam: User, sue: User
) -> None:
    with students_task(task):
        release = released(task, ana, sam, sue)
        gates(task, min_macro_f1=Decimal("0.9"))
        run: EvaluationRun = evaluated(release)
        task_judge(task)
        assert GateVerdict.objects.count() == 1
        assert audit_actions(release.ruleset).count("gates.judged") == 1
        verdict = newest(release)
        assert (verdict.run_id, verdict.run_number, verdict.n) == (run.pk, run.number, N)
        assert (verdict.dataset_sha256, verdict.student_model) == (dataset_of(task).sha256, "stub-1")


def test_the_newest_run_counts_and_a_failure_is_not_forgotten_by_an_older_pass(
    task: Task, ana: User, sam: User, sue: User
) -> None:
    good, bad = WORLD, World.example(error_rate=0.9)
    with students_task(task, good):
        release = released(task, ana, sam, sue)
        gates(task, min_macro_f1=Decimal("0.9"))
        evaluated(release)
        assert newest(release).passed
    from tests.scripted_student import scripted_student

    with scripted_student(bad) as stub:
        student_set(task, base_url=stub.url)
        evaluated(release)
    assert not newest(release).passed
    with pytest.raises(WrongState, match="does not pass every gate"):
        publish(release, sam)


def test_no_gate_is_set_by_default_and_publishing_works_as_ever(task: Task, ana: User, sam: User, sue: User) -> None:
    release = steps.in_production(task, ana, sam, sue)
    assert standing(release.ruleset) is None
    assert Instruction.objects.filter(task=task).exists()
