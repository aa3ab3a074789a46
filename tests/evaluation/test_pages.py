"""The pages of evaluation: who may do what, what a page says about its figures, and what it costs to show."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from evaluation.metrics import score_run
from evaluation.models import EvaluationRun, PromptKind
from evaluation.schemas import RunFigures
from pld_app.models import AuditEvent, User
from rules.models import RunState, Split, Task, Trace
from tests.evaluation.scene import LABELS, answering, examples, make_run, student, work
from tests.factories import make_task, make_trace
from tests.publishing import steps
from tests.stub_server import Plan, completion, stub_server

pytestmark = pytest.mark.django_db

type ClientOf = Callable[[User], Client]


def finished(task: Task, answers: dict[str, str | Plan], **fields: Any) -> EvaluationRun:
    """A run over these answers, through a real server."""
    with stub_server(answering(answers)) as stub:
        if task.student is None:
            student(stub.url, task)
        else:
            task.student.base_url = stub.url
            task.student.save()
        return work(make_run(task, **fields))


def all_right(traces: list[Trace]) -> dict[str, str | Plan]:
    return {trace.input["clause"]: trace.label for trace in traces}


def url(name: str, *args: object) -> str:
    return reverse(f"evaluation-{name}", args=["nda", *args])


def text(response: Any) -> str:
    return str(response.content.decode())


@pytest.fixture
def run(task: Task) -> EvaluationRun:
    """Ten examples: seven right, one wrong, one malformed with markup in it, one without an answer."""
    traces = examples(task, 10)
    answers = all_right(traces)
    answers[traces[0].input["clause"]] = "Breach"
    answers[traces[1].input["clause"]] = Plan(completion('{"label": "<script>alert(1)</script>"}'))
    answers[traces[2].input["clause"]] = "!400"
    return finished(task, answers)


@pytest.mark.parametrize("name", ["ana", "sam", "abe", "ada"])
def test_everybody_signed_in_reads_and_takes_out(
    run: EvaluationRun, name: str, request: pytest.FixtureRequest, client_of: ClientOf
) -> None:
    client = client_of(request.getfixturevalue(name))
    pages = [
        url("list"),
        url("detail", 1),
        url("compare") + "?run=1",
        url("export", 1, "csv"),
        url("export", 1, "json"),
    ]
    assert [client.get(page).status_code for page in pages] == [200] * 5
    assert AuditEvent.objects.filter(action="evaluation.exported").count() == 2


@pytest.mark.parametrize("name", ["ana", "sam", "abe"])
def test_only_an_administrator_starts_stops_and_repeats(
    run: EvaluationRun, name: str, request: pytest.FixtureRequest, client_of: ClientOf
) -> None:
    client = client_of(request.getfixturevalue(name))
    assert client.get(url("new")).status_code == 403
    assert [client.post(url(*to)).status_code for to in (("new",), ("cancel", 1), ("rerun", 1))] == [403] * 3
    assert EvaluationRun.objects.count() == 1
    assert "Re-evaluate" not in text(client.get(url("detail", 1)))


def test_strangers_are_sent_to_sign_in_and_gets_change_nothing(
    run: EvaluationRun, ada: User, client_of: ClientOf
) -> None:
    for page in (url("list"), url("detail", 1), url("export", 1, "csv")):
        assert Client().get(page).status_code == 302
    assert [client_of(ada).get(url(name, 1)).status_code for name in ("cancel", "rerun")] == [405, 405]


def test_an_administrator_starts_a_run_from_the_form(task: Task, ada: User, client_of: ClientOf) -> None:
    examples(task, 8)
    endpoint = student("http://127.0.0.1:9/v1", task)
    client = client_of(ada)
    sent = {"prompt": "zero_shot", "student": str(endpoint.pk), "split": "validation", "sample_size": "4", "seed": "3"}
    estimate = client.get(url("new"), sent, headers={"HX-Request": "true"})
    assert "of 8 in the split" in text(estimate)
    assert "<html" not in text(estimate)
    assert "of 8 in the split" in text(client.post(url("new"), sent | {"estimate": "1"}))
    assert not EvaluationRun.objects.exists()
    response = client.post(url("new"), sent)
    assert (response.status_code, response.headers["Location"]) == (302, url("detail", 1))
    run = EvaluationRun.objects.get()
    assert (run.sample_size, run.seed, run.total, run.created_by, run.state) == (4, 3, 4, ada, RunState.QUEUED)


def test_the_form_offers_releases_and_rulesets(
    task: Task, ada: User, ana: User, sam: User, sue: User, client_of: ClientOf
) -> None:
    steps.released(task, ana, sam, sue)
    examples(task, 2)
    endpoint = student("http://127.0.0.1:9/v1", task)
    client = client_of(ada)
    page = text(client.get(url("new")))
    assert 'value="release:1"' in page
    assert 'value="draft:1"' in page
    for prompt in ("release:1", "draft:1"):
        sent = {"prompt": prompt, "student": endpoint.pk, "split": "validation", "seed": "0"}
        assert client.post(url("new"), sent).status_code == 302
    assert set(EvaluationRun.objects.values_list("kind", flat=True)) == {PromptKind.RELEASE, PromptKind.DRAFT}


@pytest.mark.parametrize(
    "wrong",
    [{"prompt": "release:9"}, {"prompt": "draft:x"}, {"split": "train"}, {"sample_size": "0"}, {"student": "999"}],
)
def test_what_the_form_does_not_offer_is_refused(
    task: Task, ada: User, client_of: ClientOf, wrong: dict[str, str]
) -> None:
    examples(task, 2)
    endpoint = student("http://127.0.0.1:9/v1", task)
    sent = {"prompt": "zero_shot", "student": endpoint.pk, "split": "validation", "seed": "0"} | wrong
    assert client_of(ada).post(url("new"), sent).status_code == 422
    assert not EvaluationRun.objects.exists()


def test_a_refusal_of_the_service_is_a_page(task: Task, ada: User, client_of: ClientOf) -> None:
    endpoint = student("http://127.0.0.1:9/v1", task)
    make_trace(task)
    for split, words in (("validation", "There are no validation traces"), ("test", "only run beside a release")):
        sent = {"prompt": "zero_shot", "student": str(endpoint.pk), "split": split, "seed": "0"}
        response = client_of(ada).post(url("new"), sent)
        assert response.status_code == 422
        assert words in text(response)
        estimate = client_of(ada).get(url("new"), sent, headers={"HX-Request": "true"})
        assert words in text(estimate)


def test_every_figure_names_student_split_and_n(run: EvaluationRun, ana: User, client_of: ClientOf) -> None:
    page = text(client_of(ana).get(url("detail", 1)))
    assert page.count("Zero-shot · stub-1 · validation · n = 10") >= 6
    assert f"{run.figures['metrics']['macro_f1']:.2f}" in page
    assert run.prompt_sha256[8:] in page
    listed = text(client_of(ana).get(url("list")))
    assert "stub-1" in listed
    assert f"{run.figures['metrics']['macro_f1_interval']['low']:.2f} to" in listed


def test_bad_answers_are_shown_as_text_with_their_reason(run: EvaluationRun, ana: User, client_of: ClientOf) -> None:
    page = text(client_of(ana).get(url("detail", 1)))
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "unknown label" in page
    assert "did not accept the request" in page


def test_wrong_answers_are_filtered_by_gold_and_predicted(run: EvaluationRun, ana: User, client_of: ClientOf) -> None:
    client = client_of(ana)
    gold = [prediction.gold for prediction in run.predictions.order_by("example_id")]

    def listed(**query: str) -> int:
        return int(client.get(url("detail", 1), query).context["page"].paginator.count)

    assert listed() == 3
    assert listed(predicted="-") == 2
    assert listed(predicted="Breach") == 1
    assert listed(gold=gold[2], predicted="-") == 1
    assert listed(gold="Unclear") == 0
    wrong = client.get(url("detail", 1), {"gold": "Nonsense"})
    assert "Select a valid choice" in text(wrong)


def test_a_running_run_is_watched_by_fragment_and_reloads_when_it_ends(
    task: Task, ada: User, client_of: ClientOf
) -> None:
    examples(task, 4)
    student("http://127.0.0.1:9/v1", task)
    run = make_run(task, ada)
    EvaluationRun.objects.filter(pk=run.pk).update(state=RunState.RUNNING, done=1, error="The endpoint rests.")
    client = client_of(ada)
    page = client.get(url("detail", 1), headers={"HX-Request": "true"})
    assert "1 of 4" in text(page)
    assert 'hx-trigger="every 1s"' in text(page)
    assert "Waiting for the student: The endpoint rests." in text(page)
    assert "<html" not in text(page)
    assert page.headers["Vary"].count("HX-Request") == 1
    assert client.post(url("cancel", 1)).status_code == 302
    assert EvaluationRun.objects.get().state == RunState.CANCELLED
    ended = client.get(url("detail", 1), headers={"HX-Request": "true"})
    assert ended.headers["HX-Refresh"] == "true"
    assert "Cancelled after" in text(ended)
    assert client.post(url("cancel", 1)).status_code == 409


def test_re_evaluation_from_the_page(run: EvaluationRun, ada: User, client_of: ClientOf) -> None:
    response = client_of(ada).post(url("rerun", 1))
    assert response.headers["Location"] == url("detail", 2)
    assert EvaluationRun.objects.get(number=2).prompt_sha256 == run.prompt_sha256


def compared_runs(task: Task) -> tuple[EvaluationRun, EvaluationRun]:
    """A baseline that says Compliant to all, and a run that gets all but one right."""
    traces = examples(task, 14)
    before = finished(task, {trace.input["clause"]: "Compliant" for trace in traces})
    better = all_right(traces) | {traces[0].input["clause"]: "Breach"}
    return before, finished(task, better)


def test_two_runs_over_the_same_examples_are_paired(task: Task, ana: User, client_of: ClientOf) -> None:
    compared_runs(task)
    response = client_of(ana).get(url("compare") + "?run=1&run=2")
    (pair,) = response.context["comparison"].pairs
    assert (pair.paired.fixed, pair.paired.broken, pair.paired.n) == (6, 1, 14)
    # Binomial, 6 or more of 7 either way: 2 * (7 + 1) / 128.
    assert pair.paired.p_value == pytest.approx(0.125)
    assert [one.example.label for one in pair.fixed] == ["Breach", "Unclear", "Breach"] * 2
    assert [(one.gold, one.before, one.after) for one in pair.broken] == [("Compliant", "Compliant", "Breach")]
    page = text(response)
    assert "p = 0.125" in page
    assert page.count("stub-1 · validation · n = 14") >= 4
    assert "?run=1&amp;run=2&amp;against=2" in page
    turned = client_of(ana).get(url("compare") + "?run=1&run=2&against=2").context["comparison"].pairs[0]
    assert (turned.paired.fixed, turned.paired.broken) == (1, 6)


def test_a_baseline_is_the_reference_whatever_the_order(task: Task, ana: User, client_of: ClientOf) -> None:
    traces = examples(task, 5)
    finished(task, all_right(traces), kind=PromptKind.DRAFT, ruleset=steps.draft(task, ana))
    finished(task, all_right(traces))
    for query in ("?run=1&run=2", "?run=2&run=1"):
        runs = client_of(ana).get(url("compare") + query).context["comparison"].runs
        assert [one.run.number for one in runs] == [2, 1]


def test_runs_over_other_examples_stand_side_by_side_without_a_test(
    task: Task, ana: User, sam: User, sue: User, client_of: ClientOf
) -> None:
    compared_runs(task)
    finished(task, all_right(list(Trace.objects.all())), sample_size=7)
    release = steps.released(task, ana, sam, sue)
    tested = all_right(examples(task, 7, split=Split.TEST))
    finished(task, tested, split=Split.TEST, kind=PromptKind.RELEASE, release=release)
    response = client_of(ana).get(url("compare") + "?run=1&run=3&run=4")
    pairs = response.context["comparison"].pairs
    assert [pair.paired for pair in pairs] == [None, None]
    assert "asked about different examples" in text(response)
    assert "are over different splits" in text(response)


@pytest.mark.parametrize("query", ["", "?run=", "?run=99", "?run=-1&run=x", "?run=999999999999999999999"])
def test_a_comparison_of_nothing_says_what_to_do(task: Task, ana: User, client_of: ClientOf, query: str) -> None:
    response = client_of(ana).get(url("compare") + query)
    assert response.status_code == 200
    assert "No runs to compare" in text(response)


def test_more_than_four_runs_are_refused_and_unfinished_ones_named(task: Task, ana: User, client_of: ClientOf) -> None:
    compared_runs(task)
    make_run(task)
    client = client_of(ana)
    assert client.get(url("compare") + "".join(f"{'&' if n else '?'}run={n + 1}" for n in range(5))).status_code == 422
    assert "no finished run of that number: 3" in text(client.get(url("compare") + "?run=1&run=3"))


def test_a_run_names_its_baseline(task: Task, ana: User, client_of: ClientOf) -> None:
    traces = examples(task, 5)
    finished(task, all_right(traces))
    finished(task, all_right(traces), kind=PromptKind.DRAFT, ruleset=steps.draft(task, ana))
    page = text(client_of(ana).get(url("detail", 2)))
    assert f"{url('compare')}?run=1&amp;run=2" in page
    assert "Draft of ruleset 1" in page


def test_the_export_holds_every_prediction_and_disarms_formulas(task: Task, abe: User, client_of: ClientOf) -> None:
    formula = {"clause": '=HYPERLINK("http://x")', "question": "q"}
    traces = [*examples(task, 3), make_trace(task, split=Split.VALIDATION, external_id="=1+1", input=formula)]
    answers = all_right(traces) | {formula["clause"]: Plan(completion('{"label": "=cmd"}'))}
    run = finished(task, answers)
    client = client_of(abe)
    rows = list(csv.DictReader(io.StringIO(_body(client.get(url("export", 1, "csv"))).removeprefix("\ufeff"))))
    assert [row["example"] for row in rows][-1] == "'=1+1"
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert (rows[-1]["outcome"], rows[-1]["predicted"], rows[-1]["problem"]) == ("malformed", "", "unknown label")
    exported = json.loads(_body(client.get(url("export", 1, "json"))))
    assert exported["figures"] == run.figures
    assert (exported["prompt"], exported["prompt_sha256"]) == (run.prompt, run.prompt_sha256)
    assert [one["example"] for one in exported["predictions"]] == [trace.external_id for trace in traces]
    assert exported["predictions"][0]["model"] == "stub-1"
    event = AuditEvent.objects.filter(action="evaluation.exported").latest("pk")
    assert (event.actor, event.data["kind"], event.object_id) == (abe, "json", str(run.pk))
    assert client.get(url("export", 1, "exe")).status_code == 404


def test_a_run_without_predictions_exports_as_valid_json(task: Task, abe: User, client_of: ClientOf) -> None:
    examples(task, 1)
    student("http://127.0.0.1:9/v1", task)
    make_run(task)
    assert json.loads(_body(client_of(abe).get(url("export", 1, "json"))))["predictions"] == []


def _body(response: Any) -> str:
    return b"".join(response.streaming_content).decode()


def copies(run: EvaluationRun, count: int) -> None:
    """More finished runs like this one, as the database lets a run become one."""
    figures = run.figures
    for _ in range(count):
        run.pk = None
        run._state.adding = True
        run.number += 1
        run.state, run.figures, run.done = RunState.QUEUED, {}, 0
        run.save()
        runs = EvaluationRun.objects.filter(pk=run.pk)
        runs.update(state=RunState.RUNNING)
        runs.update(state=RunState.SUCCEEDED, figures=figures)


def test_the_list_costs_the_same_at_1_and_25_runs(
    task: Task, ana: User, ada: User, client_of: ClientOf, django_assert_num_queries: Any
) -> None:
    traces = examples(task, 3)
    first = finished(task, all_right(traces), kind=PromptKind.DRAFT, ruleset=steps.draft(task, ana), user=ada)
    client = client_of(ana)
    client.get(url("list"))
    with django_assert_num_queries(7):
        assert len(client.get(url("list")).context["rows"]) == 1
    copies(first, 30)
    with django_assert_num_queries(7):
        response = client.get(url("list"))
    assert len(response.context["rows"]) == 25
    assert "1 to 25 of 31" in text(response)


def test_the_errors_cost_the_same_at_1_and_25_rows(
    task: Task, ana: User, client_of: ClientOf, django_assert_num_queries: Any
) -> None:
    traces = examples(task, 30)
    finished(task, all_right(traces) | {traces[0].input["clause"]: "Breach"})
    finished(task, {trace.input["clause"]: Plan(completion("{}")) for trace in traces})
    client = client_of(ana)
    client.get(url("detail", 1))
    with django_assert_num_queries(8):
        assert len(client.get(url("detail", 1)).context["page"].object_list) == 1
    with django_assert_num_queries(8):
        assert len(client.get(url("detail", 2)).context["page"].object_list) == 25


def test_an_empty_list_says_what_to_do_next(task: Task, ada: User, ana: User, client_of: ClientOf) -> None:
    assert "Start an evaluation" in text(client_of(ada).get(url("list")))
    assert "An administrator starts evaluations" in text(client_of(ana).get(url("list")))


def test_runs_of_another_task_are_not_found(run: EvaluationRun, ana: User, client_of: ClientOf) -> None:
    make_task("other")
    assert client_of(ana).get(reverse("evaluation-detail", args=["other", 1])).status_code == 404


def test_a_student_that_mixed_models_is_pointed_out(task: Task, ana: User, client_of: ClientOf) -> None:
    traces = examples(task, 4)
    other = Plan({**completion(json.dumps({"label": "Breach"})), "model": "stub-2"})
    run = finished(task, all_right(traces) | {traces[0].input["clause"]: other})
    assert run.student_name == "stub-1, stub-2"
    assert "more than one model" in text(client_of(ana).get(url("detail", 1)))


def test_stored_figures_read_back_as_they_were(run: EvaluationRun) -> None:
    read = RunFigures.model_validate(run.figures)
    rows = run.predictions.order_by("example_id").values_list("gold", "label")
    assert read.metrics == score_run([g for g, _ in rows], [p or None for _, p in rows], LABELS, seed=run.seed)
    assert (read.malformed, read.no_answer) == (1, 1)
    assert read.malformed_rate == pytest.approx(0.1)
