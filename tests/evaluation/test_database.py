"""What is always true of datasets, runs and predictions: attacked through the ORM and by SQL, past every service."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from evaluation.models import (
    Ablation,
    AblationItem,
    AblationResult,
    Dataset,
    DatasetState,
    EvaluationRun,
    Example,
    Prediction,
    PromptKind,
    RunGroup,
)
from evaluation.sampling import DatasetRow, dataset_hash
from evaluation.services.datasets import dataset_from_traces
from pld_app.canonical import sha256_hex
from pld_app.models import User
from rules.models import InstructionImpact, RunState, Split, Task
from tests.evaluation.scene import examples, finished_directly, make_run, measured_directly, student, work
from tests.factories import make_task, make_trace
from tests.publishing import steps
from tests.stub_server import stub_server

pytestmark = pytest.mark.django_db


def refused(attack: Callable[[], Any], words: str) -> None:
    with pytest.raises((DatabaseError, IntegrityError), match=words), transaction.atomic():
        attack()


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # TRUNCATE waits for no deferred check of its own test
        cursor.execute(statement)


@pytest.fixture
def run(task: Task) -> EvaluationRun:
    """A finished run over three examples."""
    examples(task, 3)
    with stub_server() as stub:
        student(stub.url, task)
        return work(make_run(task))


@pytest.fixture
def queued(task: Task) -> EvaluationRun:
    examples(task, 2)
    student("http://127.0.0.1:9/v1", task)
    return make_run(task)


def reading(task: Task) -> Dataset:
    return Dataset.objects.create(task=task, number=9, name="nine", source="file")


def example(dataset: Dataset, position: int, **fields: Any) -> Example:
    values: dict[str, Any] = {
        "external_id": f"e{position}",
        "split": "validation",
        "input": {"clause": str(position)},
        "label": "Breach",
        "input_sha256": sha256_hex(str(position)),
    }
    return Example.objects.create(dataset=dataset, position=position, **(values | fields))


class TestDatasets:
    def test_a_frozen_one_never_changes(self, run: EvaluationRun) -> None:
        dataset = Dataset.objects.filter(pk=run.dataset_id)
        changes: list[dict[str, Any]] = [{"sha256": "0" * 64}, {"name": "other"}, {"state": "reading"}, {"counts": {}}]
        for change in changes:
            refused(lambda change=change: dataset.update(**change), "never changes")  # type: ignore[misc]  # bound now
        refused(dataset.delete, "append-only|protected")
        refused(lambda: sql("DELETE FROM evaluation_dataset"), "append-only")
        refused(lambda: sql("TRUNCATE evaluation_dataset CASCADE"), "append-only")

    def test_nor_its_examples(self, run: EvaluationRun) -> None:
        rows = Example.objects.filter(dataset=run.dataset_id)
        refused(lambda: rows.update(label="Unclear"), "append-only")
        refused(lambda: sql("DELETE FROM evaluation_example"), "append-only")
        refused(lambda: example(run.dataset, 99), "only before it is frozen")

    def test_the_hash_is_that_of_the_examples(self, task: Task) -> None:
        dataset = reading(task)
        rows = [example(dataset, 1), example(dataset, 2, external_id="zwei\nü", split="test")]
        right = dataset_hash(DatasetRow(r.external_id, r.split, r.label, r.input_sha256) for r in rows)
        freeze = Dataset.objects.filter(pk=dataset.pk)
        now = dataset.created_at
        refused(lambda: freeze.update(state="frozen", sha256="0" * 64, frozen_at=now), "not that of the examples")
        assert freeze.update(state="frozen", sha256=right, frozen_at=now) == 1

    def test_an_input_stands_in_one_split(self, task: Task) -> None:
        dataset = reading(task)
        rows = [example(dataset, 1), example(dataset, 2, split="train", input_sha256=sha256_hex("1"))]
        right = dataset_hash(DatasetRow(r.external_id, r.split, r.label, r.input_sha256) for r in rows)
        freeze = Dataset.objects.filter(pk=dataset.pk)
        refused(lambda: freeze.update(state="frozen", sha256=right, frozen_at=dataset.created_at), "one split")

    def test_none_is_born_frozen(self, task: Task) -> None:
        values = {"task": task, "number": 1, "name": "x", "source": "file", "sha256": "0" * 64}
        refused(lambda: Dataset.objects.create(**values, state=DatasetState.FROZEN), "frozen after its examples")


class TestRuns:
    @pytest.mark.parametrize(
        "change",
        [
            {"prompt": "Say Compliant.", "prompt_sha256": sha256_hex("Say Compliant.")},
            {"prompt": "Say Compliant."},
            {"examples_sha256": "0" * 64},
            {"student_model": "another"},
            {"split": "test"},
            {"seed": 5},
            {"labels": ["Compliant"]},
            {"template": "{{clause}}"},
            {"total": 1},
            {"kind": PromptKind.MAJORITY},
        ],
    )
    def test_what_one_asks_never_changes(self, queued: EvaluationRun, change: dict[str, Any]) -> None:
        refused(lambda: EvaluationRun.objects.filter(pk=queued.pk).update(**change), "never changes|check constraint")

    def test_nor_its_dataset(self, queued: EvaluationRun) -> None:
        make_trace(queued.task)
        other = dataset_from_traces(task=queued.task, user=None)
        refused(lambda: EvaluationRun.objects.filter(pk=queued.pk).update(dataset=other), "never changes")

    def test_one_that_is_over_keeps_its_figures(self, run: EvaluationRun) -> None:
        rows = EvaluationRun.objects.filter(pk=run.pk)
        better = {**run.figures, "n": 1000}
        for change in ({"figures": better}, {"state": RunState.RUNNING}, {"error": "x"}):
            refused(lambda change=change: rows.update(**change), "that is over never changes")  # type: ignore[misc]
        refused(lambda: sql("DELETE FROM evaluation_evaluationrun"), "append-only")

    def test_states_follow_the_table(self, queued: EvaluationRun) -> None:
        rows = EvaluationRun.objects.filter(pk=queued.pk)
        refused(lambda: rows.update(state=RunState.SUCCEEDED), "cannot become")
        refused(lambda: rows.update(figures={"n": 1}), "only a run that succeeded")

    def test_one_starts_queued_with_its_own_hash_and_a_frozen_dataset(self, queued: EvaluationRun) -> None:
        queued.pk, queued.number = None, 77
        queued._state.adding = True
        for change, words in (
            ({"state": RunState.RUNNING}, "starts as queued"),
            ({"prompt_sha256": "0" * 64}, "not that of the prompt"),
            ({"dataset": reading(queued.task)}, "frozen dataset"),
            ({"task": make_task("other")}, "frozen dataset"),
        ):
            old = {name: getattr(queued, name) for name in change}
            for name, value in change.items():
                setattr(queued, name, value)
            refused(lambda: queued.save(force_insert=True), words)
            queued.pk = None
            for name, value in old.items():
                setattr(queued, name, value)

    def test_the_test_split_is_for_releases(self, task: Task, ana: User, sam: User, sue: User) -> None:
        release = steps.released(task, ana, sam, sue)
        examples(task, 2)
        examples(task, 2, split=Split.TEST)
        student("http://127.0.0.1:9/v1", task)
        base = make_run(task)
        draft = make_run(task, kind=PromptKind.DRAFT, ruleset=release.ruleset)
        bare = RunGroup.objects.create(task=task, number=1, dataset=base.dataset, split="validation")
        for n, old in enumerate((base, draft)):
            for group in (None, bare):
                old.pk, old.number, old.split, old.group = None, 90 + n, "test", group
                old._state.adding = True
                refused(lambda old=old: old.save(force_insert=True), "test split is for|share its dataset")  # type: ignore[misc]
        refused(
            lambda: RunGroup.objects.create(task=task, number=2, dataset=base.dataset, split="test"),
            "run_group_test_is_for_releases",
        )

    def test_a_release_is_evaluated_with_its_bytes(self, task: Task, ana: User, sam: User, sue: User) -> None:
        release = steps.released(task, ana, sam, sue)
        examples(task, 2)
        student("http://127.0.0.1:9/v1", task)
        run = make_run(task, kind=PromptKind.RELEASE, release=release)
        run.pk, run.number, run.prompt = None, 50, "Say Compliant."
        run.prompt_sha256 = sha256_hex(run.prompt)
        run._state.adding = True
        refused(lambda: run.save(force_insert=True), "with its own bytes")


class TestPredictions:
    def test_they_are_append_only(self, run: EvaluationRun) -> None:
        refused(lambda: run.predictions.update(label="Breach"), "append-only")
        refused(lambda: sql("DELETE FROM evaluation_prediction"), "append-only")
        refused(lambda: sql("TRUNCATE evaluation_prediction"), "append-only")

    def test_none_comes_after_the_end_or_with_another_gold_label(self, run: EvaluationRun) -> None:
        old = run.predictions.first()
        assert old is not None
        values = {"run": run, "example": old.example, "gold": old.gold, "label": "Breach"}
        refused(lambda: Prediction.objects.create(**values, repeat=1), "of an example of its running run")

    def test_each_is_of_an_example_of_its_run(self, queued: EvaluationRun, task: Task) -> None:
        EvaluationRun.objects.filter(pk=queued.pk).update(state=RunState.RUNNING)
        make_trace(task)
        other = dataset_from_traces(task=task, user=None).examples.first()
        mine = queued.dataset.examples.first()
        assert other is not None
        assert mine is not None
        for values in (
            {"example": other, "gold": other.label, "label": other.label},
            {"example": mine, "gold": "Unclear", "label": "Unclear"},
            {"example": mine, "gold": mine.label, "label": "Nonsense"},
            {"example": mine, "gold": mine.label, "label": mine.label, "repeat": 1},
        ):
            refused(
                lambda values=values: Prediction.objects.create(run=queued, **values),  # type: ignore[misc]
                "of an example of its running run",
            )


def test_templates_groups_and_checks_are_append_only(run: EvaluationRun) -> None:
    for table in ("inputtemplate", "rungroup", "datasetcheck"):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_trigger WHERE tgrelid = %s::regclass AND tgenabled = 'A'"
                " AND tgname IN ('pld_append_only', 'pld_no_truncate')",
                [f"evaluation_{table}"],
            )
            assert cursor.fetchone() == (2,)


class TestAblations:
    @pytest.fixture
    def ablation(self, task: Task, ana: User) -> Ablation:
        """Paused after the first of three instructions."""
        examples(task, 4)
        student("http://127.0.0.1:9/v1", task)
        run = make_run(task, kind=PromptKind.DRAFT, ruleset=steps.draft(task, ana))
        return measured_directly(finished_directly(run), measured=1)

    def test_what_one_asks_never_changes(self, ablation: Ablation, task: Task) -> None:
        rows = Ablation.objects.filter(pk=ablation.pk)
        other = make_run(task)
        first: list[dict[str, Any]] = [{"run": other.pk}, {"total": 1}, {"ruleset_version": 9}]
        changes = [*first, {"estimate": {}}, {"order": "picked"}]
        for change in changes:
            refused(lambda change=change: rows.update(**change), "what an ablation asks never changes")  # type: ignore[misc]  # bound now
        refused(lambda: sql("DELETE FROM evaluation_ablation"), "append-only")
        refused(lambda: sql("TRUNCATE evaluation_ablation CASCADE"), "append-only")

    def test_its_state_goes_only_forward(self, ablation: Ablation) -> None:
        rows = Ablation.objects.filter(pk=ablation.pk)
        refused(lambda: rows.update(state=RunState.SUCCEEDED), "cannot become succeeded")
        rows.update(state=RunState.CANCELLED)
        refused(lambda: rows.update(state=RunState.QUEUED), "never changes")
        refused(lambda: rows.update(max_calls=5), "never changes")

    def test_one_is_of_a_finished_run_of_its_ruleset(self, ablation: Ablation, task: Task, ana: User) -> None:
        def another(**fields: Any) -> Any:
            values = {
                name: getattr(ablation, name) for name in ("task", "run", "ruleset", "order", "total", "max_calls")
            }
            return lambda: Ablation.objects.create(number=9, ruleset_version=1, **(values | fields))

        refused(another(run=make_run(task)), "of a finished run of its ruleset")
        refused(another(ruleset=steps.again_draft(task, ana)), "of a finished run of its ruleset")
        refused(another(state=RunState.SUCCEEDED), "starts as queued")
        refused(another(calls_used=3), "starts as queued")

    def test_what_is_left_out_is_said_first(self, ablation: Ablation) -> None:
        item = ablation.items.first()
        assert item is not None
        copy = {"ablation": ablation, "position": 9, "instruction": item.instruction, "revision": item.revision}
        refused(lambda: AblationItem.objects.create(**copy, rank=9), "said before anything is asked")
        refused(lambda: AblationItem.objects.update(rank=None), "append-only")

    def test_a_result_is_of_what_a_running_one_leaves_out(self, ablation: Ablation) -> None:
        first, second = ablation.items.order_by("rank")[:2]
        refused(lambda: AblationResult.objects.create(item=second, figures={}), "its running ablation leaves out")
        rows = Ablation.objects.filter(pk=ablation.pk)
        rows.update(state=RunState.QUEUED)
        rows.update(state=RunState.RUNNING)
        wrong = {"item": second, "figures": {}, "impact": first.result.impact}
        refused(lambda: AblationResult.objects.create(**wrong), "its running ablation leaves out")
        refused(lambda: AblationResult.objects.update(figures={}), "append-only")
        refused(lambda: sql("DELETE FROM evaluation_ablationresult"), "append-only")

    def test_an_impact_adds_up_and_stays(self, ablation: Ablation) -> None:
        impact = InstructionImpact.objects.get()
        impact.pk, impact.fixed, impact.broken, impact.flipped = None, 2, 1, 2
        refused(lambda: impact.save(force_insert=True), "instruction_impact_adds_up")
        refused(lambda: InstructionImpact.objects.update(flipped=0), "append-only")
