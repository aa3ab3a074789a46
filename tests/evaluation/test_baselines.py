"""Baselines beside the distilled prompt, repetitions, and comparisons of several prompts and students."""

import json
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import yaml
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pydantic import BaseModel, ConfigDict, Field
from sklearn.neighbors import KNeighborsClassifier

from evaluation.models import EvaluationRun, PredictionOutcome, PromptKind, RunGroup
from evaluation.neighbours import vote
from evaluation.sampling import Labelled, balanced_shots
from evaluation.schemas import RunFigures
from evaluation.services.groups import group_create, group_estimate
from evaluation.services.runs import Conditions, PromptChoice, evaluation_rerun
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, EndpointKind, ModelCall, User
from rules.models import RunState, Split, Task
from tests.evaluation.scene import examples, make_run, student, work
from tests.evaluation.test_pages import ClientOf, _body, text
from tests.evaluation.worlds import world_traces
from tests.factories import audit_actions, make_endpoint, make_trace
from tests.publishing import steps
from tests.scripted_student import World, scripted_student, shots_in
from tests.stub_server import Plan, StubRequest, completion, stub_server

pytestmark = pytest.mark.django_db
WORLD = World.example()


def figures(run: EvaluationRun) -> RunFigures:
    assert run.state == RunState.SUCCEEDED, run.error
    return RunFigures.model_validate(run.figures)


class TestFewShot:
    def test_the_shots_are_balanced_fixed_by_the_seed_and_stand_in_the_prompt(self, task: Task) -> None:
        world_traces(task, WORLD, 60, split=Split.TRAIN, seed=1)
        world_traces(task, WORLD, 6, seed=2)
        with scripted_student(WORLD) as stub:
            student(stub.url, task)
            run = work(make_run(task, kind=PromptKind.FEW_SHOT, k=6, seed=4))
            again = make_run(task, kind=PromptKind.FEW_SHOT, k=6, seed=4)
            other = make_run(task, kind=PromptKind.FEW_SHOT, k=6, seed=5)
            assert {request.messages[0]["content"] for request in stub.requests} == {run.prompt}
        assert run.prompt == again.prompt != other.prompt
        shown = shots_in(run.prompt)
        assert Counter(shown.values()) == dict.fromkeys(WORLD.labels, 2)
        assert all(WORLD.gold(json.loads(message)["clause"]) == label for message, label in shown.items())
        assert figures(run).n == 6

    def test_more_than_there_are_is_refused(self, task: Task) -> None:
        examples(task, 2)
        make_trace(task)
        student("http://127.0.0.1:9/v1", task)
        with pytest.raises(InvalidInput, match="has 1 train examples"):
            make_run(task, kind=PromptKind.FEW_SHOT, k=2)
        with pytest.raises(InvalidInput, match="how many"):
            make_run(task, kind=PromptKind.FEW_SHOT)

    def test_a_larger_choice_begins_with_the_smaller_one(self) -> None:
        rows = [Labelled(n, "ABC"[n % 3 if n < 30 else 0], f"{n:064d}") for n in range(40)]
        small, large = (balanced_shots(rows, ["A", "B", "C"], k, 7) for k in (5, 20))
        assert large[:5] == small
        assert Counter(one.label for one in balanced_shots(rows, ["A", "B", "C"], 38, 7)) == {"A": 18, "B": 10, "C": 10}


