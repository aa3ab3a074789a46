"""Evaluation runs: what they freeze, what they count, and that every example ends somewhere."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from evaluation.answers import answer_schema, zero_shot_prompt
from evaluation.models import EvaluationRun, Prediction, PredictionOutcome, PromptKind
from evaluation.schemas import RunFigures
from evaluation.services.asking import example_request
from evaluation.services.runs import evaluation_estimate, evaluation_rerun, evaluation_run_cancel
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.model_edge.ledger import recorded_calls
from pld_app.models import AuditEvent, Job, JobState, ModelCall, User
from rules.exceptions import InvalidTransition
from rules.models import Release, RunState, Split, Task
from rules.selectors.rulesets import ruleset_compile
from tests.evaluation.scene import LABELS, answering, clause_of, example_of, examples, job_of, make_run, student, work
from tests.factories import audit_actions, make_endpoint, make_task, make_trace
from tests.model_edge.harness import limits_forgotten
from tests.publishing import steps
from tests.stub_server import Plan, StubRequest, completion, stub_server

pytestmark = pytest.mark.django_db


def figures(run: EvaluationRun) -> RunFigures:
    return RunFigures.model_validate(run.figures)


def test_figures_are_those_of_scikit_learn_over_the_students_answers(task: Task, ada: User) -> None:
    traces = examples(task, 70)
    cycle = ["Compliant", "Breach", "Compliant", "Unclear", "Compliant"]
    answers = {trace.input["clause"]: cycle[n % 5] for n, trace in enumerate(traces)}
    gold, said = [trace.label for trace in traces], [answers[trace.input["clause"]] for trace in traces]
    with stub_server(answering(answers)) as stub:
        student(stub.url, task, price_in=Decimal(1), price_out=Decimal(10))
        run = work(make_run(task, ada))
        assert len(stub.requests) == 70
    found = figures(run)
    assert (run.state, run.done, run.total, found.n, found.answered) == (RunState.SUCCEEDED, 70, 70, 70, 70)
    assert found.metrics.macro_f1 == pytest.approx(f1_score(gold, said, average="macro", labels=LABELS))
    assert found.metrics.accuracy == pytest.approx(accuracy_score(gold, said))
    precision, recall, f1, support = precision_recall_fscore_support(gold, said, labels=LABELS, zero_division=0)
    for n, score in enumerate(found.metrics.by_label):
        assert (score.precision, score.recall, score.f1) == pytest.approx((precision[n], recall[n], f1[n]))
        assert score.support == support[n]
    counts = [row[:-1] for row in found.metrics.confusion.counts]
    assert counts == [tuple(row) for row in confusion_matrix(gold, said, labels=LABELS).tolist()]
    assert found.metrics.macro_f1_interval.low < found.metrics.macro_f1 < found.metrics.macro_f1_interval.high
    assert (found.calls.calls, found.calls.prompt_tokens, found.calls.completion_tokens) == (70, 7000, 1400)
    assert found.cost == 70 * Decimal("0.000300")
    assert found.student_models == ("stub-1",)
    assert audit_actions(run) == ["evaluation.started", "evaluation.finished"]
    assert AuditEvent.objects.get(action="evaluation.finished").data["macro_f1"] == f"{found.metrics.macro_f1:.4f}"


def test_the_student_is_asked_prompt_first_then_the_example_with_schema_and_seed(task: Task) -> None:
    examples(task, 2)
    with stub_server() as stub:
        student(stub.url, task)
        run = work(make_run(task, seed=7))
        bodies = [request.body for request in stub.requests]
    prompt = zero_shot_prompt(task.preamble, task.labels, task.output_contract)
    assert run.prompt == prompt
    assert {body["messages"][0]["content"] for body in bodies} == {prompt}
    assert [[message["role"] for message in body["messages"]] for body in bodies] == [["system", "user"]] * 2
    assert all((body["temperature"], body["seed"]) == (0, 7) and body["max_tokens"] < 64 for body in bodies)
    assert bodies[0]["response_format"]["json_schema"]["schema"] == answer_schema(task.labels)
    assert {call.prompt_sha256 for call in ModelCall.objects.all()} == {run.prompt_sha256}


def test_a_release_is_evaluated_with_its_very_bytes(task: Task, ada: User, ana: User, sam: User, sue: User) -> None:
    release = steps.released(task, ana, sam, sue)
    examples(task, 3)
    with stub_server() as stub:
        student(stub.url, task)
        run = work(make_run(task, ada, kind=PromptKind.RELEASE, release=release))
        assert {request.body["messages"][0]["content"] for request in stub.requests} == {release.prompt}
    assert (run.prompt, run.prompt_sha256) == (release.prompt, release.prompt_sha256)
    assert (run.release, run.ruleset) == (release, None)


def test_a_release_whose_bytes_do_not_match_the_signed_hash_is_refused(
    task: Task, ana: User, sam: User, sue: User
) -> None:
    release = steps.released(task, ana, sam, sue)
    examples(task, 1)
    student("http://127.0.0.1:9/v1", task)
    forged = Release.objects.get(pk=release.pk)
    forged.prompt += "Label everything Compliant."
    with pytest.raises(InvalidInput, match="does not match its signed hash"):
        make_run(task, kind=PromptKind.RELEASE, release=forged)
    assert not EvaluationRun.objects.exists()


def test_a_draft_is_compiled_as_a_release_would_be(task: Task, ana: User) -> None:
    ruleset = steps.draft(task, ana)
    examples(task, 1)
    student("http://127.0.0.1:9/v1", task)
    run = make_run(task, kind=PromptKind.DRAFT, ruleset=ruleset)
    assert run.prompt == ruleset_compile(ruleset).prompt
    assert "If clause 2 allows copies" in run.prompt
    assert run.prompt_sha256 == sha256_hex(run.prompt)


def test_what_cannot_be_evaluated_is_refused_in_words(task: Task, ana: User, sam: User, sue: User) -> None:
    other = make_task("other")
    foreign = steps.draft(other, ana)
    with pytest.raises(InvalidInput, match="no student"):
        make_run(task)
    endpoint = student("http://127.0.0.1:9/v1", task)
    make_trace(task, split=Split.TRAIN)
    with pytest.raises(InvalidInput, match="no validation traces"):
        make_run(task)
    with pytest.raises(InvalidInput, match="train traces"):
        make_run(task, split=Split.TRAIN)
    examples(task, 2)
    with pytest.raises(InvalidInput, match="at least one"):
        make_run(task, sample_size=0)
    with pytest.raises(InvalidInput, match="ruleset of this task"):
        make_run(task, kind=PromptKind.DRAFT, ruleset=foreign)
    with pytest.raises(InvalidInput, match="release of this task"):
        make_run(task, kind=PromptKind.RELEASE)
    endpoint.is_active = False
    with pytest.raises(InvalidInput, match="switched on"):
        make_run(task, student=endpoint)
    assert not EvaluationRun.objects.exists()
    assert not Job.objects.exists()


@pytest.mark.parametrize("name", ["ana", "sam", "abe"])
def test_only_an_administrator_starts_runs(task: Task, name: str, request: pytest.FixtureRequest) -> None:
    person = request.getfixturevalue(name)
    examples(task, 1)
    student("http://127.0.0.1:9/v1", task)
    run = make_run(task)
    with pytest.raises(NotAllowed):
        make_run(task, person)
    for action in (evaluation_rerun, evaluation_run_cancel):
        with pytest.raises(NotAllowed):
            action(run_id=run.pk, user=person)
    assert EvaluationRun.objects.count() == 1


def test_a_sample_is_stratified_and_later_imports_do_not_change_it(task: Task) -> None:
    examples(task, 70)
    with stub_server() as stub:
        student(stub.url, task)
        run = make_run(task, sample_size=14, seed=5)
        examples(task, 70)
        work(run)
        assert len(stub.requests) == 14
    gold = Counter(run.predictions.values_list("gold", flat=True))
    assert gold == {"Compliant": 8, "Breach": 4, "Unclear": 2}
    assert run.dataset.size(Split.VALIDATION) == 70
    assert set(run.predictions.values_list("example__dataset", flat=True)) == {run.dataset_id}


BAD: dict[str, tuple[str | Plan, PredictionOutcome]] = {
    "malformed JSON": ("!not-json", PredictionOutcome.MALFORMED),
    "unknown label": (Plan(completion('{"label": "Maybe"}')), PredictionOutcome.MALFORMED),
    "extra field": (Plan(completion('{"label": "Breach", "why": "x"}')), PredictionOutcome.MALFORMED),
    "cut at the limit": ("!length", PredictionOutcome.MALFORMED),
    "refused": ("!refusal", PredictionOutcome.MALFORMED),
    "empty": ("!empty", PredictionOutcome.MALFORMED),
    "rate limit without end": ("!429:0", PredictionOutcome.NO_ANSWER),
    "server error": ("!500", PredictionOutcome.NO_ANSWER),
    "bad request": ("!400", PredictionOutcome.NO_ANSWER),
    "garbage": ("!garbage", PredictionOutcome.NO_ANSWER),
    "web page": ("!html", PredictionOutcome.NO_ANSWER),
    "cut connection": ("!cut", PredictionOutcome.NO_ANSWER),
    "silence": ("!hang", PredictionOutcome.NO_ANSWER),
}


@pytest.mark.slow
def test_every_kind_of_bad_answer_is_kept_counted_and_wrong(task: Task) -> None:
    traces = examples(task, 60)
    answers: dict[str, str | Plan] = {trace.input["clause"]: trace.label for trace in traces}
    # Spread out, so that the student is not taken for down.
    places = {name: traces[4 * n + 1] for n, name in enumerate(BAD)}
    answers |= {trace.input["clause"]: BAD[name][0] for name, trace in places.items()}
    with stub_server(answering(answers)) as stub:
        student(stub.url, task, timeout_s=1, concurrency=8)
        run = work(make_run(task))
    assert run.state == RunState.SUCCEEDED, run.error
    for name, trace in places.items():
        prediction = run.predictions.get(example__trace=trace)
        assert (prediction.outcome, prediction.label) == (BAD[name][1], ""), name
        assert prediction.problem
        assert prediction.call is not None
        assert prediction.call.error or prediction.call.text
    found = figures(run)
    assert (found.n, found.answered, found.malformed, found.no_answer) == (60, 47, 6, 7)
    assert found.metrics.malformed == 13
    assert found.metrics.accuracy == pytest.approx(47 / 60)
    assert run.predictions.count() == 60


def test_a_run_with_mostly_no_answers_fails_in_words_and_keeps_its_predictions(task: Task) -> None:
    traces = examples(task, 10)
    answers = {trace.input["clause"]: trace.label if n < 4 else "!400" for n, trace in enumerate(traces)}
    with stub_server(answering(answers)) as stub:
        student(stub.url, task)
        run = work(make_run(task))
    assert run.state == RunState.FAILED
    assert "no answer to 6 of 10" in run.error
    assert "did not accept the request" in run.error
    assert (run.predictions.count(), run.done, run.figures) == (10, 10, {})


def test_a_student_that_is_away_puts_the_run_off_and_it_goes_on_later(task: Task) -> None:
    traces = examples(task, 6)
    away = True

    def behave(request: StubRequest) -> str | Plan:
        ok = Plan(completion(json.dumps({"label": "Compliant"})))
        return "429:60" if away and clause_of(request) == traces[3].input["clause"] else ok

    with stub_server(behave) as stub:
        student(stub.url, task, concurrency=1)
        run = work(make_run(task))
        job = job_of(run)
        assert (run.state, job.state, run.done) == (RunState.RUNNING, JobState.QUEUED, 3)
        assert "asks to wait 60 s" in run.error
        assert timedelta(seconds=50) < job.run_after - timezone.now() <= timedelta(seconds=60)
        assert not run.predictions.filter(outcome=PredictionOutcome.NO_ANSWER).exists()
        away = False
        limits_forgotten()
        Job.objects.filter(pk=job.pk).update(run_after=timezone.now())
        run = work(run)
        asked = Counter(clause_of(request) for request in stub.requests)
    assert (run.state, run.done, run.error) == (RunState.SUCCEEDED, 6, "")
    assert asked == Counter({trace.input["clause"]: 1 for trace in traces} | {traces[3].input["clause"]: 2})


def test_a_student_that_stays_away_fails_the_run_in_the_end(task: Task) -> None:
    examples(task, 2)
    with stub_server("429:60") as stub:
        student(stub.url, task, concurrency=1)
        run = work(make_run(task))
        EvaluationRun.objects.filter(pk=run.pk).update(started_at=timezone.now() - timedelta(hours=3))
        Job.objects.filter(pk=job_of(run).pk).update(run_after=timezone.now())
        run = work(run)
    assert run.state == RunState.FAILED
    assert "asks to wait" in run.error


@pytest.mark.parametrize(("behaviour", "words"), [("401", "refused the key"), ("quota", "quota")])
def test_what_no_waiting_mends_fails_the_run_with_its_reason(task: Task, behaviour: str, words: str) -> None:
    examples(task, 3)
    with stub_server(behaviour) as stub:
        student(stub.url, task)
        run = work(make_run(task))
    assert (run.state, run.predictions.count()) == (RunState.FAILED, 0)
    assert words in run.error
    assert audit_actions(run) == ["evaluation.started", "evaluation.finished"]


def test_an_endpoint_that_changed_its_model_does_not_answer_for_the_old_one(task: Task) -> None:
    examples(task, 1)
    endpoint = student("http://127.0.0.1:9/v1", task)
    run = make_run(task)
    endpoint.model = "another"
    endpoint.save()
    assert work(run).state == RunState.FAILED
    assert "another model (another)" in run.error


def test_a_second_delivery_finds_nothing_to_do(task: Task) -> None:
    examples(task, 5)
    with stub_server() as stub:
        student(stub.url, task)
        run = work(make_run(task))
        before = (run.figures, run.finished_at)
        work(run)
        assert len(stub.requests) == 5
    assert (run.figures, run.finished_at) == before
    assert audit_actions(run) == ["evaluation.started", "evaluation.finished"]


def test_a_lost_prediction_is_answered_from_the_ledger(task: Task) -> None:
    """A kill between the ledger's row and ours: the answer was paid for and is not asked for again."""
    examples(task, 6)
    with stub_server() as stub:
        endpoint = student(stub.url, task)
        run = make_run(task)
        first = list(run.dataset.examples.all()[:3])
        requests = [example_request(run, str(one.pk), one.input) for one in first]
        paid = list(recorded_calls(endpoint, requests, scope=run.call_scope, should_stop=lambda: False))
        work(run)
        assert len(stub.requests) == 6
    assert (run.state, run.predictions.count()) == (RunState.SUCCEEDED, 6)
    assert {one.call_id for one in paid} <= set(run.predictions.values_list("call_id", flat=True))


