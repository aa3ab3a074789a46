"""Evaluation runs: made with a frozen prompt, cancelled, made again. What a worker does with one is in `runs`."""

from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.translation import gettext as _

from evaluation.answers import zero_shot_prompt
from evaluation.models import EvaluationRun, PromptKind
from evaluation.runs import JOB_KIND, example_request, run_finish
from evaluation.sampling import examples_hash
from evaluation.selectors import examples_of
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.jobs import job_enqueue
from pld_app.model_edge.estimate import calls_estimate
from pld_app.models import EndpointKind, Job, JobState, ModelEndpoint, Role, User
from rules.exceptions import InvalidTransition
from rules.models import Release, Ruleset, RulesetStatus, RunState, Split, Task, Trace
from rules.selectors.rulesets import ruleset_compile

SPLITS = (Split.VALIDATION, Split.TEST)
ESTIMATE_FROM = 100


@dataclass(frozen=True)
class _Asked:
    """What a new run is to ask of whom; `last_trace_id` None means every trace there is now."""

    kind: PromptKind
    prompt: str
    ruleset: Ruleset | None
    release: Release | None
    student: ModelEndpoint
    split: Split
    sample_size: int | None
    seed: int
    last_trace_id: int | None = None
    again: int | None = None


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
    sample_size: int | None = None,
    seed: int = 0,
) -> EvaluationRun:
    """Queue a run of one prompt over one split (`user` None: from the command line; no `student`: the task's own).

    The prompt's text is frozen in the run. Raises InvalidInput for what cannot be evaluated, NotAllowed for anyone
    but an administrator.
    """
    prompt = _prompt(task, kind, ruleset, release)
    asked = _Asked(
        kind=kind,
        prompt=prompt,
        ruleset=ruleset,
        release=release,
        student=_student(student or task.student),
        split=split,
        sample_size=sample_size,
        seed=seed,
    )
    return _run_create(task, user, asked)


@transaction.atomic
def evaluation_rerun(*, run_id: int, user: User | None) -> EvaluationRun:
    """A new run of the same prompt bytes, student endpoint and examples, whose calls are made anew."""
    run = EvaluationRun.objects.select_related("task", "ruleset", "release", "student").get(pk=run_id)
    asked = _Asked(
        kind=PromptKind(run.kind),
        prompt=run.prompt,
        ruleset=run.ruleset,
        release=run.release,
        student=_student(run.student),
        split=Split(run.split),
        sample_size=run.sample_size,
        seed=run.seed,
        last_trace_id=run.last_trace_id,
        again=run.number,
    )
    return _run_create(run.task, user, asked)


@transaction.atomic
def evaluation_run_cancel(*, run_id: int, user: User) -> EvaluationRun:
    """Ask a run to stop before its next model call; one that no worker holds ends here. What was paid is kept."""
    _require_admin(user)
    run = EvaluationRun.objects.select_for_update(of=("self",)).select_related("task").get(pk=run_id)
    if run.is_final:
        raise InvalidTransition(f"This run is {run.get_state_display().lower()} already.")
    if run.cancel_requested_at is None:
        run.cancel_requested_at = timezone.now()
        run.save(update_fields=["cancel_requested_at"])
        audit_record("evaluation.cancelled", actor=user, subject=run, task_slug=run.task.slug)
    if not Job.objects.filter(kind=JOB_KIND, subject_id=run.pk, state=JobState.RUNNING).exists():
        run_finish(run.pk, None, RunState.CANCELLED)
        run.refresh_from_db()
    return run


def _run_create(task: Task, user: User | None, asked: _Asked) -> EvaluationRun:
    _require_admin(user)
    # Numbers have no gaps and no doubles: one run at a time is numbered.
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    number = 1 + (task.evaluation_runs.aggregate(last=Max("number"))["last"] or 0)
    run = EvaluationRun(
        task=task,
        number=number,
        kind=asked.kind,
        ruleset=asked.ruleset if asked.kind == PromptKind.DRAFT else None,
        release=asked.release if asked.kind == PromptKind.RELEASE else None,
        student=asked.student,
        student_model=asked.student.model,
        split=asked.split,
        sample_size=asked.sample_size,
        seed=asked.seed,
        prompt=asked.prompt,
        prompt_sha256=sha256_hex(asked.prompt),
        last_trace_id=asked.last_trace_id or _newest_trace(task),
        created_by=user,
    )
    _examples_freeze(run)
    _require_news(run)
    run.save()
    audit_record("evaluation.started", actor=user, subject=run, task_slug=task.slug, data=_event(run, asked.again))
    job_enqueue(kind=JOB_KIND, subject_id=run.pk, key=f"{JOB_KIND}:{run.pk}", created_by=user)
    return run


