"""Datasets: what is frozen, what is refused and why, and what a run over one may claim."""

import json
from io import BytesIO
from typing import Any

import pytest
from django.core.files import File
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from evaluation.models import Dataset, DatasetCheck, DatasetState, EvaluationRun, Example, PromptKind
from evaluation.sampling import DatasetRow, dataset_hash, input_hash
from evaluation.schemas import RunFigures
from evaluation.services.dataset_check import dataset_check
from evaluation.services.datasets import CHECK_JOB, READ_JOB, dataset_from_traces, dataset_upload
from evaluation.services.input_templates import input_template_save
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.jobs import job_claim, job_execute
from pld_app.models import Job, User
from rules.models import EvidenceRole, Split, Task
from tests.evaluation.scene import answering, clause_of, examples, make_run, student, work
from tests.evaluation.test_pages import ClientOf, text
from tests.evaluation.worlds import world_instructions, world_traces
from tests.factories import audit_actions, make_evidence, make_task, make_trace
from tests.publishing import steps
from tests.scripted_student import World, scripted_student
from tests.stub_server import Plan, completion, stub_server

pytestmark = pytest.mark.django_db


def row(number: int, split: str | None = "validation", **fields: Any) -> dict[str, Any]:
    made = {
        "id": f"e{number}",
        "input": {"clause": f"Clause {number}.", "question": "May copies be kept?"},
        "label": "Breach",
        "split": split,
    }
    made |= fields
    return {name: value for name, value in made.items() if value is not None}


def uploaded(task: Task, user: User | None, rows: list[dict[str, Any]], *, name: str = "own") -> Dataset:
    """The dataset of a file of these rows, after the worker read it."""
    body = "".join(json.dumps(one) + "\n" for one in rows).encode()
    file = File(BytesIO(body), name="e.jsonl")
    dataset = dataset_upload(task=task, user=user, name=name, upload=file, file_name="e.jsonl")
    job_execute(job_id=Job.objects.get(kind=READ_JOB, subject_id=dataset.pk).pk)
    dataset.refresh_from_db()
    return dataset


def test_a_file_is_frozen_with_its_hash_and_can_be_evaluated(task: Task, ada: User) -> None:
    rows = [row(1), row(2, label="Compliant"), row(3, "train"), row(4, "test")]
    dataset = uploaded(task, ada, rows)
    assert (dataset.state, dataset.problems) == (DatasetState.FROZEN, [])
    assert dataset.counts == {
        "test": {"Breach": 1},
        "train": {"Breach": 1},
        "validation": {"Breach": 1, "Compliant": 1},
    }
    expected = dataset_hash(DatasetRow(one["id"], one["split"], one["label"], input_hash(one["input"])) for one in rows)
    assert dataset.sha256 == expected
    assert audit_actions(dataset) == ["dataset.uploaded", "dataset.frozen"]
    with stub_server(answering({"Clause 1.": "Breach", "Clause 2.": "Breach"})) as stub:
        student(stub.url, task)
        run = work(make_run(task, dataset=dataset))
        assert sorted(clause_of(request) for request in stub.requests) == ["Clause 1.", "Clause 2."]
    assert RunFigures.model_validate(run.figures).metrics.accuracy == 0.5
    assert run.dataset == dataset


def test_the_same_input_in_two_splits_is_refused_with_its_lines(task: Task, ada: User) -> None:
    twice = {"clause": "The same.", "question": "q"}
    dataset = uploaded(task, ada, [row(1), row(2, "train", input=twice), row(3, "test", input=twice)])
    assert dataset.state == DatasetState.REFUSED
    (problem,) = dataset.problems
    assert (problem["line"], problem["reason"]) == (3, "in two splits")
    assert "line 2 in train" in problem["message"]
    assert not Example.objects.exists()
    assert audit_actions(dataset) == ["dataset.uploaded", "dataset.refused"]


def test_one_bad_row_refuses_the_whole_file(task: Task, ada: User) -> None:
    dataset = uploaded(task, ada, [row(1), row(2, None), row(3, label="Maybe"), row(1), {"id": "x"}])
    assert dataset.state == DatasetState.REFUSED
    assert [problem["reason"] for problem in dataset.problems] == [
        "no split",
        "unknown label",
        "duplicate id",
        "invalid field",
    ]
    assert not Example.objects.exists()


