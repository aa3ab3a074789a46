"""A task with examples to evaluate on, a scripted student, and a worker's turn in the test's own process."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from evaluation.ablation import ablation_figures
from evaluation.models import Ablation, AblationResult, EvaluationRun, Example, Prediction, PromptKind
from evaluation.selectors.runs import examples_of, run_figures
from evaluation.services.ablation_execution import asked_of, impact_of_item
from evaluation.services.ablations import AblationChoice, ablation_create
from evaluation.services.execution import JOB_KIND
from evaluation.services.runs import evaluation_run_create
from pld_app.jobs import job_execute
from pld_app.models import Job, ModelEndpoint, User
from rules.models import RunState, Split, Task, Trace
from rules.services.impacts import impact_record
from tests.factories import make_endpoint, make_trace
from tests.stub_server import Plan, StubRequest, completion

LABELS = ["Compliant", "Breach", "Unclear"]


def examples(task: Task, count: int, *, split: Split = Split.VALIDATION) -> list[Trace]:
    """`count` traces of a split: of seven in a row, four are Compliant, two Breach and one Unclear."""
    gold = ["Compliant", "Compliant", "Breach", "Compliant", "Unclear", "Breach", "Compliant"]
    return [make_trace(task, split=split, label=gold[n % len(gold)]) for n in range(count)]


def clause_of(request: StubRequest) -> str:
    """The clause the student was asked about."""
    asked: Mapping[str, str] = json.loads(request.body["messages"][-1]["content"])
    return asked["clause"]


def answering(answers: Mapping[str, str | Plan]) -> Callable[[StubRequest], str | Plan]:
    """A student that gives each clause its answer: a label, or a Plan, or a behaviour of the stub after "!"."""

    def behave(request: StubRequest) -> str | Plan:
        answer = answers[clause_of(request)]
        if isinstance(answer, Plan):
            return answer
        return answer[1:] if answer.startswith("!") else Plan(completion(json.dumps({"label": answer})))

    return behave


def student(url: str, task: Task, **fields: Any) -> ModelEndpoint:
    """The task's student endpoint."""
    task.student = make_endpoint(url, slug="student", **({"concurrency": 4} | fields))
    task.save(update_fields=["student"])
    return task.student


def make_run(task: Task, user: User | None = None, **fields: Any) -> EvaluationRun:
    """A queued baseline over the validation split, unless told otherwise."""
    values: dict[str, Any] = {"kind": PromptKind.ZERO_SHOT, "split": Split.VALIDATION}
    return evaluation_run_create(task=task, user=user, **(values | fields))


def example_of(run: EvaluationRun, trace: Trace) -> Example:
    """The example of the run's dataset that was taken from the trace."""
    return Example.objects.get(dataset=run.dataset_id, trace=trace)


def job_of(run: EvaluationRun) -> Job:
    return Job.objects.get(kind=JOB_KIND, subject_id=run.pk)


def work(run: EvaluationRun) -> EvaluationRun:
    """One delivery of the run's job to a worker."""
    job_execute(job_id=job_of(run).pk)
    run.refresh_from_db()
    return run


def finished_directly(run: EvaluationRun) -> EvaluationRun:
    """The run over at once, every example answered with its gold label, without a student."""
    rows = EvaluationRun.objects.filter(pk=run.pk)
    rows.update(state=RunState.RUNNING)
    for one in examples_of(run):
        Prediction.objects.create(run=run, example_id=one.example_id, gold=one.label, label=one.label)
    run.refresh_from_db()
    rows.update(state=RunState.SUCCEEDED, done=run.total, figures=run_figures(run).model_dump(mode="json"))
    run.refresh_from_db()
    return run


def measured_directly(run: EvaluationRun, *, measured: int | None = None) -> Ablation:
    """An ablation of a finished run, paused after `measured` instructions (all): without the first of them every
    answer is another, without the others none is."""
    ablation = ablation_create(run=run, user=None, choice=AblationChoice(max_calls=1_000_000), confirmed=None)
    rows = Ablation.objects.filter(pk=ablation.pk)
    rows.update(state=RunState.RUNNING)
    asked = asked_of(run)
    items = ablation.items.filter(rank__isnull=False).select_related("instruction__task", "revision").order_by("rank")
    for item in items[:measured]:
        after = {one.input_sha256: one.before if item.rank else _another(run, one.gold) for one in asked}
        found = ablation_figures(asked, after, run.labels, prompt_sha256=item.prompt_sha256, seed=run.seed)
        impact = impact_record(impact_of_item(ablation, item, found))
        AblationResult.objects.create(item=item, figures=found.model_dump(mode="json"), impact=impact)
    rows.update(state=RunState.PAUSED, error="The budget is used up.")
    ablation.refresh_from_db()
    return ablation


def _another(run: EvaluationRun, gold: str) -> str:
    return next(label for label in run.labels if label != gold)
