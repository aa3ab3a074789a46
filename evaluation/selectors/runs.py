"""What the evaluation pages, the command and the worker need to know about runs."""

from dataclasses import dataclass

from django.db.models import F, QuerySet, Sum
from django.http import Http404
from django.utils.translation import gettext as _

from evaluation.answers import cached_tokens
from evaluation.figures import ConfusionFigure, Source, confusion_figure
from evaluation.figures_series import LabelScores, LabelsFigure, labels_figure
from evaluation.metrics import CallSummary, Metrics, score_run, summarise_calls
from evaluation.models import EvaluationRun, Example, Prediction, PredictionOutcome, PromptKind
from evaluation.sampling import Labelled, stratified_sample
from evaluation.schemas import RepeatScore, RunFigures
from evaluation.selectors.leakage import leakage_of
from pld_app.models import ModelCall
from rules.models import RunState, Task

NOTHING = "-"
"""In a filter by predicted label: no usable answer."""


def examples_of(run: EvaluationRun) -> list[Labelled]:
    """The run's examples in the order they are asked about; the same at any later time."""
    rows = labelled(run.dataset_id, run.split)
    return rows if run.sample_size is None else stratified_sample(rows, run.sample_size, run.seed)


def labelled(dataset_id: int, split: str) -> list[Labelled]:
    """The examples of one split, without their texts, in the order of the dataset."""
    rows = Example.objects.filter(dataset_id=dataset_id, split=split).order_by("position")
    return [Labelled(*row) for row in rows.values_list("pk", "label", "input_sha256")]


def run_figures(run: EvaluationRun) -> RunFigures:
    """Add up a run whose examples all have their predictions. ValueError when there are none."""
    by_repeat: dict[int, list[tuple[str, str, str]]] = {}
    predictions = run.predictions.order_by("repeat", "example_id")
    for repeat, *row in predictions.values_list("repeat", "gold", "label", "outcome"):
        by_repeat.setdefault(repeat, []).append((row[0], row[1], row[2]))
    metrics = {repeat: _metrics(run, rows) for repeat, rows in by_repeat.items()}
    first = [outcome for _gold, _label, outcome in by_repeat.get(0, [])]
    calls = ModelCall.objects.filter(
        pk__in=run.predictions.exclude(outcome=PredictionOutcome.NO_ANSWER).order_by().values("call_id")
    )
    spent = ModelCall.objects.filter(scope__in=run.call_scopes).aggregate(cost=Sum("cost", default=0))
    models = calls.exclude(model_returned="").order_by("model_returned").values_list("model_returned", flat=True)
    return RunFigures(
        n=len(first),
        answered=first.count(PredictionOutcome.ANSWERED),
        abstained=first.count(PredictionOutcome.ABSTAINED),
        malformed=first.count(PredictionOutcome.MALFORMED),
        no_answer=first.count(PredictionOutcome.NO_ANSWER),
        metrics=metrics.get(0) or _metrics(run, []),
        calls=_call_summary(calls),
        cost=spent["cost"],
        student_models=tuple(models.distinct()) if run.student_id else (run.student_model,),
        repeats=tuple(
            RepeatScore(
                repeat=repeat,
                macro_f1=found.macro_f1,
                accuracy=found.accuracy,
                answered=sum(outcome == PredictionOutcome.ANSWERED for *_, outcome in by_repeat[repeat]),
            )
            for repeat, found in metrics.items()
        ),
        leakage=leakage_of(run),
    )


def _metrics(run: EvaluationRun, rows: list[tuple[str, str, str]]) -> Metrics:
    gold, said = [gold for gold, _label, _outcome in rows], [label or None for _gold, label, _outcome in rows]
    return score_run(gold, said, run.labels, seed=run.seed)


def _call_summary(calls: QuerySet[ModelCall]) -> CallSummary:
    latencies, prompts, completions, cached = [], [], [], []
    fields = ("latency_ms", "prompt_tokens", "completion_tokens", "raw_reply")
    for ms, prompt, completion, raw in calls.order_by("pk").values_list(*fields).iterator(chunk_size=500):
        latencies.append(ms)
        # The ledger keeps 0 where the server reported no usage: a prompt of no tokens does not exist.
        prompts.append(prompt or None)
        completions.append(completion if prompt else None)
        cached.append(cached_tokens(raw))
    return summarise_calls(latencies, prompts, completions, cached)


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
    return task.evaluation_runs.select_related("ruleset", "release", "created_by", "group").defer(
        "prompt", "ruleset__prompt", "ruleset__manifest", "release__prompt"
    )


def run_rows(runs: QuerySet[EvaluationRun] | list[EvaluationRun]) -> list[RunRow]:
    return [RunRow(run, figures_of(run)) for run in runs]


def run_get(slug: str, number: int) -> EvaluationRun:
    """The run with its task, student and where its prompt comes from, or 404."""
    related = ("task", "student", "ruleset", "release", "created_by", "dataset", "group")
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


def run_labels(run: EvaluationRun, figures: RunFigures) -> LabelsFigure:
    """The F1 of each label of one run, as a picture."""
    scores = figures.metrics.by_label
    bars = LabelScores(f"Run {run.number}", source_of(run), tuple(score.f1 for score in scores), run.is_baseline)
    names, supports = [score.label for score in scores], [score.support for score in scores]
    return labels_figure(names, supports, [bars], figure_id="by-label-figure")


def errors_of(run: EvaluationRun, *, gold: str = "", predicted: str = "") -> QuerySet[Prediction]:
    """Wrong, malformed and missing answers of the first repetition, with example and call.

    `predicted` may be NOTHING.
    """
    wrong = run.predictions.filter(repeat=0).exclude(label=F("gold"))
    errors = wrong.select_related("example", "call").order_by("example_id")
    if gold:
        errors = errors.filter(gold=gold)
    if predicted:
        errors = errors.filter(label="" if predicted == NOTHING else predicted)
    return errors.defer("call__vectors")


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
