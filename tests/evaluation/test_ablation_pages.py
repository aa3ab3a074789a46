"""The pages of ablations: estimate before anything is asked, figures with their source, suggestions that only say."""

import csv
import io
import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from evaluation.models import Ablation, EvaluationRun, PromptKind
from evaluation.services.ablation_execution import JOB_KIND
from pld_app.jobs import job_execute
from pld_app.models import AuditEvent, Job, User
from rules.models import RunState, Task
from rules.suggestions import no_flip_bound
from tests.evaluation.scene import examples, finished_directly, make_run, measured_directly, student, work
from tests.evaluation.worlds import world_instructions, world_traces
from tests.publishing import steps
from tests.scripted_student import World, scripted_student

pytestmark = pytest.mark.django_db

type ClientOf = Callable[[User], Client]

N = 20


def url(name: str, *args: object) -> str:
    return reverse(f"evaluation-{name}", args=["nda", *args])


def text(response: Any) -> str:
    return " ".join(str(response.content.decode()).split())


@pytest.fixture
def run(task: Task, ana: User) -> EvaluationRun:
    """A finished run of a draft of three instructions over N examples, made without a student."""
    examples(task, N)
    student("http://127.0.0.1:9/v1", task)
    return finished_directly(make_run(task, kind=PromptKind.DRAFT, ruleset=steps.draft(task, ana)))


def test_nothing_starts_before_the_estimate_is_confirmed(run: EvaluationRun, ada: User, client_of: ClientOf) -> None:
    client = client_of(ada)
    assert "Compare with the answers of" in text(client.get(url("ablation-new") + "?run=1"))
    form = {"run": "1", "order": "support", "picked": "", "max_calls": 50}
    page = client.post(url("ablation-new"), form)
    assert (page.context["plan"].calls, len(page.context["plan"].measured)) == (2 * N, 2)
    assert "2 of 3 instructions, 20 examples each; 0 answers are on record already" in text(page)
    assert "not measured" in text(page)
    assert not Ablation.objects.exists()
    answer = client.post(url("ablation-new"), form | {"confirmed": page.context["plan"].digest})
    assert answer.headers["Location"] == url("ablation", 1)
    assert (Ablation.objects.get().state, Ablation.objects.get().total) == (RunState.QUEUED, 2 * N)
    assert "0 of at most 50 calls" in text(client.get(url("ablation", 1)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_calls": "3"}, "takes 20 calls, more than the 3 allowed"),
        ({"picked": "77"}, "Not in this prompt: #77."),
        ({"picked": "all"}, "Write numbers of instructions"),
        ({"run": "9"}, "Select a valid choice"),
    ],
)
def test_what_cannot_be_asked_is_said_beside_the_form(
    run: EvaluationRun, ada: User, client_of: ClientOf, fields: dict[str, str], words: str
) -> None:
    form = {"run": "1", "order": "support", "picked": "", "max_calls": "50"} | fields
    page = client_of(ada).post(url("ablation-new"), form)
    assert page.status_code == 422
    assert words in text(page)


def test_without_a_finished_run_the_pages_say_what_to_do(task: Task, ada: User, client_of: ClientOf) -> None:
    client = client_of(ada)
    for page in (client.get(url("ablations")), client.get(url("ablation-new"))):
        assert "Evaluate a ruleset or a release first" in text(page)


def test_the_page_names_every_figure_with_its_source(run: EvaluationRun, abe: User, client_of: ClientOf) -> None:
    measured_directly(run)
    page = client_of(abe).get(url("ablation", 1))
    body = text(page)
    assert f"Draft of ruleset 1 · {run.student_model} · validation · n = 20" in body
    assert "20 of 20" in body
    assert f"0 of 20 answers change; with 95% confidence fewer than {100 * no_flip_bound(N):.1f}% do." in body
    assert [row.item.rank for row in page.context["table"].measured] == [0, 1, 2]
    worst = client_of(abe).get(url("ablation", 1) + "?sort=broken")
    assert worst.context["table"].measured[0].item.rank == 0
    assert 'aria-sort="descending"' in text(worst)
    assert client_of(abe).get(url("ablation", 1) + "?sort=nonsense").status_code == 200