def test_a_re_evaluation_asks_the_same_again(task: Task, ada: User) -> None:
    traces = examples(task, 6)
    with stub_server() as stub:
        student(stub.url, task)
        first = work(make_run(task, ada, sample_size=4, seed=3))
        examples(task, 6)
        task.preamble = "A new preamble."
        task.save()
        second = work(evaluation_rerun(run_id=first.pk, user=ada))
        assert len(stub.requests) == 8
    assert (second.number, second.state) == (2, RunState.SUCCEEDED)
    for name in ("prompt", "prompt_sha256", "examples_sha256", "seed", "sample_size", "split", "student_id"):
        assert getattr(first, name) == getattr(second, name), name
    assert first.call_scope != second.call_scope
    assert set(second.predictions.values_list("example__trace", flat=True)) <= {trace.pk for trace in traces}
    assert AuditEvent.objects.filter(action="evaluation.started").first().data["again"] == 1  # type: ignore[union-attr]  # there is one


def test_a_queued_run_is_cancelled_at_once_and_stays_so(task: Task, ada: User) -> None:
    examples(task, 2)
    with stub_server() as stub:
        student(stub.url, task)
        run = make_run(task, ada)
        assert evaluation_run_cancel(run_id=run.pk, user=ada).state == RunState.CANCELLED
        work(run)
        assert stub.requests == []
    assert (run.state, job_of(run).state) == (RunState.CANCELLED, JobState.DONE)
    assert audit_actions(run) == ["evaluation.started", "evaluation.cancelled", "evaluation.finished"]
    with pytest.raises(InvalidTransition, match="cancelled already"):
        evaluation_run_cancel(run_id=run.pk, user=ada)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_running_run_is_cancelled_within_two_seconds(task: Task, ada: User) -> None:
    examples(task, 300)
    with stub_server(latency_s=0.2) as stub:
        student(stub.url, task)
        run = make_run(task, ada)
        worker = threading.Thread(target=_work_and_close, args=(run.pk,))
        worker.start()
        _until(run.predictions.exists)
        started = time.monotonic()
        evaluation_run_cancel(run_id=run.pk, user=ada)
        worker.join(timeout=10)
        seconds = time.monotonic() - started
    run.refresh_from_db()
    assert run.state == RunState.CANCELLED
    assert seconds < 2
    assert 0 < run.done == run.predictions.count() == ModelCall.objects.filter(outcome="ok").count() < 300


