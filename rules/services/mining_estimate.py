"""What a run may ask of paid endpoints, before it asks anything."""

import math
from collections.abc import Iterator
from decimal import Decimal

from django.db.models import Max

from pld_app.model_edge.budget import batch_price, price
from pld_app.model_edge.estimate import CallsEstimate, calls_estimate
from pld_app.models import ModelEndpoint
from rules.models import MiningRun, MiningStage, RunState, Split, Task, Trace
from rules.prompts import EMBED_BATCH, embedding_requests
from rules.schemas import JUDGE_CONFLICTS, MiningParameters, RunEstimate, StageEstimate
from rules.services.mining_extract import of_traces, teacher_parts, trace_request
from rules.services.mining_judgement import MAX_JUDGED
from rules.services.mining_run import CALL_SCOPE

# Of a synthesis: the fixed words with the task and the schema, a long rule (in tokens of three bytes), and how often
# a rule is read: with its own cluster, and beside those of its topic with another label.
_FRAME_TOKENS = 1000
_RULE_TOKENS = 120
_READ_TIMES = 2


def run_estimate(task: Task, parameters: MiningParameters | None = None) -> RunEstimate:
    """The calls of a run over the task's train traces now, stage by stage; sends nothing.

    Extraction is counted exactly. What depends on texts or clusters that do not exist yet is bounded from above: the
    longest replies, and one synthesis for each label and square root of the traces, or as often as the last run;
    of conflicts as many as may be asked.
    """
    chosen = parameters or MiningParameters()
    stages = [*_extraction(task, chosen), _embedding(task), _synthesis(task)]
    if chosen.judge_conflicts:
        stages.append(_judgement(task))
    return RunEstimate(stages=tuple(stage for stage in stages if stage is not None and stage.requests))


def is_repeat(task: Task, parameters: MiningParameters, estimate: RunEstimate) -> bool:
    """Whether the run asks only what the last successful one did. A budget of 0 finds out if that was wrong."""
    last = task.mining_runs.filter(state=RunState.SUCCEEDED).order_by("-pk").first()
    if last is None or any(stage.calls for stage in estimate.stages if not stage.is_bound):
        return False
    now = (task.teacher_id, task.second_teacher_id, task.embedder_id)
    same = (last.teacher_id, last.second_teacher_id, last.embedder_id) == now
    return same and MiningParameters.model_validate(last.parameters).asks_as(parameters) and _mined_all(last)


def _mined_all(run: MiningRun) -> bool:
    traces = run.task.traces.filter(split=Split.TRAIN)
    newest = (traces.aggregate(last=Max("pk"))["last"], run.micro_rules.aggregate(last=Max("trace"))["last"])
    return newest[0] == newest[1] and traces.count() == run.micro_rules.count()


def _stage(stage: MiningStage, endpoint: ModelEndpoint, found: CallsEstimate) -> StageEstimate:
    return StageEstimate(
        stage=stage,
        endpoint=endpoint.name,
        requests=found.requests,
        recorded=found.recorded,
        prompt_tokens=found.prompt_tokens,
        output_tokens=found.output_tokens,
        cost=found.cost,
    )


def _bound(stage: str, endpoint: ModelEndpoint, *, calls: int, prompt: int, output: int) -> StageEstimate:
    cost: Decimal = price(endpoint, prompt_tokens=prompt, completion_tokens=output)
    return StageEstimate(
        stage=stage,
        endpoint=endpoint.name,
        requests=calls,
        recorded=0,
        prompt_tokens=prompt,
        output_tokens=output,
        cost=cost,
        is_bound=True,
    )


def _extraction(task: Task, parameters: MiningParameters) -> Iterator[StageEstimate]:
    open_traces = Trace.objects.filter(task=task, split=Split.TRAIN, instruction="").order_by("pk")
    for part in teacher_parts(task):
        traces = of_traces(part, open_traces).iterator(chunk_size=500)
        found = calls_estimate(part.endpoint, (trace_request(task, trace) for trace in traces), scope=CALL_SCOPE)
        stage = _stage(MiningStage.EXTRACT, part.endpoint, found)
        if parameters.batch and part.endpoint.batch_api:
            batched = {"is_batch": True, "direct_cost": found.cost, "cost": batch_price(part.endpoint, found.cost)}
            stage = stage.model_copy(update=batched)
        yield stage


def _embedding(task: Task) -> StageEstimate | None:
    if task.embedder is None:
        return None
    traces = task.traces.filter(split=Split.TRAIN).order_by("pk")
    texts = list(traces.exclude(instruction="").values_list("instruction", flat=True))
    unknown = traces.count() - len(texts) if task.teacher else 0
    if not unknown:
        found = calls_estimate(task.embedder, embedding_requests(texts), scope=CALL_SCOPE)
        return _stage(MiningStage.EMBED, task.embedder, found)
    assert task.teacher is not None
    known_tokens = sum(len(text.encode()) for text in texts) // 3
    prompt = known_tokens + unknown * task.teacher.max_output_tokens
    calls = math.ceil((len(texts) + unknown) / EMBED_BATCH)
    return _bound(MiningStage.EMBED, task.embedder, calls=calls, prompt=prompt, output=0)


def _synthesis(task: Task) -> StageEstimate | None:
    if task.teacher is None:
        return None
    traces = task.traces.filter(split=Split.TRAIN).count()
    last = task.mining_runs.filter(state=RunState.SUCCEEDED).order_by("-pk").first()
    usual = len(task.labels) * math.isqrt(traces - 1) + len(task.labels) if traces else 0
    calls = min(traces, max(usual, last.clusters.count() if last else 0))
    prompt = calls * _FRAME_TOKENS + _READ_TIMES * traces * _RULE_TOKENS
    output = calls * task.teacher.max_output_tokens
    return _bound(MiningStage.SYNTHESIZE, task.teacher, calls=calls, prompt=prompt, output=output)


def _judgement(task: Task) -> StageEstimate | None:
    """At most a call for each two traces, up to the most that are asked; each reads two instructions."""
    if task.teacher is None:
        return None
    traces = task.traces.filter(split=Split.TRAIN).count()
    calls, longest = min(MAX_JUDGED, math.comb(traces, 2)), task.teacher.max_output_tokens
    prompt = calls * (_FRAME_TOKENS + 2 * longest)
    return _bound(JUDGE_CONFLICTS, task.teacher, calls=calls, prompt=prompt, output=calls * longest)