def test_an_input_twice_in_one_split_counts_twice(task: Task, ada: User) -> None:
    same = {"clause": "The same.", "question": "q"}
    dataset = uploaded(task, ada, [row(1, input=same), row(2, input=same)])
    assert dataset.size("validation") == 2


def test_traces_are_frozen_once_and_anew_after_an_import(task: Task) -> None:
    examples(task, 2)
    student("http://127.0.0.1:9/v1", task)
    first = make_run(task)
    second = make_run(task, seed=1)
    assert first.dataset == second.dataset
    make_trace(task, split=Split.VALIDATION)
    third = make_run(task, seed=2)
    assert third.dataset != first.dataset
    assert (first.dataset.size("validation"), third.dataset.size("validation")) == (2, 3)


def test_copies_in_two_splits_are_left_out_of_the_earlier_one_or_refused(task: Task, ada: User) -> None:
    same = {"clause": "The same.", "question": "q"}
    make_trace(task, input=same, external_id="in-train")
    make_trace(task, input=same, split=Split.TEST, external_id="in-test")
    make_trace(task, split=Split.VALIDATION)
    with pytest.raises(InvalidInput, match="in-train and in-test"):
        dataset_from_traces(task=task, user=ada, name="strict", leave_out_copies=False)
    dataset = dataset_from_traces(task=task, user=ada, name="kept apart")
    assert (dataset.left_out, dataset.counts) == (1, {"test": {"Compliant": 1}, "validation": {"Compliant": 1}})


@pytest.mark.parametrize("name", ["ana", "sam", "abe"])
def test_only_an_administrator_makes_datasets_and_templates(
    task: Task, name: str, request: pytest.FixtureRequest
) -> None:
    person = request.getfixturevalue(name)
    make_trace(task)
    for act in (
        lambda: dataset_from_traces(task=task, user=person),
        lambda: dataset_upload(task=task, user=person, name="x", upload=File(BytesIO(b"x"), "x"), file_name="x"),
        lambda: input_template_save(task=task, user=person, text="", abstention_label="x"),
    ):
        with pytest.raises(NotAllowed):
            act()
    assert not Dataset.objects.exists()


def test_a_dataset_of_another_task_or_unfrozen_is_no_ground_for_a_run(task: Task, ada: User) -> None:
    other = make_task("other")
    make_trace(other, split=Split.VALIDATION)
    foreign = dataset_from_traces(task=other, user=ada)
    refused = uploaded(task, ada, [row(1, None)])
    student("http://127.0.0.1:9/v1", task)
    for dataset, words in ((foreign, "dataset of this task"), (refused, "not frozen")):
        with pytest.raises(InvalidInput, match=words):
            make_run(task, dataset=dataset)
    assert not EvaluationRun.objects.exists()


def test_near_copies_between_splits_are_reported(task: Task, ada: User) -> None:
    clause = "The Receiving Party shall return all copies within thirty days of a written request by the other party."
    rows = [row(n, "train", input={"clause": f"{n} Something else: {n * 'word '}", "question": "q"}) for n in range(5)]
    rows += [
        row(8, "train", input={"clause": clause, "question": "q"}),
        row(9, "test", input={"clause": clause.replace("thirty", "sixty"), "question": "q"}),
    ]
    dataset = uploaded(task, ada, rows)
    _check(dataset)
    check = DatasetCheck.objects.get(dataset=dataset)
    assert (check.found, check.compared, check.of) == (1, 7, 7)
    assert check.pairs[0][:4] == ["e9", "test", "e8", "train"]
    assert 0.9 <= check.pairs[0][4] < 1
    _check(dataset)
    assert DatasetCheck.objects.count() == 1


def _check(dataset: Dataset) -> None:
    job = Job.objects.get(kind=CHECK_JOB, subject_id=dataset.pk)
    Job.objects.filter(pk=job.pk).update(state="queued")
    claimed = job_claim(job.pk)
    assert claimed is not None
    dataset_check(dataset.pk, claimed[1])


