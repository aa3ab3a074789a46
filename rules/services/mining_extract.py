"""Stage 1: one micro-rule for each train trace, imported with it or extracted by the teacher."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Mod
from pydantic import ValidationError

from pld_app.jobs import LeaseLost
from pld_app.model_edge import CallRequest, Outcome
from pld_app.model_edge.ledger import RecordedCall
from pld_app.models import ModelCall
from rules.models import MicroRule, MicroRuleOrigin, MiningRun, Split, Task, Trace
from rules.prompts import extraction_request, item_mark
from rules.schemas import ExtractionReply
from rules.services.mining_flags import FlagJson, rule_flags
from rules.services.mining_run import Part, RunContext

BATCH = 1000
# Ways to fail that say something about the moment, not about the trace.
_MAY_PASS = frozenset({Outcome.TIMEOUT, Outcome.CONNECTION, Outcome.HTTP_ERROR})
_ABOUT_THE_QUESTION = frozenset({400, 413, 422})
FLUSH_ROWS = 200
FLUSH_S = 2.0
OTHER_ITEM = "The teacher's reply is to another question: it does not repeat this one's mark."
NO_TEACHER = "The trace has no instruction and the task no teacher endpoint to write one."


def of_traces(part: Part, traces: QuerySet[Trace]) -> QuerySet[Trace]:
    """Those of the traces that belong to the part."""
    return traces if part.of == 1 else traces.alias(rest=Mod("pk", part.of)).filter(rest=part.rest)


def teacher_parts(owner: MiningRun | Task, workers: int = 1) -> list[Part]:
    """How extraction is divided: by key, so that a repeat asks the same endpoint again and finds its answer."""
    endpoints = [one for one in (owner.teacher, owner.second_teacher) if one is not None]
    count = len(endpoints) * workers
    return [Part(endpoints[rest % len(endpoints)], rest, count) for rest in range(count)]


def traces_left(run: MiningRun, part: Part | None = None) -> QuerySet[Trace]:
    """Train traces without a micro-rule row, of all or of one part."""
    written = MicroRule.objects.filter(run=run, trace=OuterRef("pk"))
    left = Trace.objects.filter(~Exists(written), task=run.task, split=Split.TRAIN).order_by("pk")
    return left if part is None else of_traces(part, left)


def imported_write(context: RunContext) -> None:
    """A row for each trace that brings its instruction; the others as failed, where there is no teacher to ask."""
    run = context.run
    total = _total(run)
    while batch := list(traces_left(run).exclude(instruction="")[:BATCH]):
        rows = [
            MicroRule(
                run=run,
                trace=trace,
                origin=MicroRuleOrigin.IMPORTED,
                text=trace.instruction,
                rationale=trace.rationale,
                flags=_flags(context, trace, trace.instruction, trace.rationale),
            )
            for trace in batch
        ]
        with transaction.atomic():
            context.check_lease()
            MicroRule.objects.bulk_create(rows)
        context.progress(run.micro_rules.count(), total)
        context.check_cancelled()
    if run.teacher is None:
        _failed_write(context, list(traces_left(run)))


def _total(run: MiningRun) -> int:
    return run.task.traces.filter(split=Split.TRAIN).count()


def _failed_write(context: RunContext, traces: list[Trace]) -> None:
    rows = [
        MicroRule(run=context.run, trace=trace, origin=MicroRuleOrigin.FAILED, error=NO_TEACHER) for trace in traces
    ]
    with transaction.atomic():
        context.check_lease()
        MicroRule.objects.bulk_create(rows)


def part_write(context: RunContext, part: Part) -> None:
    """Have the part's endpoint write its micro-rules; a repeated call goes on with the traces that have none."""
    run = context.run
    left = {str(trace.pk): trace for trace in traces_left(run, part)}
    unanswered: list[RecordedCall] = []
    with _writer(context, total=_total(run)) as write:
        for recorded in context.calls(part.endpoint, _requests(run, left)):
            write.flush_if_due()
            if recorded.outcome in _MAY_PASS:
                # Judged at the end: if the endpoint turns out to be down, these are asked again when it is back.
                unanswered.append(recorded)
            elif recorded.outcome is not Outcome.CANCELLED:
                write.add(_extracted(context, left[recorded.request.key], recorded))
        context.check_going_on()
        for recorded in unanswered:
            write.add(_extracted(context, left[recorded.request.key], recorded))