def _require_news(run: EvaluationRun) -> None:
    """A form that is sent twice must not pay twice; once a run has ended, the same may be asked again."""
    asked = ("kind", "ruleset_id", "release_id", "prompt_sha256", "student_id", "split", "seed", "examples_sha256")
    same = {name: getattr(run, name) for name in asked}
    waiting = run.task.evaluation_runs.filter(state__in=[RunState.QUEUED, RunState.RUNNING], **same).first()
    if waiting is not None:
        text = _("Evaluation %(number)s is asking the same at this moment. Wait for it, or cancel it first.")
        raise InvalidTransition(text % {"number": waiting.number})


def _examples_freeze(run: EvaluationRun) -> None:
    if run.split not in SPLITS:
        raise InvalidInput(_("Instructions are mined from train traces, so an evaluation on them says nothing."))
    if run.sample_size is not None and run.sample_size < 1:
        raise InvalidInput(_("A sample needs at least one example."))
    examples = examples_of(run)
    if not examples:
        text = _("There are no %(split)s traces to evaluate on. Import some with this split first.")
        raise InvalidInput(text % {"split": run.split})
    run.total = len(examples)
    run.examples_sha256 = examples_hash(examples)


def _event(run: EvaluationRun, again: int | None) -> dict[str, Json]:
    return {
        "kind": str(run.kind),
        "prompt": run.prompt_name,
        "prompt_sha256": run.prompt_sha256,
        "student": run.student_model,
        "endpoint": run.student.slug,
        "split": str(run.split),
        "n": run.total,
        "examples_sha256": run.examples_sha256,
        "seed": run.seed,
        "again": again,
    }


def _newest_trace(task: Task) -> int:
    return Trace.objects.filter(task=task).aggregate(newest=Max("pk"))["newest"] or 0


def _require_admin(user: User | None) -> None:
    if user is not None and (user.role != Role.ADMIN or not user.is_active):
        raise NotAllowed


def _student(endpoint: ModelEndpoint | None) -> ModelEndpoint:
    if endpoint is None:
        raise InvalidInput(_("There is no student to ask. Choose a student endpoint in the task's settings first."))
    if endpoint.kind != EndpointKind.CHAT or not endpoint.is_active:
        text = _("%(name)s cannot be the student: it must be a chat endpoint that is switched on.")
        raise InvalidInput(text % {"name": endpoint.name})
    return endpoint


def _prompt(task: Task, kind: PromptKind, ruleset: Ruleset | None, release: Release | None) -> str:
    match kind:
        case PromptKind.ZERO_SHOT:
            return zero_shot_prompt(task.preamble, task.labels, task.output_contract)
        case PromptKind.DRAFT:
            return _draft_prompt(task, ruleset)
        case PromptKind.RELEASE:
            return _release_prompt(task, release)


def _draft_prompt(task: Task, ruleset: Ruleset | None) -> str:
    """The frozen prompt of a ruleset that has one, else what the compiler of releases makes of its items now."""
    if ruleset is None or ruleset.task_id != task.pk:
        raise InvalidInput(_("Choose a ruleset of this task."))
    if ruleset.status == RulesetStatus.WITHDRAWN:
        raise InvalidInput(_("This ruleset was withdrawn. Choose another one."))
    if ruleset.prompt:
        return ruleset.prompt
    if not ruleset.items.exists():
        raise InvalidInput(_("This ruleset has no instructions yet. Add some first."))
    try:
        return ruleset_compile(ruleset).prompt
    except ValueError as error:
        raise InvalidInput(_("This ruleset cannot be compiled: %(why)s.") % {"why": error}) from error


def _release_prompt(task: Task, release: Release | None) -> str:
    """The release's own bytes, checked against the hash that was signed."""
    if release is None or release.task_id != task.pk:
        raise InvalidInput(_("Choose a release of this task."))
    if sha256_hex(release.prompt) != release.prompt_sha256:
        text = _("The prompt of %(release)s does not match its signed hash. It was not used; tell an auditor.")
        raise InvalidInput(text % {"release": release})
    return release.prompt


@dataclass(frozen=True)
class RunEstimate:
    """What a run would ask: `examples` calls at most, about `tokens` read, and the most it can cost."""

    examples: int
    of: int
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
    sample_size: int | None = None,
    seed: int = 0,
) -> RunEstimate:
    """Count the calls of a run before it is made; tokens and cost are scaled up from its first 100 examples.

    Raises as evaluation_run_create does, and EndpointMisconfigured.
    """
    endpoint = _student(student or task.student)
    run = EvaluationRun(
        task=task, split=split, sample_size=sample_size, seed=seed, last_trace_id=_newest_trace(task), student=endpoint
    )
    run.prompt = _prompt(task, kind, ruleset, release)
    _examples_freeze(run)
    first = [example.trace_id for example in examples_of(run)[:ESTIMATE_FROM]]
    traces = Trace.objects.only("external_id", "input").in_bulk(first).values()
    asked = calls_estimate(
        endpoint, (example_request(task, run.prompt, seed, trace) for trace in traces), scope="estimate"
    )
    return RunEstimate(
        examples=run.total,
        of=task.traces.filter(split=split).count(),
        tokens=asked.prompt_tokens * run.total // len(first),
        cost=asked.cost * run.total / len(first),
    )
