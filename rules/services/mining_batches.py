"""Extraction by a provider's batches: half a day's wait for less money, by an endpoint's own percentage.

A batch is planned with its share of the budget set aside, and has a job of its own that hands it over, looks after it
from time to time and records its replies in the ledger, under the hashes of direct calls. The run's job waits
meanwhile without a worker; then it goes on as if the calls had been made directly. What a batch did not answer (it
expired, failed, was cancelled) is asked directly, within the budget; what was answered in vain is listed with why.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from itertools import batched

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.audit import Json, audit_record
from pld_app.jobs import JobResult, Lease, PutOff, hint_send, job_enqueue
from pld_app.model_edge import CallRequest, EndpointMisconfigured, ModelUnavailable
from pld_app.model_edge.batch_client import BatchClient
from pld_app.model_edge.batches import Work, batch_advance, batch_line, worst_cost
from pld_app.model_edge.ledger import LOOKUP_BATCH, endpoint_config, recalled
from pld_app.model_edge.types import request_hash
from pld_app.models import BatchState, Job, JobState, ModelBatch, ModelBatchItem, ModelCall
from rules.models import MiningRun, RunState, Split, Trace
from rules.services.mining_budget import RunBudget
from rules.services.mining_extract import part_write, refusals_write, trace_request, traces_left
from rules.services.mining_run import CALL_SCOPE, Part, RunContext, run_finish, run_wake

JOB_KIND = "mining_batch"
# The batch's job wakes the run; this is how long it takes to notice one that died.
LOOK_AGAIN = timedelta(seconds=60)
_REFUSED_AGAIN = timedelta(minutes=5)


def part_extract(context: RunContext, part: Part) -> None:
    """Have the part's endpoint write its micro-rules, by batches if the run asks for it. Raises PutOff meanwhile."""
    if context.parameters.batch and part.endpoint.batch_api:
        _batches_plan(context, part)
        _batches_await(context, part)
        refusals_write(context, part, _answers(context, part))
    part_write(context, part)


def run_batches(run: MiningRun) -> QuerySet[ModelBatch]:
    """The batches of a run, oldest first."""
    return ModelBatch.objects.filter(owner_id=run.pk, run=str(run)).select_related("endpoint")


def _batches_await(context: RunContext, part: Part) -> None:
    batches = list(run_batches(context.run).filter(endpoint=part.endpoint).exclude(state=BatchState.COLLECTED))
    if not batches:
        return
    answered, asked = sum(one.answered for one in batches), sum(one.requests for one in batches)
    context.progress(context.run.micro_rules.count() + answered, _total(context))
    text = _("%(endpoint)s answers a batch: %(answered)d of %(asked)d so far. It may take up to 24 hours.")
    said = {"endpoint": part.endpoint.name, "answered": answered, "asked": asked}
    raise PutOff(timezone.now() + LOOK_AGAIN, text % said)


def _total(context: RunContext) -> int:
    return context.run.task.traces.filter(split=Split.TRAIN).count()


def _answers(context: RunContext, part: Part) -> dict[str, ModelCall]:
    """What the run's batches brought, by the trace's key, successes aside."""
    items = ModelBatchItem.objects.filter(batch__in=run_batches(context.run).filter(endpoint=part.endpoint))
    in_vain = items.exclude(call=None).exclude(call__outcome=ModelCall.OK).select_related("call")
    return {item.subject: item.call for item in in_vain if item.call is not None}


def _batches_plan(context: RunContext, part: Part) -> None:
    """Plan batches for the questions that the ledger cannot answer and no batch of this run has asked."""
    planned: list[tuple[str, str]] = []
    size, cost = 0, Decimal(0)
    config = endpoint_config(part.endpoint)
    path = BatchClient(config).path
    for request, digest in _open_questions(context, part):
        line = len(batch_line(config, path, request))
        full = len(planned) >= settings.BATCH_MAX_REQUESTS or size + line > settings.BATCH_MAX_BYTES
        if planned and full:
            _batch_create(context, part, planned, cost)
            planned, size, cost = [], 0, Decimal(0)
        planned.append((request.key, digest))
        size += line
        cost += worst_cost(part.endpoint, config, request)
    if planned:
        _batch_create(context, part, planned, cost)


def _open_questions(context: RunContext, part: Part) -> Iterator[tuple[CallRequest, str]]:
    config = endpoint_config(part.endpoint)
    sent = set(ModelBatchItem.objects.filter(owner_id=context.run.pk).values_list("request_hash", flat=True))
    traces = traces_left(context.run, part).iterator(chunk_size=LOOKUP_BATCH)
    for some in batched(traces, LOOKUP_BATCH):
        asked = {request_hash(config, one): one for one in (trace_request(context.run.task, trace) for trace in some)}
        known = recalled(CALL_SCOPE, list(asked)).keys() | sent
        # Equal questions are asked once.
        sent |= asked.keys()
        yield from ((request, digest) for digest, request in asked.items() if digest not in known)


