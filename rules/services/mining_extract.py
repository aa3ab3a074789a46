"""Stage 1: one micro-rule for each train trace, imported with it or extracted by the teacher."""

from collections.abc import Iterator

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from pydantic import ValidationError

from pld_app.model_edge import CallRequest, Outcome
from pld_app.model_edge.ledger import RecordedCall, recorded_calls
from rules.models import MicroRule, MicroRuleOrigin, MiningRun, Split, Trace
from rules.prompts import extraction_request
from rules.schemas import ExtractionReply
from rules.services.mining_run import RunContext

BATCH = 1000
# Ways to fail that say something about the moment, not about the trace.
_MAY_PASS = frozenset({Outcome.TIMEOUT, Outcome.CONNECTION, Outcome.HTTP_ERROR})
NO_TEACHER = "The trace has no instruction and the task no teacher endpoint to write one."


def micro_rules_write(context: RunContext) -> None:
    """Give every train trace its micro-rule row; a repeated call goes on with those that have none."""
    run = context.run
    total = run.task.traces.filter(split=Split.TRAIN).count()
    _imported_write(context, total)
    if run.teacher is None:
        _failed_write(context, list(_traces_left(run)))
    else:
        _extracted_write(context, total)
    context.progress(run.micro_rules.count(), total)


def _traces_left(run: MiningRun) -> QuerySet[Trace]:
    written = MicroRule.objects.filter(run=run, trace=OuterRef("pk"))
    return Trace.objects.filter(~Exists(written), task=run.task, split=Split.TRAIN).order_by("pk")


def _imported_write(context: RunContext, total: int) -> None:
    run = context.run
    while batch := list(_traces_left(run).exclude(instruction="")[:BATCH]):
        rows = [
            MicroRule(
                run=run,
                trace=trace,
                origin=MicroRuleOrigin.IMPORTED,
                text=trace.instruction,
                rationale=trace.rationale,
            )
            for trace in batch
        ]
        with transaction.atomic():
            context.check_lease()
            MicroRule.objects.bulk_create(rows)
        context.progress(run.micro_rules.count(), total)
        context.check_cancelled()


def _failed_write(context: RunContext, traces: list[Trace]) -> None:
    rows = [
        MicroRule(run=context.run, trace=trace, origin=MicroRuleOrigin.FAILED, error=NO_TEACHER) for trace in traces
    ]
    with transaction.atomic():
        context.check_lease()
        MicroRule.objects.bulk_create(rows)


def _extracted_write(context: RunContext, total: int) -> None:
    run = context.run
    assert run.teacher is not None
    left = {str(trace.pk): trace for trace in _traces_left(run)}
    done = total - len(left)
    unanswered: list[RecordedCall] = []
    calls = recorded_calls(run.teacher, _requests(run, left), scope=context.call_scope, should_stop=context.should_stop)
    for recorded in calls:
        if recorded.outcome is Outcome.CANCELLED:
            continue
        if recorded.outcome in _MAY_PASS:
            # Judged at the end: if the endpoint turns out to be down, these are asked again when it is back.
            unanswered.append(recorded)
            continue
        _rule_write(context, left[recorded.request.key], recorded)
        done += 1
        context.progress(done, total)
    context.check_going_on()
    for recorded in unanswered:
        _rule_write(context, left[recorded.request.key], recorded)


def _rule_write(context: RunContext, trace: Trace, recorded: RecordedCall) -> None:
    with transaction.atomic():
        context.check_lease()
        _extracted(context.run, trace, recorded).save()


def _requests(run: MiningRun, traces: dict[str, Trace]) -> Iterator[CallRequest]:
    for key, trace in traces.items():
        yield extraction_request(
            key=key, task=run.task.preamble, labels=run.task.labels, example=trace.input, label=trace.label
        )


def _extracted(run: MiningRun, trace: Trace, recorded: RecordedCall) -> MicroRule:
    rule = MicroRule(run=run, trace=trace, origin=MicroRuleOrigin.TEACHER, call_id=recorded.call_id)
    if not recorded.ok:
        rule.origin, rule.error = MicroRuleOrigin.FAILED, recorded.error[:300]
        return rule
    try:
        reply = ExtractionReply.model_validate_json(recorded.text)
    except ValidationError as error:
        rule.origin = MicroRuleOrigin.FAILED
        rule.error = f"The teacher's reply does not fit: {error.errors(include_url=False)[0]['msg']}"[:300]
        return rule
    rule.text, rule.rationale = reply.instruction.strip(), reply.rationale
    return rule