class TestWithoutAStudent:
    def test_the_majority_label_is_taken_from_train(self, task: Task) -> None:
        for label in ("Breach", "Breach", "Compliant"):
            make_trace(task, label=label)
        examples(task, 7)
        run = work(make_run(task, kind=PromptKind.MAJORITY))
        assert set(run.predictions.values_list("label", flat=True)) == {"Breach"}
        assert figures(run).metrics.accuracy == pytest.approx(2 / 7)
        assert (run.student, run.student_name, figures(run).calls.calls) == (None, "no student", 0)
        assert not ModelCall.objects.exists()

    def test_the_teachers_labels_count_where_they_are(self, task: Task) -> None:
        for n, said in enumerate(("Breach", "Compliant", "Nonsense")):
            make_trace(task, split=Split.VALIDATION, label="Breach", metadata={"teacher_label": said, "n": n})
        run = work(make_run(task, kind=PromptKind.TEACHER))
        found = figures(run)
        assert (found.answered, found.no_answer) == (2, 1)
        assert found.metrics.accuracy == pytest.approx(1 / 3)

    def test_without_any_label_of_the_teacher_the_run_says_so(self, task: Task) -> None:
        examples(task, 2)
        run = work(make_run(task, kind=PromptKind.TEACHER))
        assert run.state == RunState.FAILED
        assert "metadata.teacher_label" in run.error

    def test_nearest_neighbours_vote_on_words(self, task: Task) -> None:
        world_traces(task, WORLD, 150, split=Split.TRAIN, seed=1)
        pairs = world_traces(task, WORLD, 60, seed=2)
        run = work(make_run(task, kind=PromptKind.NEAREST, k=5))
        assert figures(run).metrics.accuracy > 0.7 > Counter(gold for _, gold in pairs).most_common(1)[0][1] / 60
        assert run.student_model == "no student (TF-IDF)"
        again = work(evaluation_rerun(run_id=run.pk, user=None))
        assert again.figures == run.figures

    def test_or_on_the_vectors_of_an_endpoint_that_are_paid_once(self, task: Task) -> None:
        for label, clause in (("Breach", "copies burnt"), ("Compliant", "copies kept")):
            make_trace(task, label=label, input={"clause": clause, "question": "q"})
        make_trace(task, split=Split.VALIDATION, label="Breach", input={"clause": "copies burnt now", "question": "q"})
        with stub_server() as stub:
            task.embedder = make_endpoint(stub.url, slug="vectors", kind=EndpointKind.EMBEDDING)
            task.save()
            run = work(make_run(task, kind=PromptKind.NEAREST, k=1))
            work(evaluation_rerun(run_id=run.pk, user=None))
            assert len(stub.requests) == 2
        assert figures(run).metrics.accuracy == 1.0
        assert run.embedder == task.embedder

    def test_the_vote_is_that_of_scikit_learn(self) -> None:
        draw = np.random.default_rng(3)
        known, asked = draw.normal(size=(60, 8)), draw.normal(size=(450, 8))
        known /= np.linalg.norm(known, axis=1, keepdims=True)
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
        labels = ["A" if n % 2 else "B" for n in range(60)]
        plain = KNeighborsClassifier(n_neighbors=5, metric="cosine", algorithm="brute").fit(known, labels)
        assert vote(asked, known, labels, 5) == list(plain.predict(asked))

    def test_of_equal_votes_the_nearer_neighbour_wins(self) -> None:
        known = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        assert vote(np.array([[0.9, 0.436]]), known, ["A", "B", "C"], 2) == ["B"]
        assert vote(np.array([[1.0, 0.0]]), known, ["A", "B", "C"], 3) == ["A"]


