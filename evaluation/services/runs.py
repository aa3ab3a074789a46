"""Evaluation runs: made with a frozen prompt, cancelled, made again. What a worker does with one is in `execution`."""

from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext as _

from evaluation.models import (
    BASELINES,
    NEED_STUDENT,
    Dataset,
    DatasetState,
    EvaluationRun,
    Example,
    InputTemplate,
    PromptKind,
    RunGroup,
)
from evaluation.sampling import Labelled, examples_hash, stratified_sample
from evaluation.selectors.runs import examples_of, labelled
from evaluation.services.asking import example_request
from evaluation.services.datasets import dataset_current, dataset_standing, trace_plan
from evaluation.services.execution import JOB_KIND, run_finish
from evaluation.services.input_templates import input_template_of, require_admin
from evaluation.services.prompts import few_shot_text, prompt_text
from pld_app.audit import Json, audit_record
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.errors import InvalidInput
from pld_app.jobs import job_enqueue, job_is_running
from pld_app.model_edge.estimate import calls_estimate
from pld_app.models import EndpointKind, ModelEndpoint, User
from rules.exceptions import InvalidTransition
from rules.models import Release, Ruleset, RunState, Split, Task, Trace

SPLITS = (Split.VALIDATION, Split.TEST)
ESTIMATE_FROM = 100
MOST_SHOTS = 100
MOST_REPEATS = 20