@transaction.atomic
def _batch_create(context: RunContext, part: Part, planned: Sequence[tuple[str, str]], cost: Decimal) -> None:
    context.check_lease()
    run = context.run
    RunBudget(run.pk).set_aside(len(planned), cost)
    batch = ModelBatch.objects.create(
        endpoint=part.endpoint,
        owner_id=run.pk,
        run=str(run),
        scope=CALL_SCOPE,
        requests=len(planned),
        reserved=cost,
    )
    ModelBatchItem.objects.bulk_create(
        (ModelBatchItem(batch=batch, owner_id=run.pk, subject=key, request_hash=digest) for key, digest in planned),
        batch_size=2000,
    )
    data: dict[str, Json] = {"requests": len(planned), "set_aside": str(cost), "key": str(batch.key)}
    audit_record("mining.batch_planned", actor=None, subject=run, task_slug=run.task.slug, data=data)
    job_enqueue(kind=JOB_KIND, subject_id=batch.pk, key=f"{JOB_KIND}:{batch.pk}", created_by=run.created_by)


def mining_batch_execute(batch_id: int, lease: Lease) -> JobResult:
    """Take one batch as far as it goes. Raises PutOff until the next look."""
    batch = ModelBatch.objects.select_related("endpoint").get(pk=batch_id)
    run = MiningRun.objects.select_related("task").get(pk=batch.owner_id)
    try:
        wait = batch_advance(batch, Work(partial(_requests, run), lease.check, partial(_finished, run)))
    except ModelUnavailable as error:
        lease.progressed()
        seconds = error.retry_after_s if error.retry_after_s is not None else _REFUSED_AGAIN.total_seconds()
        raise PutOff(
            timezone.now() + timedelta(seconds=min(seconds, 60 * settings.BATCH_POLL_S)), str(error)
        ) from error
    except EndpointMisconfigured as error:
        # A person has to mend it; the batch may be paid for, so nobody gives up on it.
        raise PutOff(timezone.now() + _REFUSED_AGAIN, str(error)) from error
    if wait is not None:
        raise PutOff(timezone.now() + wait, "")
    return JobResult.DONE


def mining_batch_failed(batch_id: int, error: str) -> None:
    """The job was given up. What is set aside stays so: the batch may be paid for. A person decides how to go on."""
    batch = ModelBatch.objects.get(pk=batch_id)
    if not batch.is_over:
        batch.state, batch.error, batch.finished_at = BatchState.COLLECTED, error[:2000], timezone.now()
        batch.save(update_fields=["state", "error", "finished_at"])
        run = MiningRun.objects.select_related("task").get(pk=batch.owner_id)
        if not run.is_final:
            run_finish(RunContext(run, None), RunState.FAILED, error)


def _requests(run: MiningRun, subjects: Sequence[str]) -> Iterator[CallRequest]:
    for trace in Trace.objects.filter(task=run.task, pk__in=[int(one) for one in subjects]).order_by("pk"):
        yield trace_request(run.task, trace)


def _finished(run: MiningRun, batch: ModelBatch) -> None:
    """In the transaction that closes the batch: return what was set aside and not used, and tell the run."""
    made = batch.items.filter(call__isnull=False).count()
    RunBudget(run.pk).returned(batch.requests - made, batch.reserved - batch.spent)
    data: dict[str, Json] = {"answered": batch.answered, "requests": batch.requests, "spent": str(batch.spent)}
    data |= {"status": batch.status, "error": batch.error, "key": str(batch.key)}
    audit_record("mining.batch_ended", actor=None, subject=run, task_slug=run.task.slug, data=data)
    run_wake(run.pk, within=LOOK_AGAIN)


def batches_cancel(run: MiningRun) -> None:
    """In the transaction that cancels the run: have its batches cancelled too. What they answered is recorded."""
    open_batches = run_batches(run).exclude(state=BatchState.COLLECTED)
    keys = list(open_batches.values_list("pk", flat=True))
    open_batches.update(cancel_requested_at=timezone.now())
    for pk in Job.objects.filter(kind=JOB_KIND, subject_id__in=keys, state=JobState.QUEUED).values_list(
        "pk", flat=True
    ):
        Job.objects.filter(pk=pk, state=JobState.QUEUED).update(run_after=timezone.now())
        transaction.on_commit(partial(hint_send, pk), robust=True)