class TestRepeats:
    def test_each_repetition_asks_anew_and_the_figures_say_the_spread(self, task: Task) -> None:
        world = World.example(error_rate=0.3, noisy_by_seed=True)
        pairs = world_traces(task, world, 40)
        with scripted_student(world) as stub:
            student(stub.url, task, price_in=Decimal(1))
            run = work(make_run(task, repeats=3, seed=10, temperature=0.7))
            assert len(stub.requests) == 120
            assert {request.body["seed"] for request in stub.requests} == {10, 11, 12}
            assert {request.body["temperature"] for request in stub.requests} == {0.7}
        found = figures(run)
        expected = [world.macro_f1(run.prompt, pairs, seed=seed) for seed in (10, 11, 12)]
        assert [one.macro_f1 for one in found.repeats] == pytest.approx(expected)
        assert found.metrics.macro_f1 == pytest.approx(expected[0])
        assert found.spread == pytest.approx((min(expected), sum(expected) / 3, max(expected)))
        assert (run.n, run.total, run.done, found.n) == (40, 120, 120, 40)
        assert found.cost == Decimal("0.0001") * 120

    def test_a_stopped_one_goes_on_where_it_was(self, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
        examples(task, 6)
        with stub_server(latency_s=0.05) as stub:
            student(stub.url, task, concurrency=1)
            monkeypatch.setattr("pld_app.jobs.SLICE_S", 0.2)
            run = make_run(task, repeats=2)
            while not run.is_final:
                work(run)
            assert len(stub.requests) == 12
        assert figures(run).n == 6

    def test_a_page_shows_them(self, task: Task, ana: User, client_of: ClientOf) -> None:
        examples(task, 3)
        with stub_server() as stub:
            student(stub.url, task)
            work(make_run(task, repeats=2))
        page = text(client_of(ana).get(reverse("evaluation-detail", args=["nda", 1])))
        assert "Macro-F1 over 2 repetitions" in page


def test_cached_tokens_are_added_up_where_the_server_says_them(task: Task) -> None:
    examples(task, 3)

    def behave(request: StubRequest) -> Plan:
        body = completion(json.dumps({"label": "Breach"}))
        if request.number:
            body["usage"]["prompt_tokens_details"] = {"cached_tokens": 80}
        return Plan(body)

    with stub_server(behave) as stub:
        student(stub.url, task, concurrency=1)
        run = work(make_run(task))
    assert figures(run).calls.cached_tokens == 160


class TestGroups:
    @pytest.fixture
    def chosen(self, task: Task) -> dict[str, Any]:
        """Zero-shot, few-shot and majority for two students over six examples."""
        world_traces(task, WORLD, 9, split=Split.TRAIN, seed=1)
        world_traces(task, WORLD, 6, seed=2)
        first = student("http://127.0.0.1:9/v1", task, price_in=Decimal(5))
        second = make_endpoint("http://127.0.0.1:8/v1", slug="other", model="other-1")
        prompts = [
            PromptChoice(kind=PromptKind.ZERO_SHOT),
            PromptChoice(kind=PromptKind.FEW_SHOT, k=3),
            PromptChoice(kind=PromptKind.MAJORITY),
        ]
        return {"prompts": prompts, "students": [first, second], "conditions": Conditions(split=Split.VALIDATION)}

    def test_nothing_is_asked_or_written_before_the_estimate_is_confirmed(
        self, task: Task, ada: User, ana: User, chosen: dict[str, Any]
    ) -> None:
        matrix = group_estimate(task=task, **chosen)
        assert [len(matrix.planned), matrix.calls, matrix.examples] == [5, 24, 6]
        assert matrix.cost > 0
        assert not EvaluationRun.objects.exists()
        with pytest.raises(InvalidInput, match="has changed"):
            group_create(task=task, user=ada, confirmed="0" * 64, **chosen)
        make_trace(task, split=Split.VALIDATION)
        with pytest.raises(InvalidInput, match="has changed"):
            group_create(task=task, user=ada, confirmed=matrix.digest, **chosen)
        assert not RunGroup.objects.exists()
        with pytest.raises(NotAllowed):
            group_create(task=task, user=ana, confirmed=matrix.digest, **chosen)

    def test_the_matrix_runs_over_one_dataset(
        self, task: Task, ada: User, ana: User, chosen: dict[str, Any], client_of: ClientOf
    ) -> None:
        with scripted_student(WORLD) as stub:
            for endpoint in chosen["students"]:
                endpoint.base_url = stub.url
                endpoint.save()
            confirmed = group_estimate(task=task, **chosen).digest
            group = group_create(task=task, user=ada, confirmed=confirmed, **chosen)
            assert "5 runs are under way" in text(client_of(ana).get(reverse("evaluation-group", args=["nda", 1])))
            for run in group.runs.order_by("number"):
                work(run)
        runs = list(group.runs.order_by("number"))
        assert {run.dataset_id for run in runs} == {group.dataset_id}
        assert {run.state for run in runs} == {RunState.SUCCEEDED}
        assert audit_actions(group) == ["comparison.started"]
        page = client_of(ana).get(reverse("evaluation-group", args=["nda", 1]))
        table = page.context["table"]
        assert table.students == ("stub-1", "other-1")
        assert [(row.name, len(row.cells)) for row in table.rows] == [("Zero-shot", 2), ("Few-shot, 3 examples", 2)]
        assert [cell.run.kind for cell in table.alone] == ["majority"]
        assert "chosen on validation" in text(page)
        assert f"{figures(runs[0]).metrics.macro_f1:.2f}" in text(page)

    def test_on_test_it_needs_a_release_and_then_takes_baselines(
        self, task: Task, ada: User, ana: User, sam: User, sue: User, chosen: dict[str, Any]
    ) -> None:
        release = steps.released(task, ana, sam, sue)
        world_traces(task, WORLD, 4, split=Split.TEST, seed=9)
        chosen["conditions"] = Conditions(split=Split.TEST)
        with pytest.raises(InvalidInput, match="beside a release"):
            group_estimate(task=task, **chosen)
        chosen["prompts"] = [*chosen["prompts"], PromptChoice(kind=PromptKind.RELEASE, release=release)]
        confirmed = group_estimate(task=task, **chosen).digest
        group = group_create(task=task, user=ada, confirmed=confirmed, **chosen)
        assert (group.release, group.runs.count()) == (release, 7)
        draft = PromptChoice(kind=PromptKind.DRAFT, ruleset=release.ruleset)
        with pytest.raises(InvalidInput, match="figures of a release"):
            group_estimate(task=task, **(chosen | {"prompts": [*chosen["prompts"], draft]}))

    def test_from_the_page_estimate_then_confirm(
        self, task: Task, ada: User, chosen: dict[str, Any], client_of: ClientOf
    ) -> None:
        browser, url = client_of(ada), reverse("evaluation-group-new", args=["nda"])
        assert browser.get(url).status_code == 200
        sent = {
            "prompts_chosen": ["zero_shot", "few_shot", "nearest"],
            "students_chosen": [str(endpoint.pk) for endpoint in chosen["students"]],
            "split": "validation",
            "shots": "3",
            "neighbours": "3",
            "seed": "0",
        }
        estimated = browser.post(url, sent)
        matrix = estimated.context["matrix"]
        assert (len(matrix.planned), matrix.calls) == (5, 24)
        assert "Nothing has been asked yet" in text(estimated)
        assert not RunGroup.objects.exists()
        started = browser.post(url, sent | {"confirmed": matrix.digest})
        assert started.headers["Location"] == reverse("evaluation-group", args=["nda", 1])
        assert set(RunGroup.objects.get().runs.values_list("kind", flat=True)) == {"zero_shot", "few_shot", "nearest"}
        # By now the shown examples are known, so the estimate is another one.
        assert browser.post(url, sent | {"confirmed": matrix.digest}).status_code == 422
        assert RunGroup.objects.count() == 1

    def test_a_list_costs_the_same_at_1_and_25(
        self, task: Task, ada: User, client_of: ClientOf, django_assert_num_queries: Any
    ) -> None:
        examples(task, 1)
        student("http://127.0.0.1:9/v1", task)
        dataset = make_run(task).dataset
        browser, url = client_of(ada), reverse("evaluation-groups", args=["nda"])

        def more(first: int, last: int) -> None:
            for n in range(first, last):
                RunGroup.objects.create(task=task, number=n, dataset=dataset, split="validation", created_by=ada)

        more(1, 2)
        browser.get(url)
        with CaptureQueriesContext(connection) as queries:
            browser.get(url)
        more(2, 27)
        with django_assert_num_queries(len(queries)):
            assert len(browser.get(url).context["page"].object_list) == 25


def test_releases_over_time_are_drawn_per_student_and_examples(
    task: Task, ana: User, sam: User, sue: User, client_of: ClientOf
) -> None:
    examples(task, 4)
    with stub_server() as stub:
        student(stub.url, task)
        first = steps.released(task, ana, sam, sue)
        second = steps.again(task, ana, sam, sue)
        for release in (first, second, second):
            work(make_run(task, kind=PromptKind.RELEASE, release=release))
    page = client_of(ana).get(reverse("evaluation-releases", args=["nda"]))
    (series,) = page.context["series"]
    assert [(str(point.run.release), point.run.number) for point in series.points] == [("v1", 1), ("v2", 3)]
    assert series.figure.path.startswith("M")
    assert "stub-1 · validation · n = 4" in text(page)


# The parts of promptfoo's published schema that the file uses; every other key is refused there and here.


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Prompt(_Closed):
    id: str
    label: str
    raw: str


class _Provider(_Closed):
    id: str
    label: str
    config: dict[str, Any]


class _Assertion(_Closed):
    type: str
    value: Any


class _Test(_Closed):
    vars: dict[str, Any]
    description: str = ""
    assertions: list[_Assertion] = Field(default=[], alias="assert")


class _Options(_Closed):
    maxConcurrency: int  # noqa: N815  # their name
    repeat: int


class _Config(_Closed):
    description: str
    prompts: list[_Prompt]
    providers: list[_Provider]
    evaluateOptions: _Options  # noqa: N815  # their name
    defaultTest: _Test  # noqa: N815  # their name
    tests: list[_Test]


class TestPromptfoo:
    HOSTILE = "file:///etc/passwd {{7|add}} {% endraw %} \x85\u2028 \U0001f600 \"'\\ : - #\n</x>"

    def test_the_file_asks_the_same_with_the_same_answers_expected(
        self, task: Task, abe: User, client_of: ClientOf
    ) -> None:
        make_trace(
            task, split=Split.VALIDATION, input={"clause": self.HOSTILE, "question": "q"}, external_id="- *id: {}"
        )
        examples(task, 3)
        task.preamble = "Check {{clauses}} {% raw %}."
        task.save()
        with stub_server() as stub:
            student(stub.url, task)
            run = work(make_run(task, seed=3, repeats=2))
            asked = {request.messages[1]["content"] for request in stub.requests}
            body: Mapping[str, Any] = stub.requests[0].body
        raw = _body(client_of(abe).get(reverse("evaluation-export", args=["nda", 1, "yaml"])))
        config = _Config.model_validate(yaml.safe_load(raw))
        assert {one.vars["example"]["message"] for one in config.tests} == asked
        gold = run.predictions.filter(repeat=0).order_by("example_id").values_list("gold", flat=True)
        assert [one.vars["example"]["label"] for one in config.tests] == list(gold)
        assert config.defaultTest.vars["system"]["text"] == run.prompt
        (provider,) = config.providers
        assert provider.id == "openai:chat:stub-1"
        for name in ("temperature", "max_tokens", "response_format"):
            assert provider.config[name] == body[name]
        assert (provider.config["apiBaseUrl"], provider.config["apiKeyRequired"]) == (stub.url, False)
        messages = json.loads(config.prompts[0].raw)
        assert [one["content"] for one in messages] == ["{{system.text}}", "{{example.message}}"]
        assert all(isinstance(value, dict) for test in config.tests for value in test.vars.values())
        assert config.evaluateOptions.repeat == 2
        assert [one.type for one in config.defaultTest.assertions] == ["is-json", "javascript"]
        assert AuditEvent.objects.filter(action="evaluation.exported").count() == 1

    def test_a_key_is_named_and_never_given(
        self, task: Task, abe: User, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOME_API_KEY", "sk-very-secret")
        examples(task, 1)
        student("http://127.0.0.1:9/v1", task, api_key_env="SOME_API_KEY")
        make_run(task)
        raw = _body(client_of(abe).get(reverse("evaluation-export", args=["nda", 1, "yaml"])))
        assert "SOME_API_KEY" in raw
        assert "sk-very-secret" not in raw

    def test_a_run_without_a_student_has_none(self, task: Task, abe: User, client_of: ClientOf) -> None:
        make_trace(task)
        examples(task, 1)
        run = work(make_run(task, kind=PromptKind.MAJORITY))
        assert set(run.predictions.values_list("outcome", flat=True)) == {PredictionOutcome.ANSWERED}
        assert client_of(abe).get(reverse("evaluation-export", args=["nda", 1, "yaml"])).status_code == 422
        assert client_of(abe).get(reverse("evaluation-export", args=["nda", 1, "csv"])).status_code == 200
