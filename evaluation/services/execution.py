"""What a worker does with an evaluation run: answer each example, record, and add up."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from evaluation.answers import parse_answer
from evaluation.models import NEED_STUDENT, EvaluationRun, Example, Prediction, PredictionOutcome, PromptKind
from evaluation.schemas import RunFigures
from evaluation.selectors.runs import examples_of, run_figures
from evaluation.services.asking import example_request
from evaluation.services.baselines import baseline_predictions
from evaluation.services.judging import JOB_KIND as JUDGE_JOB
from evaluation.services.writing import Cancelled, SliceOver, StopQuestion, Writer
from evaluation.transitions import evaluation_run_move
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, PutOff, job_enqueue
from pld_app.model_edge import BudgetExhausted, CallRequest, EndpointMisconfigured, ModelUnavailable, Outcome
from pld_app.model_edge.ledger import RecordedCall, recorded_calls
from pld_app.models import ModelCall
from rules.models import RunState

JOB_KIND = "evaluation_run"
BATCH = 200
MAX_WAIT = timedelta(hours=2)
# A call may be longer than a worker's turn; cut off that often, it counts as not answered.
CUT_OFFS = 2
_REPLIED = frozenset({Outcome.OK, Outcome.REFUSED, Outcome.LENGTH})


class AlreadyOver(Exception):
    """The run or loop ended, or waits for people, before this worker began."""


def evaluation_run_execute(run_id: int, lease: Lease) -> JobResult:
    """Predict every example that has no prediction yet, then add up; a repeated call goes on where the last stopped."""
    try:
        run = _run_start(run_id, lease)
        _examples_answer(run, lease)
        _run_conclude(run, lease)
    except AlreadyOver:
        return JobResult.DONE
    except SliceOver:
        return JobResult.AGAIN
    except Cancelled:
        run_finish(run_id, lease, RunState.CANCELLED)
        return JobResult.CANCELLED
    except ModelUnavailable as error:
        _put_off_or_fail(run_id, lease, error)
    except (BudgetExhausted, EndpointMisconfigured, InvalidInput) as error:
        run_finish(run_id, lease, RunState.FAILED, error=str(error))
    return JobResult.DONE


def evaluation_run_failed(run_id: int, error: str) -> None:
    """The job was given up: say so on the run."""
    run_finish(run_id, None, RunState.FAILED, error=error)


@transaction.atomic
def run_finish(
    run_id: int, lease: Lease | None, state: RunState, *, error: str = "", figures: RunFigures | None = None
) -> None:
    """Close the run with its one event; nothing happens to a run that is closed. `lease` None: no worker holds it."""
    run = EvaluationRun.objects.select_for_update(of=("self",)).select_related("task").get(pk=run_id)
    if lease is not None:
        lease.check()
    if run.is_final:
        return
    evaluation_run_move(run, state)
    run.error = error
    run.finished_at = timezone.now()
    run.done = run.predictions.count()
    run.figures = figures.model_dump(mode="json") if figures else {}
    run.save(update_fields=["state", "error", "finished_at", "done", "figures"])
    data: dict[str, Json] = {"state": state.value, "error": error, "done": run.done, "n": run.total}
    if figures:
        data |= {"macro_f1": f"{figures.metrics.macro_f1:.4f}", "accuracy": f"{figures.metrics.accuracy:.4f}"}
    audit_record("evaluation.finished", actor=None, subject=run, task_slug=run.task.slug, data=data)
    if state is RunState.SUCCEEDED and run.kind in (PromptKind.DRAFT, PromptKind.RELEASE):
        job_enqueue(kind=JUDGE_JOB, subject_id=run.task_id, key=f"{JUDGE_JOB}:{run.pk}")


@transaction.atomic
def _run_start(run_id: int, lease: Lease) -> EvaluationRun:
    run = (
        EvaluationRun.objects.select_for_update(of=("self",))
        .select_related("task", "student", "embedder", "ruleset", "release")
        .get(pk=run_id)
    )
    lease.check()
    if run.is_final:
        raise AlreadyOver
    if run.cancel_requested_at is not None:
        raise Cancelled
    if sha256_hex(run.prompt) != run.prompt_sha256:
        raise InvalidInput(_("The prompt of this run no longer matches its hash, so nothing was asked."))
    if run.student is not None and run.student.model != run.student_model:
        text = _("The student endpoint now names another model (%(model)s). Start a new run for it.")
        raise InvalidInput(text % {"model": run.student.model})
    if run.state == RunState.QUEUED:
        evaluation_run_move(run, RunState.RUNNING)
        run.started_at = timezone.now()
        run.save(update_fields=["state", "started_at"])
    return run


def _examples_answer(run: EvaluationRun, lease: Lease) -> None:
    """Answer what is open. Raises Cancelled, SliceOver, LeaseLost or ModelUnavailable when it ends early."""
    gold = {example.example_id: example.label for example in examples_of(run)}
    answered = set(run.predictions.values_list("repeat", "example_id"))
    writer = Writer(run, lease, gold, done=len(answered))
    stop = StopQuestion(run, lease, writer.flush_if_due)
    for repeat in range(run.repeats):
        open_ids = [example_id for example_id in gold if (repeat, example_id) not in answered]
        if run.kind in NEED_STUDENT:
            _ask(run, repeat, open_ids, writer, stop)
        else:
            for prediction in baseline_predictions(run, open_ids, should_stop=stop.should_stop):
                writer.add(prediction)
            writer.flush()
        stop.check()


def _ask(run: EvaluationRun, repeat: int, open_ids: list[int], writer: Writer, stop: StopQuestion) -> None:
    """Ask the student about these examples, for one repetition."""
    assert run.student is not None
    unanswered: list[RecordedCall] = []
    scope = run.repeat_scope(repeat)
    try:
        requests = _requests(run, repeat, open_ids)
        for recorded in recorded_calls(run.student, requests, scope=scope, should_stop=stop.should_stop, run=str(run)):
            if recorded.is_new:
                writer.lease.progressed()
            if is_reply(recorded):
                writer.add(_prediction(run, repeat, recorded))
            elif recorded.outcome is not Outcome.CANCELLED or cut_off_too_often(scope, recorded):
                unanswered.append(recorded)
    finally:
        writer.flush()
    # Only now: while the endpoint may merely be away (ModelUnavailable), a failed call is asked again later.
    for recorded in unanswered:
        writer.add(_prediction(run, repeat, recorded))
    writer.flush()


def _requests(run: EvaluationRun, repeat: int, example_ids: list[int]) -> Iterator[CallRequest]:
    """Questions in the fixed order, with as few texts in memory as the ledger's look-ahead takes."""
    for start in range(0, len(example_ids), BATCH):
        examples = Example.objects.only("input").in_bulk(example_ids[start : start + BATCH])
        for example_id in example_ids[start : start + BATCH]:
            yield example_request(run, str(example_id), examples[example_id].input, repeat=repeat)