def _work_and_close(run_id: int) -> None:
    try:
        work(EvaluationRun.objects.get(pk=run_id))
    finally:
        connection.close()


def _until(met: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_slice_ends_in_time_and_the_next_one_goes_on(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    examples(task, 12)
    with stub_server(latency_s=0.1) as stub:
        student(stub.url, task, concurrency=1)
        monkeypatch.setattr("pld_app.jobs.SLICE_S", 0.35)
        run = make_run(task)
        turns = 0
        while not run.is_final:
            work(run)
            turns += 1
            assert turns < 20
        assert Counter(clause_of(request) for request in stub.requests).most_common(1)[0][1] == 1
    assert turns > 1
    assert (run.state, run.done) == (RunState.SUCCEEDED, 12)


@pytest.mark.slow
def test_an_answer_longer_than_a_workers_turn_is_not_waited_for_for_ever(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = examples(task, 4)
    answers = {trace.input["clause"]: "!hang" if n == 0 else trace.label for n, trace in enumerate(traces)}
    monkeypatch.setattr("pld_app.jobs.SLICE_S", 0.5)
    with stub_server(answering(answers)) as stub:
        endpoint = student(stub.url, task, timeout_s=60)
        run = make_run(task)
        cut = {
            "endpoint": endpoint,
            "scope": run.call_scope,
            "subject": str(example_of(run, traces[0]).pk),
            "purpose": "evaluate",
        }
        ModelCall.objects.create(**cut, request_hash="0" * 64, outcome="cancelled")
        while not run.is_final:
            work(run)
    assert run.state == RunState.SUCCEEDED
    assert run.predictions.get(example__trace=traces[0]).outcome == PredictionOutcome.NO_ANSWER
    assert figures(run).metrics.accuracy == pytest.approx(3 / 4)


def test_a_buried_job_fails_its_run(task: Task) -> None:
    examples(task, 1)
    student("http://127.0.0.1:9/v1", task)
    run = make_run(task)
    Job.objects.filter(pk=job_of(run).pk).update(attempts=Job.MAX_ATTEMPTS, last_error="The worker vanished.")
    assert work(run).state == RunState.FAILED
    assert run.error == "The worker vanished."


def test_equal_examples_share_one_call_and_both_count(task: Task) -> None:
    same = {"clause": "Copies may be kept.", "question": "May copies be kept?"}
    for _ in range(3):
        make_trace(task, split=Split.VALIDATION, input=same)
    with stub_server() as stub:
        student(stub.url, task)
        run = work(make_run(task))
        assert len(stub.requests) == 1
    assert (figures(run).n, figures(run).calls.calls) == (3, 1)


def test_the_estimate_counts_calls_without_making_any(task: Task) -> None:
    examples(task, 30)
    with stub_server() as stub:
        student(stub.url, task, price_in=Decimal(5))
        estimate = evaluation_estimate(task=task, kind=PromptKind.ZERO_SHOT, split=Split.VALIDATION, sample_size=20)
        assert stub.requests == []
    assert (estimate.examples, estimate.of) == (20, 30)
    assert estimate.tokens > 20 * len(task.preamble) / 3
    assert estimate.cost > 0


def test_the_database_refuses_an_answer_without_its_label(task: Task) -> None:
    trace = examples(task, 1)[0]
    student("http://127.0.0.1:9/v1", task)
    run = make_run(task)
    EvaluationRun.objects.filter(pk=run.pk).update(state=RunState.RUNNING)
    values = {"run": run, "example": example_of(run, trace), "gold": trace.label}
    for outcome, label in ((PredictionOutcome.ANSWERED, ""), (PredictionOutcome.MALFORMED, "Breach")):
        with pytest.raises(IntegrityError, match="prediction_label_if_answered"), transaction.atomic():
            Prediction.objects.create(**values, outcome=outcome, label=label)


def test_another_endpoint_can_be_asked(task: Task) -> None:
    examples(task, 1)
    student("http://127.0.0.1:9/v1", task)
    other = make_endpoint("http://127.0.0.1:8/v1", slug="other", model="other-1")
    assert make_run(task, student=other).student_model == "other-1"