def refusals_write(context: RunContext, part: Part, calls: Mapping[str, ModelCall]) -> None:
    """List the traces whose question was answered in vain, with why; `calls` are ledger rows by the trace's key."""
    lost = {pk: call for pk, call in calls.items() if call.outcome not in {Outcome.OK, *_MAY_PASS} or _is_final(call)}
    traces = traces_left(context.run, part).filter(pk__in=lost)
    rows = [
        MicroRule(
            run=context.run,
            trace=trace,
            origin=MicroRuleOrigin.FAILED,
            error=lost[str(trace.pk)].error[:300],
            call=lost[str(trace.pk)],
        )
        for trace in traces
    ]
    with transaction.atomic():
        context.check_lease()
        MicroRule.objects.bulk_create(rows, ignore_conflicts=True)


def _is_final(call: ModelCall) -> bool:
    """Whether the server found this very question wrong."""
    return call.outcome == Outcome.HTTP_ERROR and call.http_status in _ABOUT_THE_QUESTION


class _Writer:
    """Writes micro-rules in small batches: one transaction a call would cost more than the calls do.

    What a kill takes from the buffer is in the ledger and is not asked again. Failures are written at once, since the
    ledger would ask them again.
    """

    def __init__(self, context: RunContext, *, total: int) -> None:
        self.context = context
        self.total = total
        self._rows: list[MicroRule] = []
        # The first row is written at once: a worker that is killed often must be seen to get on.
        self._flushed_at = -FLUSH_S

    def add(self, rule: MicroRule) -> None:
        self._rows.append(rule)
        if rule.origin == MicroRuleOrigin.FAILED:
            self.flush()
        else:
            self.flush_if_due()

    def flush_if_due(self) -> None:
        if len(self._rows) >= FLUSH_ROWS or time.monotonic() - self._flushed_at > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        self._flushed_at = time.monotonic()
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        with transaction.atomic():
            self.context.check_lease()
            # A worker that lost its lease a moment ago may have written some of them: the same answers of the ledger.
            MicroRule.objects.bulk_create(rows, ignore_conflicts=True)
        # Counted, not added up: another worker may write the other half.
        self.context.progress(self.context.run.micro_rules.count(), self.total)


@contextmanager
def _writer(context: RunContext, *, total: int) -> Iterator[_Writer]:
    """A writer whose last rows are written however the block ends, unless another worker has taken over."""
    writer = _Writer(context, total=total)
    try:
        yield writer
    finally:
        with suppress(LeaseLost):
            writer.flush()


def _requests(run: MiningRun, traces: dict[str, Trace]) -> Iterator[CallRequest]:
    for trace in traces.values():
        yield trace_request(run.task, trace)


def trace_request(task: Task, trace: Trace) -> CallRequest:
    """What the teacher is asked about one trace."""
    return extraction_request(
        key=str(trace.pk), task=task.preamble, labels=task.labels, example=trace.input, label=trace.label
    )


def _flags(context: RunContext, trace: Trace, text: str, rationale: str) -> list[FlagJson]:
    return rule_flags(trace, text=text, rationale=rationale, known=context.vocabulary, labels=context.run.task.labels)


def _extracted(context: RunContext, trace: Trace, recorded: RecordedCall) -> MicroRule:
    rule = MicroRule(run=context.run, trace=trace, origin=MicroRuleOrigin.TEACHER, call_id=recorded.call_id)
    if not recorded.ok:
        rule.origin, rule.error = MicroRuleOrigin.FAILED, recorded.error[:300]
        return rule
    try:
        reply = ExtractionReply.model_validate_json(recorded.text)
    except ValidationError as error:
        rule.origin = MicroRuleOrigin.FAILED
        rule.error = f"The teacher's reply does not fit: {error.errors(include_url=False)[0]['msg']}"[:300]
        return rule
    if reply.item != item_mark(trace.input, trace.label):
        rule.origin, rule.error = MicroRuleOrigin.FAILED, OTHER_ITEM
        return rule
    rule.text, rule.rationale = reply.instruction.strip(), reply.rationale
    rule.flags = _flags(context, trace, rule.text, rule.rationale)
    return rule
