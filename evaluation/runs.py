"""What a worker does with an evaluation run: ask the student about each example, record, and add up."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from evaluation.answers import answer_schema, parse_answer, render_user_message
from evaluation.models import EvaluationRun, Prediction, PredictionOutcome
from evaluation.schemas import RunFigures
from evaluation.selectors import examples_of, run_figures
from evaluation.transitions import evaluation_run_move
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, PutOff
from pld_app.model_edge import (
    BudgetExhausted,
    CallRequest,
    ChatBody,
    EndpointMisconfigured,
    Message,
    ModelUnavailable,
    Outcome,
)
from pld_app.model_edge.ledger import RecordedCall, recorded_calls
from pld_app.models import ModelCall
from rules.models import RunState, Task, Trace

JOB_KIND = "evaluation_run"
PURPOSE = "evaluate"
# What a stream of calls does not wait for: rows that are buffered, and the question whether to stop.
FLUSH_S = 0.5
ASK_STOP_S = 0.2
BATCH = 200
MAX_WAIT = timedelta(hours=2)
# A call may be longer than a worker's turn; cut off that often, it counts as not answered.
CUT_OFFS = 2
_REPLIED = frozenset({Outcome.OK, Outcome.REFUSED, Outcome.LENGTH})


class Cancelled(Exception):
    """A person asked the run to stop."""


class SliceOver(Exception):
    """This worker's turn is over; the run goes on in the next one."""


class AlreadyOver(Exception):
    """The run ended before this worker began."""


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


def example_request(task: Task, prompt: str, seed: int, trace: Trace) -> CallRequest:
    """One question to the student. The prompt comes first and is the same each time, so servers reuse their cache."""
    try:
        content = render_user_message(task.input_fields, trace.input)
    except ValueError as error:
        raise InvalidInput(
            _("Trace %(trace)s cannot be asked about: %(why)s") % {"trace": trace, "why": error}
        ) from error
    body = ChatBody(
        messages=(Message("system", prompt), Message("user", content)),
        schema_name="answer",
        schema=answer_schema(task.labels),
        temperature=0.0,
        seed=seed,
        max_tokens=answer_tokens(task.labels),
    )
    return CallRequest(key=str(trace.pk), purpose=PURPOSE, body=body)


def answer_tokens(labels: list[str]) -> int:
    """Room for the JSON around the longest label, at the worst rate of one token a byte."""
    return 32 + max(len(label.encode()) for label in labels)


@transaction.atomic
def _run_start(run_id: int, lease: Lease) -> EvaluationRun:
    run = EvaluationRun.objects.select_for_update(of=("self",)).select_related("task", "student").get(pk=run_id)
    lease.check()
    if run.is_final:
        raise AlreadyOver
    if run.cancel_requested_at is not None:
        raise Cancelled
    if sha256_hex(run.prompt) != run.prompt_sha256:
        raise InvalidInput(_("The prompt of this run no longer matches its hash, so nothing was asked."))
    if run.student.model != run.student_model:
        text = _("The student endpoint now names another model (%(model)s). Start a new run for it.")
        raise InvalidInput(text % {"model": run.student.model})
    if run.state == RunState.QUEUED:
        evaluation_run_move(run, RunState.RUNNING)
        run.started_at = timezone.now()
        run.save(update_fields=["state", "started_at"])
    return run


def _examples_answer(run: EvaluationRun, lease: Lease) -> None:
    """Ask about what is open. Raises Cancelled, SliceOver, LeaseLost or ModelUnavailable when it ends early."""
    gold = {example.trace_id: example.label for example in examples_of(run)}
    answered = set(run.predictions.values_list("trace_id", flat=True))
    open_ids = [trace_id for trace_id in gold if trace_id not in answered]
    writer = _Writer(run, lease, gold, done=len(answered))
    stop = _StopQuestion(run, lease, writer.flush_if_due)
    unanswered: list[RecordedCall] = []
    try:
        for recorded in recorded_calls(
            run.student,
            _requests(run, open_ids),
            scope=run.call_scope,
            should_stop=stop.should_stop,
            run=str(run),
        ):
            if _is_reply(recorded):
                writer.add(_prediction(run, recorded))
            elif recorded.outcome is not Outcome.CANCELLED or _cut_off_too_often(run, recorded):
                unanswered.append(recorded)
    finally:
        writer.flush()
    # Only now: while the endpoint may merely be away (ModelUnavailable), a failed call is asked again later.
    for recorded in unanswered:
        writer.add(_prediction(run, recorded))
    writer.flush()
    stop.check()


def _requests(run: EvaluationRun, trace_ids: list[int]) -> Iterator[CallRequest]:
    """Questions in the fixed order, with as few texts in memory as the ledger's look-ahead takes."""
    for start in range(0, len(trace_ids), BATCH):
        traces = Trace.objects.only("external_id", "input").in_bulk(trace_ids[start : start + BATCH])
        for trace_id in trace_ids[start : start + BATCH]:
            yield example_request(run.task, run.prompt, run.seed, traces[trace_id])