def test_no_change_in_n_bounds_the_share_that_changes() -> None:
    """Exact binomial bound: where the share is the bound, n answers in a row without a change have probability 5%."""
    for n in (1, 20, 59, 300, 10_000):
        assert (1 - no_flip_bound(n)) ** n == pytest.approx(0.05)
    assert no_flip_bound(300) == pytest.approx(3 / 300, rel=0.01)  # the rule of three


def test_progress_is_followed_and_the_page_reloads_when_it_is_over(
    run: EvaluationRun, ada: User, client_of: ClientOf
) -> None:
    ablation = measured_directly(run, measured=1)
    rows = Ablation.objects.filter(pk=ablation.pk)
    client = client_of(ada)
    headers = {"HX-Request": "true"}
    assert client.get(url("ablation", 1), headers=headers).headers["HX-Refresh"] == "true"
    rows.update(state=RunState.QUEUED)
    page = client.get(url("ablation", 1), headers=headers)
    assert "HX-Refresh" not in page.headers
    assert "<h1" not in text(page)
    assert "Cancel the ablation" in text(page)
    rows.update(state=RunState.RUNNING)
    rows.update(state=RunState.SUCCEEDED)
    assert client.get(url("ablation", 1), headers=headers).headers["HX-Refresh"] == "true"


def test_a_paused_one_is_given_more_or_cancelled(run: EvaluationRun, ada: User, client_of: ClientOf) -> None:
    ablation = measured_directly(run, measured=1)
    client = client_of(ada)
    assert "The budget is used up" in text(client.get(url("ablation", 1)))
    assert client.post(url("ablation-raise", 1), {"max_calls": ""}).status_code == 422
    client.post(url("ablation-raise", 1), {"max_calls": 500})
    ablation.refresh_from_db()
    assert (ablation.state, ablation.max_calls, ablation.error) == (RunState.QUEUED, 500, "")
    assert client.post(url("ablation-raise", 1), {"max_calls": 600}).status_code == 409
    client.post(url("ablation-cancel", 1))
    ablation.refresh_from_db()
    assert ablation.state == RunState.CANCELLED
    assert "Not measured" in text(client.get(url("ablation", 1)))


def test_the_files_hold_every_instruction_and_are_recorded(run: EvaluationRun, abe: User, client_of: ClientOf) -> None:
    measured_directly(run, measured=2)
    client = client_of(abe)
    found = json.loads(client.get(url("ablation-export", 1, "json")).content)
    assert [row["measured"] for row in found["instructions"]] == [True, True, False]
    assert (found["student"], found["split"], found["prompt_sha256"]) == ("stub-1", "validation", run.prompt_sha256)
    assert found["instructions"][0]["figures"]["paired"]["n"] == N
    lines = client.get(url("ablation-export", 1, "csv")).content.decode().removeprefix("\ufeff")
    rows = list(csv.DictReader(io.StringIO(lines)))
    assert [(row["flipped"], row["n"]) for row in rows] == [(str(N), str(N)), ("0", str(N)), ("", "")]
    assert float(rows[0]["macro_f1_change"]) < 0
    assert AuditEvent.objects.filter(action="ablation.exported").count() == 2
    assert client.get(url("ablation-export", 1, "yaml")).status_code == 404


def test_a_page_costs_the_same_for_3_and_25_instructions(
    task: Task, ana: User, client_of: ClientOf, django_assert_num_queries: Any
) -> None:
    examples(task, 4)
    student("http://127.0.0.1:9/v1", task)
    client = client_of(ana)
    client.get(url("ablations"))
    for number, count in enumerate((3, 22), start=1):
        ruleset = steps.draft(task, ana, count)
        measured_directly(finished_directly(make_run(task, kind=PromptKind.DRAFT, ruleset=ruleset)))
        with django_assert_num_queries(8):
            assert len(client.get(url("ablations")).context["page"].object_list) == number
    with django_assert_num_queries(9):
        assert len(client.get(url("ablation", 1)).context["table"].measured) == 3
    with django_assert_num_queries(9):
        assert len(client.get(url("ablation", 2)).context["table"].measured) == 25


def draft_page(client: Client, number: int) -> Any:
    return client.get(reverse("ruleset-detail", args=["nda", number]))