def is_reply(recorded: RecordedCall) -> bool:
    """Whether the student itself replied, usably or not; a failing server is no answer of the student's."""
    if recorded.outcome is Outcome.MALFORMED:
        return bool(recorded.model_returned or recorded.prompt_tokens)
    return recorded.outcome in _REPLIED


def cut_off_too_often(scope: str, recorded: RecordedCall) -> bool:
    if recorded.call_id is None:
        return False
    cut = ModelCall.objects.filter(scope=scope, subject=recorded.request.key, outcome=Outcome.CANCELLED)
    return cut.count() >= CUT_OFFS


def _prediction(run: EvaluationRun, repeat: int, recorded: RecordedCall) -> Prediction:
    example_id = int(recorded.request.key)
    prediction = Prediction(run=run, example_id=example_id, repeat=repeat, call_id=recorded.call_id)
    if not recorded.ok:
        prediction.problem = recorded.error[:300]
        prediction.outcome = PredictionOutcome.MALFORMED if is_reply(recorded) else PredictionOutcome.NO_ANSWER
        return prediction
    answer = parse_answer(recorded.text, run.labels, run.abstention_label)
    prediction.label = answer.label or ""
    if answer.problem is not None:
        prediction.problem, prediction.outcome = answer.problem.value, PredictionOutcome.MALFORMED
    elif answer.abstained:
        prediction.outcome = PredictionOutcome.ABSTAINED
    return prediction


def _run_conclude(run: EvaluationRun, lease: Lease) -> None:
    outcomes = Counter(run.predictions.order_by().values_list("outcome", flat=True).iterator())
    if 2 * outcomes[PredictionOutcome.NO_ANSWER] <= outcomes.total():
        run_finish(run.pk, lease, RunState.SUCCEEDED, figures=run_figures(run))
        return
    problem = run.predictions.filter(outcome=PredictionOutcome.NO_ANSWER).values_list("problem", flat=True).first()
    text = _("The student gave no answer to %(k)d of %(n)d examples, so there are no figures. The first: %(problem)s")
    values = {"k": outcomes[PredictionOutcome.NO_ANSWER], "n": outcomes.total(), "problem": problem}
    run_finish(run.pk, lease, RunState.FAILED, error=text % values)


def _put_off_or_fail(run_id: int, lease: Lease, error: ModelUnavailable) -> None:
    run = EvaluationRun.objects.get(pk=run_id)
    answers = ModelCall.objects.filter(scope__in=run.call_scopes, outcome=ModelCall.OK).order_by("-pk")
    heard_from = answers.values_list("at", flat=True).first() or run.started_at or timezone.now()
    if error.retry_after_s is None or timezone.now() - heard_from > MAX_WAIT:
        run_finish(run_id, lease, RunState.FAILED, error=str(error))
        return
    with transaction.atomic():
        lease.check()
        EvaluationRun.objects.filter(pk=run_id).update(error=str(error))
    raise PutOff(timezone.now() + timedelta(seconds=error.retry_after_s), str(error)) from error