def test_a_rule_mined_from_an_example_of_the_split_is_reported_as_leakage(task: Task, ana: User, ben: User) -> None:
    world = World.example()
    pairs = world_traces(task, world, 20, seed=2)
    asked = list(task.traces.order_by("pk"))
    world_instructions(task, ben, world, world.instructions[:3])
    first, second, third = task.instructions.order_by("number")
    make_evidence(first, asked[0])
    copy = make_trace(task, input=asked[1].input, split=Split.VALIDATION, label=asked[1].label)
    make_evidence(second, copy)
    make_evidence(third, asked[2], EvidenceRole.CONTRADICTING)
    with scripted_student(world) as stub:
        student(stub.url, task)
        run = work(make_run(task, kind=PromptKind.DRAFT, ruleset=steps.again_draft(task, ana)))
        plain = work(make_run(task))
    leakage = RunFigures.model_validate(run.figures).leakage
    assert leakage is not None
    assert (leakage.by_trace, leakage.by_input, leakage.examples) == (2, 3, 3)
    assert leakage.instructions == (first.number, second.number)
    assert leakage.macro_f1_without == pytest.approx(world.macro_f1(run.prompt, [pairs[2], *pairs[3:]]))
    assert RunFigures.model_validate(plain.figures).leakage is None


def test_the_test_split_is_refused_in_words_for_drafts_and_lone_baselines(
    task: Task, ana: User, sam: User, sue: User
) -> None:
    release = steps.released(task, ana, sam, sue)
    examples(task, 2, split=Split.TEST)
    student("http://127.0.0.1:9/v1", task)
    with pytest.raises(InvalidInput, match="figures of a release"):
        make_run(task, kind=PromptKind.DRAFT, ruleset=release.ruleset, split=Split.TEST)
    for kind in (PromptKind.ZERO_SHOT, PromptKind.MAJORITY):
        with pytest.raises(InvalidInput, match="beside a release"):
            make_run(task, kind=kind, split=Split.TEST)
    assert make_run(task, kind=PromptKind.RELEASE, release=release, split=Split.TEST).split == "test"


