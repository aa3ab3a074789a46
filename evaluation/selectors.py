"""What the evaluation pages, the command and the worker need to know about runs."""

from dataclasses import dataclass

from django.db.models import F, QuerySet, Sum
from django.http import Http404
from django.utils.translation import gettext as _

from evaluation.figures import ConfusionFigure, Source, confusion_figure
from evaluation.metrics import CallSummary, score_run, summarise_calls
from evaluation.models import EvaluationRun, Prediction, PredictionOutcome, PromptKind
from evaluation.sampling import Example, stratified_sample
from evaluation.schemas import RunFigures
from pld_app.models import ModelCall
from rules.models import RunState, Task, Trace

NOTHING = "-"
"""In a filter by predicted label: no usable answer."""


def examples_of(run: EvaluationRun) -> list[Example]:
    """The run's examples in the order they are asked about; the same at any later time, whatever is imported."""
    traces = Trace.objects.filter(task_id=run.task_id, split=run.split, pk__lte=run.last_trace_id).order_by("pk")
    examples = [Example(*row) for row in traces.values_list("pk", "label", "content_hash")]
    return examples if run.sample_size is None else stratified_sample(examples, run.sample_size, run.seed)


def run_figures(run: EvaluationRun) -> RunFigures:
    """Add up a run whose examples all have their prediction. ValueError when there are none."""
    rows = list(run.predictions.order_by("trace_id").values_list("gold", "label", "outcome"))
    outcomes = [outcome for _gold, _label, outcome in rows]
    calls = ModelCall.objects.filter(
        pk__in=run.predictions.exclude(outcome=PredictionOutcome.NO_ANSWER).order_by().values("call_id")
    )
    spent = ModelCall.objects.filter(scope=run.call_scope).aggregate(cost=Sum("cost", default=0))
    models = calls.exclude(model_returned="").order_by("model_returned").values_list("model_returned", flat=True)
    return RunFigures(
        n=len(rows),
        answered=outcomes.count(PredictionOutcome.ANSWERED),
        malformed=outcomes.count(PredictionOutcome.MALFORMED),
        no_answer=outcomes.count(PredictionOutcome.NO_ANSWER),
        metrics=score_run(
            [gold for gold, _label, _outcome in rows],
            [label or None for _gold, label, _outcome in rows],
            run.task.labels,
            seed=run.seed,
        ),
        calls=_call_summary(calls),
        cost=spent["cost"],
        student_models=tuple(models.distinct()),
    )


def _call_summary(calls: QuerySet[ModelCall]) -> CallSummary:
    rows = list(calls.order_by("pk").values_list("latency_ms", "prompt_tokens", "completion_tokens"))
    # The ledger keeps 0 where the server reported no usage: a prompt of no tokens does not exist.
    usage = [(prompt, completion) if prompt else (None, None) for _ms, prompt, completion in rows]
    return summarise_calls(
        [ms for ms, _prompt, _completion in rows], [prompt for prompt, _ in usage], [done for _, done in usage]
    )


def figures_of(run: EvaluationRun) -> RunFigures | None:
    """The figures of a run that has succeeded."""
    return RunFigures.model_validate(run.figures) if run.state == RunState.SUCCEEDED else None


def source_of(run: EvaluationRun) -> Source:
    """Whose figures these are, for a picture."""
    return Source(prompt=run.prompt_name, student=run.student_name, split=run.split, n=run.n)


@dataclass(frozen=True)
class RunRow:
    run: EvaluationRun
    figures: RunFigures | None


def run_list(task: Task) -> QuerySet[EvaluationRun]:
    """The runs of a task, newest first, without their prompts."""
    return task.evaluation_runs.select_related("ruleset", "release", "created_by").defer(
        "prompt", "ruleset__prompt", "ruleset__manifest", "release__prompt"
    )


def run_rows(runs: QuerySet[EvaluationRun] | list[EvaluationRun]) -> list[RunRow]:
    return [RunRow(run, figures_of(run)) for run in runs]


def run_get(slug: str, number: int) -> EvaluationRun:
    """The run with its task, student and where its prompt comes from, or 404."""
    related = ("task", "student", "ruleset", "release", "created_by")
    run = EvaluationRun.objects.select_related(*related).filter(task__slug=slug, number=number).first()
    if run is None:
        raise Http404
    return run


def baseline_of(run: EvaluationRun) -> EvaluationRun | None:
    """The newest zero-shot run of the same student over the same examples."""
    same = run_list(run.task).filter(
        kind=PromptKind.ZERO_SHOT,
        state=RunState.SUCCEEDED,
        student_model=run.student_model,
        examples_sha256=run.examples_sha256,
    )
    return same.exclude(pk=run.pk).first()


def run_confusion(run: EvaluationRun, figures: RunFigures) -> ConfusionFigure:
    return confusion_figure(figures.metrics.confusion, source_of(run), figure_id="confusion", malformed=_("Unusable"))


def errors_of(run: EvaluationRun, *, gold: str = "", predicted: str = "") -> QuerySet[Prediction]:
    """Wrong, malformed and missing answers, with trace and call; `predicted` may be NOTHING."""
    errors = run.predictions.exclude(label=F("gold")).select_related("trace", "call").order_by("trace_id")
    if gold:
        errors = errors.filter(gold=gold)
    if predicted:
        errors = errors.filter(label="" if predicted == NOTHING else predicted)
    return errors.defer("call__vectors", "trace__rationale", "trace__instruction")


def progress_counts(run: EvaluationRun) -> dict[str, int]:
    """Predictions so far by outcome, for a run without figures."""
    counts = {str(outcome): 0 for outcome in PredictionOutcome}
    for outcome in run.predictions.order_by().values_list("outcome", flat=True).iterator():
        counts[outcome] += 1
    return counts


def succeeded_runs(task: Task, numbers: list[int], *, reference: int | None = None) -> list[EvaluationRun]:
    """These runs as far as they have figures, by number, after the reference: that one, or the oldest baseline."""
    found = run_list(task).filter(number__in=numbers, state=RunState.SUCCEEDED)
    return sorted(found, key=lambda run: (run.number != reference, run.kind != PromptKind.ZERO_SHOT, run.number))