def _is_reply(recorded: RecordedCall) -> bool:
    """Whether the student itself replied, usably or not; a failing server is no answer of the student's."""
    if recorded.outcome is Outcome.MALFORMED:
        return bool(recorded.model_returned or recorded.prompt_tokens)
    return recorded.outcome in _REPLIED


def _cut_off_too_often(run: EvaluationRun, recorded: RecordedCall) -> bool:
    if recorded.call_id is None:
        return False
    cut = ModelCall.objects.filter(scope=run.call_scope, subject=recorded.request.key, outcome=Outcome.CANCELLED)
    return cut.count() >= CUT_OFFS


def _prediction(run: EvaluationRun, recorded: RecordedCall) -> Prediction:
    prediction = Prediction(run=run, trace_id=int(recorded.request.key), call_id=recorded.call_id)
    if recorded.ok:
        answer = parse_answer(recorded.text, run.task.labels)
        prediction.label = answer.label or ""
        prediction.problem = answer.problem.value if answer.problem else ""
        prediction.outcome = PredictionOutcome.MALFORMED if answer.problem else PredictionOutcome.ANSWERED
    else:
        prediction.problem = recorded.error[:300]
        prediction.outcome = PredictionOutcome.MALFORMED if _is_reply(recorded) else PredictionOutcome.NO_ANSWER
    return prediction


class _Writer:
    """Writes predictions in small batches. What a kill takes from the buffer is in the ledger and is not paid again."""

    def __init__(self, run: EvaluationRun, lease: Lease, gold: dict[int, str], *, done: int) -> None:
        self.run = run
        self.lease = lease
        self.gold = gold
        self.done = done
        self._rows: list[Prediction] = []
        self._flushed_at = time.monotonic()

    def add(self, prediction: Prediction) -> None:
        prediction.gold = self.gold[prediction.trace_id]
        self._rows.append(prediction)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        if len(self._rows) >= BATCH or time.monotonic() - self._flushed_at > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        self._flushed_at = time.monotonic()
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        with transaction.atomic():
            self.lease.check()
            # A worker that lost its lease a moment ago may have written some of them: the same answers of the ledger.
            Prediction.objects.bulk_create(rows, ignore_conflicts=True)
            self.done += len(rows)
            EvaluationRun.objects.filter(pk=self.run.pk).update(done=self.done, error="")
        self.lease.progressed()


class _StopQuestion:
    """Whether to make no further call; the database is asked a few times a second, however fast the calls are."""

    def __init__(self, run: EvaluationRun, lease: Lease, meanwhile: Callable[[], None]) -> None:
        self.run = run
        self.lease = lease
        self.meanwhile = meanwhile
        self._asked_at = 0.0
        self._cancelled = False

    def should_stop(self) -> bool:
        self.meanwhile()
        if self.lease.lost.is_set() or self.lease.slice_over:
            return True
        if not self._cancelled and time.monotonic() - self._asked_at > ASK_STOP_S:
            self._asked_at = time.monotonic()
            self._cancelled = self._is_cancelled()
        return self._cancelled

    def check(self) -> None:
        """Raise what ended a stream of calls early, if anything did: LeaseLost, Cancelled or SliceOver."""
        self.lease.check()
        if self._is_cancelled():
            raise Cancelled
        if self.lease.slice_over:
            raise SliceOver

    def _is_cancelled(self) -> bool:
        return EvaluationRun.objects.filter(pk=self.run.pk, cancel_requested_at__isnull=False).exists()


def _run_conclude(run: EvaluationRun, lease: Lease) -> None:
    figures = run_figures(run)
    if 2 * figures.no_answer <= figures.n:
        run_finish(run.pk, lease, RunState.SUCCEEDED, figures=figures)
        return
    problem = run.predictions.filter(outcome=PredictionOutcome.NO_ANSWER).values_list("problem", flat=True).first()
    text = _("The student gave no answer to %(k)d of %(n)d examples, so there are no figures. The first: %(problem)s")
    values = {"k": figures.no_answer, "n": figures.n, "problem": problem}
    run_finish(run.pk, lease, RunState.FAILED, error=text % values)


def _put_off_or_fail(run_id: int, lease: Lease, error: ModelUnavailable) -> None:
    run = EvaluationRun.objects.get(pk=run_id)
    answers = ModelCall.objects.filter(scope=run.call_scope, outcome=ModelCall.OK).order_by("-pk")
    heard_from = answers.values_list("at", flat=True).first() or run.started_at or timezone.now()
    if error.retry_after_s is None or timezone.now() - heard_from > MAX_WAIT:
        run_finish(run_id, lease, RunState.FAILED, error=str(error))
        return
    with transaction.atomic():
        lease.check()
        EvaluationRun.objects.filter(pk=run_id).update(error=str(error))
    raise PutOff(timezone.now() + timedelta(seconds=error.retry_after_s), str(error)) from error