class TestSuggestions:
    def test_the_draft_says_what_no_answer_depends_on(
        self, run: EvaluationRun, ana: User, client_of: ClientOf, django_assert_max_num_queries: Any
    ) -> None:
        client = client_of(ana)
        assert "Nobody has measured" in text(draft_page(client, 1))
        measured_directly(run)
        page = draft_page(client, 1)
        assert [one.number for one in page.context["idle"]] == [2, 3]
        assert "could be dropped: 0 of 20 answers of stub-1 on validation change without it" in text(page)
        assert run.ruleset is not None
        type(run.ruleset).objects.filter(pk=run.ruleset.pk).update(version=7)
        assert "measured in an earlier ruleset" in text(draft_page(client, 1))

    def test_two_that_stand_in_for_each_other_are_named_together(
        self, task: Task, ana: User, ben: User, ada: User, client_of: ClientOf
    ) -> None:
        """A cue said twice: neither copy changes an answer while the other stands."""
        world = World.example()
        world_traces(task, world, 30, seed=2)
        first, *others = world.instructions
        world_instructions(task, ben, world, [first, f"Also: {first}", *others])
        with scripted_student(world) as stub:
            student(stub.url, task)
            finished = work(make_run(task, kind=PromptKind.DRAFT, ruleset=steps.again_draft(task, ana)))
            call_command("ablate", "nda", "--max-calls", "1000", "--inline", stdout=StringIO())
        assert finished.ruleset is not None
        idle = {one.number: one.twins for one in draft_page(client_of(ana), 1).context["idle"]}
        assert (idle[1], idle[2]) == ((2,), (1,))
        assert "which says nearly the same and may stand in for it" in text(draft_page(client_of(ana), 1))


def test_the_card_says_what_was_measured_and_what_changed_since(
    run: EvaluationRun, task: Task, abe: User, client_of: ClientOf
) -> None:
    ablation = measured_directly(run)
    worst = ablation.items.get(rank=0).instruction
    assert task.student is not None
    card = reverse("instruction-detail", args=["nda", worst.number])
    body = text(client_of(abe).get(card))
    assert "Leaving it out changes 20 of 20 answers (100.0%) of stub-1 on validation" in body
    assert "0 become right, 20 become wrong" in body
    assert "Ablation 1, 20" in body
    assert "Measured by leaving it out" in body
    assert "Measured with another student" not in body
    task.student.model = "next"
    task.student.save()
    assert "Measured with another student" in text(client_of(abe).get(card))


class TestTheCommand:
    def test_it_estimates_runs_here_and_prints_json(self, task: Task, ana: User, ben: User) -> None:
        world = World.example()
        world_traces(task, world, 10, seed=2)
        world_instructions(task, ben, world)
        with scripted_student(world) as stub:
            student(stub.url, task)
            work(make_run(task, kind=PromptKind.DRAFT, ruleset=steps.again_draft(task, ana)))
            asked = len(stub.requests)
            out = StringIO()
            call_command("ablate", "nda", "--max-calls", "30", "--estimate", stdout=out)
            assert json.loads(out.getvalue())["calls"] == 30
            assert len(stub.requests) == asked
            out = StringIO()
            call_command("ablate", "nda", "--max-calls", "30", "--only", "2", "4", "--inline", stdout=out)
            assert len(stub.requests) - asked == 20
        found = json.loads(out.getvalue())
        assert found["state"] == "succeeded"
        assert [row["instruction"] for row in found["instructions"] if row["measured"]] == [2, 4]

    def test_it_leaves_it_to_a_worker_and_refuses_in_words(self, run: EvaluationRun) -> None:
        out = StringIO()
        with pytest.raises(CommandError, match="more than the 5 allowed"):
            call_command("ablate", "nda", "--max-calls", "5")
        with pytest.raises(CommandError, match="no such finished run"):
            call_command("ablate", "nda", "--run", "8", "--max-calls", "500")
        with pytest.raises(CommandError, match="no task"):
            call_command("ablate", "none", "--max-calls", "500")
        call_command("ablate", "nda", "--max-calls", "500", stdout=out)
        assert "ablation 1 is queued" in out.getvalue()
        job_execute(job_id=Job.objects.get(kind=JOB_KIND).pk)
        assert Ablation.objects.get().state != RunState.SUCCEEDED, "nobody answers there"
