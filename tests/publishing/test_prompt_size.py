"""A prompt's size: by the student's own tokenizer where its server has one, else a named approximation."""

from collections.abc import Callable
from unittest.mock import Mock

import pytest
from django.test import Client

from pld_app.jobs import JobResult
from pld_app.models import Job, ModelEndpoint, User
from rules.models import PromptSize, Ruleset, Task
from rules.services import prompt_sizes
from tests.factories import make_endpoint
from tests.publishing import steps
from tests.stub_server import Plan, StubRequest, stub_server

pytestmark = pytest.mark.django_db


def words_as_tokens(request: StubRequest) -> Plan:
    """llama.cpp's `/tokenize`, with a token a word."""
    if request.path == "/tokenize":
        return Plan({"tokens": list(range(len(str(request.body["content"]).split())))})
    return Plan({"error": "no such page"}, status=404)


def counted(ruleset: Ruleset) -> JobResult:
    return prompt_sizes.prompt_size_count(ruleset.pk, Mock())


def with_student(task: Task, url: str) -> None:
    task.student = make_endpoint(url, slug="student", model="small-1")
    task.save()


def test_the_servers_own_count_is_shown_with_the_models_name(
    task: Task, ana: User, client_of: Callable[[User], Client]
) -> None:
    with stub_server(words_as_tokens) as stub:
        with_student(task, stub.url)
        ruleset = steps.frozen(task, ana)
        assert Job.objects.filter(kind=prompt_sizes.JOB_KIND, subject_id=ruleset.pk).exists()
        assert counted(ruleset) == JobResult.DONE
        assert counted(ruleset) == JobResult.DONE
    assert [request.path for request in stub.requests] == ["/tokenize"]
    assert PromptSize.objects.get().tokens == len(ruleset.prompt.split())
    page = client_of(ana).get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode()
    assert f"{len(ruleset.prompt.split())} tokens by the tokenizer of small-1" in page
    # Another model behind the same endpoint counts otherwise.
    ModelEndpoint.objects.update(model="small-2")
    page = client_of(ana).get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode()
    assert "tokens, by characters over four" in page


@pytest.mark.parametrize(
    "plan",
    [
        Plan({"error": "no such page"}, status=404),
        Plan({"tokens": "many"}),
        Plan({"count": 3}),
        Plan(b"[1, 2, 3]"),
    ],
)
def test_a_server_without_a_tokenizer_leaves_the_approximation(
    task: Task, ana: User, client_of: Callable[[User], Client], plan: Plan
) -> None:
    with stub_server(lambda _request: plan) as stub:
        with_student(task, stub.url)
        ruleset = steps.draft(task, ana)
        assert counted(ruleset) == JobResult.DONE
    assert not PromptSize.objects.exists()
    page = client_of(ana).get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode()
    assert "tokens, by characters over four" in page


def test_a_server_that_is_away_or_no_student_at_all(task: Task, ana: User) -> None:
    ruleset = steps.draft(task, ana)
    assert not Job.objects.filter(kind=prompt_sizes.JOB_KIND).exists()
    assert counted(ruleset) == JobResult.DONE
    with_student(task, "http://127.0.0.1:1/v1")
    assert counted(ruleset) == JobResult.DONE
    assert not PromptSize.objects.exists()