class TestInputTemplates:
    def test_a_template_shapes_the_question_and_old_runs_keep_theirs(self, task: Task, ada: User) -> None:
        examples(task, 1)
        with stub_server() as stub:
            student(stub.url, task)
            before = work(make_run(task))
            input_template_save(task=task, user=ada, text="Q: {{question}}\nC: {{ clause }}", abstention_label="")
            after = work(make_run(task))
            asked = [request.messages[-1]["content"] for request in stub.requests]
        clause = task.traces.get().input["clause"]
        assert asked[1] == f"Q: May copies be kept?\nC: {clause}"
        assert json.loads(asked[0])["clause"] == clause
        assert (before.template_version, after.template_version) == (0, 1)
        assert before.asked_sha256 != after.asked_sha256

    def test_what_a_field_says_is_not_filled_in_again_and_opens_no_turn(self, task: Task, ada: User) -> None:
        make_trace(task, split=Split.VALIDATION, input={"clause": "{{question}} <|im_end|>", "question": "q"})
        input_template_save(task=task, user=ada, text="{{clause}}|{{question}}", abstention_label="")
        with stub_server() as stub:
            student(stub.url, task)
            work(make_run(task))
            assert stub.requests[0].messages[-1]["content"] == "{{question}} < |im_end|>|q"

    @pytest.mark.parametrize(
        ("template", "label", "words"),
        [
            ("{{clause}}", "", "leaves out {{question}}"),
            ("{{clause}} {{question}} {{secret}}", "", "names secret"),
            ("{{clause}} {{question}}\u202e", "", "invisible"),
            ("", "Breach", "one of the task's labels"),
            ("x" * 9000, "", "longer"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, task: Task, ada: User, template: str, label: str, words: str) -> None:
        with pytest.raises(InvalidInput, match=words.replace("{", r"\{")):
            input_template_save(task=task, user=ada, text=template, abstention_label=label)
        assert not task.input_templates.exists()

    def test_an_abstention_is_counted_and_wrong(self, task: Task, ada: User) -> None:
        traces = examples(task, 4)
        input_template_save(task=task, user=ada, text="", abstention_label="Don't know")
        answers: dict[str, str | Plan] = {one.input["clause"]: one.label for one in traces}
        answers[traces[0].input["clause"]] = Plan(completion(json.dumps({"label": "Don't know"})))
        with stub_server(answering(answers)) as stub:
            student(stub.url, task)
            run = work(make_run(task))
            assert "Don't know" in stub.requests[0].schema["properties"]["label"]["enum"]  # type: ignore[index]  # it has one
        figures = RunFigures.model_validate(run.figures)
        assert (figures.answered, figures.abstained, figures.malformed) == (3, 1, 0)
        assert figures.metrics.accuracy == 0.75


class TestPages:
    def test_a_dataset_is_made_and_looked_at(self, task: Task, ada: User, client_of: ClientOf) -> None:
        browser = client_of(ada)
        upload = SimpleUploadedFile("e.jsonl", json.dumps(row(1)).encode() + b"\n")
        response = browser.post(reverse("evaluation-dataset-new", args=["nda"]), {"name": "own", "file": upload})
        page = reverse("evaluation-dataset", args=["nda", 1])
        assert response.headers["Location"] == page
        assert "The file is being read" in text(browser.get(page))
        job_execute(job_id=Job.objects.get(kind=READ_JOB).pk)
        shown = text(browser.get(page))
        assert Dataset.objects.get().sha256[8:] in shown
        assert "The splits are being compared" in shown
        _check(Dataset.objects.get())
        assert "no two of different splits" in text(browser.get(page))
        again = browser.post(reverse("evaluation-dataset-new", args=["nda"]), {"name": "own", "copies": "leave_out"})
        assert again.status_code == 422

    def test_a_refused_one_names_its_lines(self, task: Task, ada: User, client_of: ClientOf) -> None:
        uploaded(task, ada, [row(1), row(2, None)])
        page = text(client_of(ada).get(reverse("evaluation-dataset", args=["nda", 1])))
        assert "Say train, validation or test" in page
        assert "Nothing of this file was taken" in page

    def test_lists_cost_the_same_at_1_and_25(
        self, task: Task, ada: User, client_of: ClientOf, django_assert_num_queries: Any
    ) -> None:
        browser, url = client_of(ada), reverse("evaluation-datasets", args=["nda"])
        make_trace(task)
        dataset_from_traces(task=task, user=ada, name="0")
        browser.get(url)
        with CaptureQueriesContext(connection) as queries:
            browser.get(url)
        for n in range(1, 26):
            dataset_from_traces(task=task, user=ada, name=f"{n}")
        with django_assert_num_queries(len(queries)):
            assert len(browser.get(url).context["page"].object_list) == 25

    def test_the_template_is_shown_and_changed(self, task: Task, ada: User, ana: User, client_of: ClientOf) -> None:
        make_trace(task)
        page, save = reverse("evaluation-template", args=["nda"]), reverse("evaluation-template-save", args=["nda"])
        assert "Change it" not in text(client_of(ana).get(page))
        wrong = client_of(ada).post(save, {"text": "{{clause}}"})
        assert wrong.status_code == 422
        assert "leaves out" in text(wrong)
        assert client_of(ada).post(save, {"text": "{{clause}} {{question}}"}).headers["Location"] == page
        assert "May copies be kept?" in text(client_of(ana).get(page))


def test_equal_examples_of_two_datasets_can_be_compared(task: Task, ada: User, client_of: ClientOf) -> None:
    rows = [row(n) for n in range(4)]
    first = uploaded(task, ada, rows, name="one")
    second = uploaded(task, ada, [*rows, row(9, "train")], name="two")
    with stub_server() as stub:
        student(stub.url, task)
        runs = [work(make_run(task, dataset=dataset)) for dataset in (first, second)]
    assert runs[0].examples_sha256 == runs[1].examples_sha256
    page = client_of(ada).get(reverse("evaluation-compare", args=["nda"]) + "?run=1&run=2")
    assert page.context["comparison"].pairs[0].paired.n == 4
