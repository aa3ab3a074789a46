"""What stands beside the texts where a ruleset is signed: figures with their source, gates, open comments."""

import json
from collections.abc import Callable

import pytest
from django.test import Client

from evaluation.models import PromptKind
from pld_app.models import User
from rules import hooks
from rules.models import Task
from rules.services.comments import comment_write
from tests.evaluation.scene import examples, make_run, student, work
from tests.publishing import steps
from tests.stub_server import Plan, completion, stub_server

type ClientOf = Callable[[User], Client]


def test_figures_stand_with_student_split_and_n(task: Task, ana: User, sam: User, client_of: ClientOf) -> None:
    examples(task, 7)
    ruleset = steps.frozen(task, ana)
    with stub_server(lambda _request: Plan(completion(json.dumps({"label": "Compliant"})))) as stub:
        student(stub.url, task)
        run = work(make_run(task, kind=PromptKind.DRAFT, ruleset=ruleset))
    (figure,) = hooks.ruleset_evidence(ruleset).figures
    assert (figure.split, figure.n, figure.is_older) == ("validation", run.n, False)
    page = client_of(sam).get("/tasks/nda/rulesets/1/").content.decode()
    assert figure.student in page
    assert f"{figure.value:.3f}" in page
    assert "This ruleset" in page


def test_gates_and_open_comments_are_named(
    task: Task, ana: User, sam: User, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "_verdicts", {})
    ruleset = steps.frozen(task, ana)
    hooks.register("test", verdicts=lambda _ruleset: [hooks.Verdict("No worse than v1", False, "0.12 lower", "/x/")])
    item = ruleset.items.select_related("instruction").first()
    assert item is not None
    comment_write(instruction_id=item.instruction_id, author=sam, body="Is this still the law?")
    page = client_of(sam).get("/tasks/nda/rulesets/1/").content.decode()
    assert all(words in page for words in ("not passed", "No worse than v1", "0.12 lower", "Is this still the law?"))
