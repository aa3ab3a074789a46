"""`manage.py evaluate`."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from evaluation.models import EvaluationRun
from evaluation.services.execution import JOB_KIND
from pld_app.models import Job, JobState, User
from rules.models import RunState, Task
from tests.evaluation.scene import examples, student
from tests.factories import make_trace
from tests.publishing import steps
from tests.stub_server import stub_server

pytestmark = pytest.mark.django_db


def run_command(*arguments: str) -> str:
    out = StringIO()
    call_command("evaluate", *arguments, stdout=out)
    return out.getvalue()


def test_inline_prints_the_figures_as_json(task: Task) -> None:
    examples(task, 12)
    with stub_server() as stub:
        student(stub.url, task)
        report = json.loads(run_command("nda", "--sample", "7", "--seed", "2", "--inline"))
        assert len(stub.requests) == 7
    run = EvaluationRun.objects.get()
    assert (report["state"], report["n"], report["split"], report["student"]) == (
        "succeeded",
        7,
        "validation",
        "stub-1",
    )
    assert report["figures"] == run.figures
    assert report["figures"]["metrics"]["macro_f1_interval"]["n"] == 7
    assert (run.seed, run.created_by) == (2, None)


def test_without_inline_the_run_is_left_to_a_worker(task: Task) -> None:
    examples(task, 3)
    student("http://127.0.0.1:9/v1", task)
    assert "evaluation 1 is queued" in run_command("nda")
    assert EvaluationRun.objects.get().state == RunState.QUEUED
    assert Job.objects.get(kind=JOB_KIND).state == JobState.QUEUED


def test_a_release_and_a_draft_are_found_by_number(task: Task, ana: User, sam: User, sue: User) -> None:
    release = steps.released(task, ana, sam, sue)
    examples(task, 2)
    with stub_server() as stub:
        student(stub.url, task)
        run_command("nda", "--kind", "release", "--release", "1", "--student", "student", "--inline")
        run_command("nda", "--kind", "draft", "--ruleset", "1", "--inline")
    kinds = list(EvaluationRun.objects.order_by("number").values_list("kind", "release", "ruleset"))
    assert kinds == [("release", release.pk, None), ("draft", None, release.ruleset_id)]
    assert EvaluationRun.objects.filter(prompt=release.prompt).count() == 2


def test_baselines_and_repetitions_take_their_options(task: Task) -> None:
    for _ in range(3):
        make_trace(task)
    examples(task, 4)
    with stub_server() as stub:
        student(stub.url, task)
        run_command("nda", "--kind", "few_shot", "--k", "2", "--repeats", "2", "--temperature", "0.5", "--inline")
        run_command("nda", "--kind", "nearest", "--k", "3", "--dataset", "1", "--inline")
        assert len(stub.requests) == 8
    few, near = EvaluationRun.objects.order_by("number")
    assert (few.k, few.repeats, few.temperature, near.k, near.student) == (2, 2, 0.5, 3, None)
    assert few.dataset == near.dataset


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "no task missing"),
        (["nda", "--student", "missing"], "no endpoint missing"),
        (["nda", "--kind", "release", "--release", "9"], "release of this task"),
        (["nda"], "no traces yet"),
        (["nda", "--dataset", "7"], "no dataset 7"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(task: Task, arguments: list[str], words: str) -> None:
    student("http://127.0.0.1:9/v1", task)
    with pytest.raises(CommandError, match=words):
        run_command(*arguments)


def test_a_failed_run_is_a_failed_command(task: Task) -> None:
    examples(task, 2)
    with stub_server("401") as stub:
        student(stub.url, task)
        with pytest.raises(CommandError, match="failed: The endpoint refused the key"):
            run_command("nda", "--inline")