@dataclass(frozen=True, kw_only=True)
class PromptChoice:
    """What to ask with: the kind, and the ruleset, release or `k` that it needs."""

    kind: PromptKind
    ruleset: Ruleset | None = None
    release: Release | None = None
    k: int | None = None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What is the same for all runs of a comparison. `dataset` None: the task's traces as they are now.

    With `temperature` 0 and `repeats` above 1 each repetition has a seed of its own.
    """

    split: Split
    dataset: Dataset | None = None
    sample_size: int | None = None
    seed: int = 0
    temperature: float = 0.0
    repeats: int = 1


@transaction.atomic
def evaluation_run_create(
    *,
    task: Task,
    user: User | None,
    kind: PromptKind,
    split: Split,
    student: ModelEndpoint | None = None,
    ruleset: Ruleset | None = None,
    release: Release | None = None,
    k: int | None = None,
    dataset: Dataset | None = None,
    sample_size: int | None = None,
    seed: int = 0,
    temperature: float = 0.0,
    repeats: int = 1,
) -> EvaluationRun:
    """Queue a run of one prompt over one split (`user` None: from the command line; no `student`: the task's own).

    The prompt's text is frozen in the run. Raises InvalidInput for what cannot be evaluated, NotAllowed for anyone
    but an administrator.
    """
    choice = PromptChoice(kind=kind, ruleset=ruleset, release=release, k=k)
    conditions = Conditions(
        split=split, dataset=dataset, sample_size=sample_size, seed=seed, temperature=temperature, repeats=repeats
    )
    return run_create(task, user, choice, student, conditions, group=None)


def run_create(
    task: Task,
    user: User | None,
    choice: PromptChoice,
    student: ModelEndpoint | None,
    conditions: Conditions,
    *,
    group: RunGroup | None,
    prompt: str | None = None,
) -> EvaluationRun:
    """One run, in the caller's transaction; see `evaluation_run_create`.

    `prompt` is asked with instead of the text that the choice stands for.
    """
    require_admin(user)
    run = run_planned(task, choice, student, conditions, group=group, prompt=prompt)
    dataset = conditions.dataset or dataset_current(task, user)
    _dataset_check(task, dataset, conditions.split)
    template = input_template_of(task)
    run.dataset = dataset
    if choice.kind == PromptKind.FEW_SHOT:
        run.prompt = few_shot_text(task, dataset, template, k=choice.k or 1, seed=conditions.seed)
    return _run_queue(run, user, template, again=None)


@transaction.atomic
def evaluation_rerun(*, run_id: int, user: User | None) -> EvaluationRun:
    """A new run of the same prompt bytes, student endpoint and examples, whose calls are made anew."""
    require_admin(user)
    related = ("task", "ruleset", "release", "student", "dataset", "group", "embedder")
    old = EvaluationRun.objects.select_related(*related).get(pk=run_id)
    template = InputTemplate(version=old.template_version, text=old.template, abstention_label=old.abstention_label)
    copied = (
        *("task", "group", "kind", "ruleset", "release", "k", "student", "embedder", "dataset", "split", "prompt"),
        *("sample_size", "seed", "temperature", "repeats"),
    )
    run = EvaluationRun(**{name: getattr(old, name) for name in copied})
    run.student_model = old.student_model
    if old.student is not None:
        run.student_model = student_usable(old.student).model
    return _run_queue(run, user, template, again=old.number)


@transaction.atomic
def evaluation_run_cancel(*, run_id: int, user: User) -> EvaluationRun:
    """Ask a run to stop before its next model call; one that no worker holds ends here. What was paid is kept."""
    require_admin(user)
    run = EvaluationRun.objects.select_for_update(of=("self",)).select_related("task").get(pk=run_id)
    if run.is_final:
        raise InvalidTransition(f"This run is {run.get_state_display().lower()} already.")
    if run.cancel_requested_at is None:
        run.cancel_requested_at = timezone.now()
        run.save(update_fields=["cancel_requested_at"])
        audit_record("evaluation.cancelled", actor=user, subject=run, task_slug=run.task.slug)
    if not job_is_running(kind=JOB_KIND, subject_id=run.pk):
        run_finish(run.pk, None, RunState.CANCELLED)
        run.refresh_from_db()
    return run


def run_planned(
    task: Task,
    choice: PromptChoice,
    student: ModelEndpoint | None,
    conditions: Conditions,
    *,
    group: RunGroup | None = None,
    prompt: str | None = None,
) -> EvaluationRun:
    """The unsaved run, without dataset and few-shot prompt. Raises InvalidInput for what cannot be asked."""
    _conditions_check(choice, conditions, group)
    asked = student_usable(student or task.student) if choice.kind in NEED_STUDENT else None
    run = EvaluationRun(
        task=task,
        group=group,
        kind=choice.kind,
        ruleset=choice.ruleset if choice.kind == PromptKind.DRAFT else None,
        release=choice.release if choice.kind == PromptKind.RELEASE else None,
        k=choice.k if choice.kind in (PromptKind.FEW_SHOT, PromptKind.NEAREST) else None,
        student=asked,
        embedder=task.embedder if choice.kind == PromptKind.NEAREST else None,
        split=conditions.split,
        sample_size=conditions.sample_size,
        seed=conditions.seed,
        # What is computed here comes out the same each time.
        temperature=conditions.temperature if asked else 0.0,
        repeats=conditions.repeats if asked else 1,
        prompt=prompt_text(task, choice.kind, choice.ruleset, choice.release) if prompt is None else prompt,
    )
    run.student_model = asked.model if asked else _computed_by(run)
    return run


def student_usable(endpoint: ModelEndpoint | None) -> ModelEndpoint:
    """The endpoint, if it can be a student. Raises InvalidInput."""
    if endpoint is None:
        raise InvalidInput(_("There is no student to ask. Choose a student endpoint in the task's settings first."))
    if endpoint.kind != EndpointKind.CHAT or not endpoint.is_active:
        text = _("%(name)s cannot be the student: it must be a chat endpoint that is switched on.")
        raise InvalidInput(text % {"name": endpoint.name})
    return endpoint


def _computed_by(run: EvaluationRun) -> str:
    """What stands in a student's place where none is asked."""
    if run.kind == PromptKind.NEAREST:
        return f"no student ({run.embedder.model if run.embedder else 'TF-IDF'})"[:120]
    return "no student"


def _conditions_check(choice: PromptChoice, conditions: Conditions, group: RunGroup | None) -> None:
    if conditions.split not in SPLITS:
        raise InvalidInput(_("Instructions are mined from train traces, so an evaluation on them says nothing."))
    if conditions.sample_size is not None and conditions.sample_size < 1:
        raise InvalidInput(_("A sample needs at least one example."))
    if not 1 <= conditions.repeats <= MOST_REPEATS:
        raise InvalidInput(_("Ask 1 to %(n)d times.") % {"n": MOST_REPEATS})
    if not 0 <= conditions.temperature <= 2:
        raise InvalidInput(_("The temperature must be between 0 and 2."))
    if choice.kind in (PromptKind.FEW_SHOT, PromptKind.NEAREST) and not 1 <= (choice.k or 0) <= MOST_SHOTS:
        raise InvalidInput(_("Say how many examples or neighbours to use, 1 to %(n)d.") % {"n": MOST_SHOTS})
    if conditions.split == Split.TEST:
        _test_check(choice, group)


def _test_check(choice: PromptChoice, group: RunGroup | None) -> None:
    """The test split is for what is released: whoever looks at it while choosing has none left to report on."""
    if choice.kind == PromptKind.DRAFT:
        text = _("The test split is for figures of a release. Evaluate the draft on validation, release it, then test.")
        raise InvalidInput(text)
    if choice.kind in BASELINES and (group is None or group.release_id is None):
        text = _("On the test split a baseline is only run beside a release. Start a comparison that holds one.")
        raise InvalidInput(text)


def _dataset_check(task: Task, dataset: Dataset, split: Split) -> None:
    if dataset.task_id != task.pk:
        raise InvalidInput(_("Choose a dataset of this task."))
    if dataset.state != DatasetState.FROZEN:
        raise InvalidInput(_("This dataset is not frozen. Choose one that is."))
    if not dataset.size(split):
        text = _("There are no %(split)s traces to evaluate on. Import some with this split first.")
        if dataset.last_trace_id is None:
            text = _("This dataset has no %(split)s examples. Choose another one.")
        raise InvalidInput(text % {"split": split})


def _run_queue(run: EvaluationRun, user: User | None, template: InputTemplate, *, again: int | None) -> EvaluationRun:
    # Numbers have no gaps and no doubles: one run at a time is numbered.
    task = run.task
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    run.number = 1 + (task.evaluation_runs.aggregate(last=Max("number"))["last"] or 0)
    run.created_by = user
    run.labels = task.labels
    run.template_version, run.template = template.version, template.text
    run.abstention_label = template.abstention_label
    examples = examples_of(run)
    run.total = len(examples) * run.repeats
    run.examples_sha256 = examples_hash(examples)
    run.prompt_sha256 = sha256_hex(run.prompt)
    run.asked_sha256 = asked_hash(run)
    _require_news(run)
    run.save()
    audit_record("evaluation.started", actor=user, subject=run, task_slug=task.slug, data=_event(run, again))
    job_enqueue(kind=JOB_KIND, subject_id=run.pk, key=f"{JOB_KIND}:{run.pk}", created_by=user)
    return run


def asked_hash(run: EvaluationRun) -> str:
    """SHA-256 over all that decides what is asked of which model, for equal runs and for caches."""
    asked = {
        "kind": str(run.kind),
        "k": run.k,
        "prompt": run.prompt_sha256,
        "template": run.template,
        "abstention_label": run.abstention_label,
        "labels": list(run.labels),
        "examples": run.examples_sha256,
        "dataset": run.dataset.sha256 if run.k else "",
        "endpoint": run.student.base_url if run.student else "",
        "model": run.student_model,
        "temperature": str(run.temperature),
        "seed": run.seed,
        "repeats": run.repeats,
    }
    return sha256_hex(canonical_json(asked))


def _require_news(run: EvaluationRun) -> None:
    """A form that is sent twice must not pay twice; once a run has ended, the same may be asked again."""
    same = {name: getattr(run, name) for name in ("kind", "ruleset_id", "release_id", "student_id", "asked_sha256")}
    waiting = run.task.evaluation_runs.filter(state__in=[RunState.QUEUED, RunState.RUNNING], **same).first()
    if waiting is not None:
        text = _("Evaluation %(number)s is asking the same at this moment. Wait for it, or cancel it first.")
        raise InvalidTransition(text % {"number": waiting.number})


def _event(run: EvaluationRun, again: int | None) -> dict[str, Json]:
    return {
        "kind": str(run.kind),
        "prompt": run.prompt_name,
        "prompt_sha256": run.prompt_sha256,
        "student": run.student_model,
        "endpoint": run.student.slug if run.student else "",
        "dataset": run.dataset.number,
        "dataset_sha256": run.dataset.sha256,
        "split": str(run.split),
        "n": run.total // run.repeats,
        "repeats": run.repeats,
        "examples_sha256": run.examples_sha256,
        "asked_sha256": run.asked_sha256,
        "seed": run.seed,
        "group": run.group.number if run.group else None,
        "again": again,
    }


@dataclass(frozen=True)
class RunEstimate:
    """What a run would ask: `calls` at most over `examples` examples, about `tokens` read, and the most it can cost."""

    examples: int
    of: int
    calls: int
    tokens: int
    cost: Decimal


def evaluation_estimate(
    *,
    task: Task,
    kind: PromptKind,
    split: Split,
    student: ModelEndpoint | None = None,
    ruleset: Ruleset | None = None,
    release: Release | None = None,
    k: int | None = None,
    dataset: Dataset | None = None,
    sample_size: int | None = None,
    seed: int = 0,
    temperature: float = 0.0,
    repeats: int = 1,
) -> RunEstimate:
    """Count the calls of a run before it is made; tokens and cost are scaled up from its first 100 examples.

    Writes nothing. Raises as evaluation_run_create does, and EndpointMisconfigured.
    """
    choice = PromptChoice(kind=kind, ruleset=ruleset, release=release, k=k)
    conditions = Conditions(
        split=split, dataset=dataset, sample_size=sample_size, seed=seed, temperature=temperature, repeats=repeats
    )
    return run_estimate(task, run_planned(task, choice, student, conditions), look_ahead(task, conditions))


@dataclass(frozen=True)
class LookAhead:
    """The examples that runs under some conditions would ask about; `of` is the size of the whole split."""

    dataset: Dataset | None
    of: int
    examples: int
    first: tuple[dict[str, str], ...]


def look_ahead(task: Task, conditions: Conditions) -> LookAhead:
    """Read what is to be asked about, from the dataset or from the traces that would be frozen. Writes nothing."""
    dataset = conditions.dataset or dataset_standing(task)
    if dataset is not None:
        _dataset_check(task, dataset, conditions.split)
        rows = labelled(dataset.pk, conditions.split)
    else:
        taken = trace_plan(task).of_split(conditions.split)
        rows = [Labelled(one.trace_id, one.row.label, one.row.input_sha256) for one in taken]
        if not rows:
            text = _("There are no %(split)s traces to evaluate on. Import some with this split first.")
            raise InvalidInput(text % {"split": conditions.split})
    size = conditions.sample_size
    chosen = rows if size is None else stratified_sample(rows, size, conditions.seed)
    keys = [one.example_id for one in chosen[:ESTIMATE_FROM]]
    texts = (Example if dataset else Trace).objects.only("input").in_bulk(keys)
    return LookAhead(dataset, len(rows), len(chosen), tuple(texts[key].input for key in keys))


def run_estimate(task: Task, run: EvaluationRun, ahead: LookAhead) -> RunEstimate:
    """What one planned run would take."""
    if run.student is None:
        return RunEstimate(ahead.examples, ahead.of, 0, 0, Decimal(0))
    template = input_template_of(task)
    run.labels, run.template, run.abstention_label = task.labels, template.text, template.abstention_label
    if run.kind == PromptKind.FEW_SHOT and ahead.dataset is not None:
        run.prompt = few_shot_text(task, ahead.dataset, template, k=run.k or 1, seed=run.seed)
    elif run.kind == PromptKind.FEW_SHOT:
        # Before the traces are frozen: as long as it will be, by the lengths of other examples.
        run.prompt = "".join(str(one) for one in (*ahead.first, *ahead.first)[: run.k or 1])
    requests = (example_request(run, str(n), values) for n, values in enumerate(ahead.first))
    asked = calls_estimate(run.student, requests, scope="estimate")
    times = Decimal(ahead.examples * run.repeats) / len(ahead.first)
    return RunEstimate(
        examples=ahead.examples,
        of=ahead.of,
        calls=ahead.examples * run.repeats,
        tokens=int(asked.prompt_tokens * times),
        cost=asked.cost * times,
    )
