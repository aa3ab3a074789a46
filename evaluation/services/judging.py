"""Verdicts of gates: from a finished run's stored predictions, added up anew, to a row that `rules` owns."""

from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q

from evaluation.gates import PASSED, Evidence, result_of
from evaluation.metrics import PairedComparison, compare_runs, score_run
from evaluation.models import EvaluationRun, PredictionOutcome, PromptKind
from pld_app.audit import Json, audit_record
from pld_app.jobs import JobResult, Lease
from rules.models import (
    ChannelName,
    GatePolicy,
    GateVerdict,
    Release,
    Ruleset,
    RulesetStatus,
    RunState,
    Task,
)
from rules.selectors.gates import gates_in_force
from rules.selectors.prompt_sizes import prompt_tokens
from rules.selectors.publishing import current_release
from rules.services.flags import flags_record
from rules.services.refusals import database_refusals

JOB_KIND = "gates.judge"
JUDGED = 25
_UNUSABLE = frozenset({PredictionOutcome.MALFORMED, PredictionOutcome.NO_ANSWER})


def task_judge(task: Task) -> list[GateVerdict]:
    """Judge every ruleset of a task that may be published by its newest run, then record what stands against releases.

    What was judged before by the same runs is left alone, so that a repeated call writes nothing.
    """
    policy = gates_in_force(task)
    made = []
    if policy is not None and policy.has_gates:
        for ruleset in _judged(task):
            verdict = ruleset_judge(ruleset, policy)
            if verdict is not None:
                made.append(verdict)
    flags_record(task)
    return made


def _judged(task: Task) -> list[Ruleset]:
    """Frozen rulesets that somebody evaluated: the newest JUDGED of them, and those that are served."""
    asked = EvaluationRun.objects.filter(task=task, state=RunState.SUCCEEDED)
    of_release = asked.filter(kind=PromptKind.RELEASE).values("release__ruleset")
    of_draft = asked.filter(kind=PromptKind.DRAFT).values("ruleset")
    frozen = task.rulesets.filter(status__in=[RulesetStatus.IN_SIGN_OFF, RulesetStatus.SIGNED])
    found = frozen.filter(Q(pk__in=of_release) | Q(pk__in=of_draft))
    known = found.select_related("task__student").defer("manifest").order_by("-number")
    served = [one.ruleset_id for channel in ChannelName if (one := current_release(task, channel)) is not None]
    newest = list(known[:JUDGED])
    return [*newest, *known.filter(pk__in=served).exclude(pk__in=[one.pk for one in newest])]


def newest_run(ruleset: Ruleset, policy: GatePolicy) -> EvaluationRun | None:
    """The newest finished run of the frozen prompt over the whole split, by the gates' student as it is now."""
    assert policy.student is not None
    runs = EvaluationRun.objects.filter(
        Q(kind=PromptKind.RELEASE, release__ruleset=ruleset) | Q(kind=PromptKind.DRAFT, ruleset=ruleset),
        state=RunState.SUCCEEDED,
        prompt_sha256=ruleset.prompt_sha256,
        dataset__sha256=policy.dataset_sha256,
        split=policy.split,
        student=policy.student,
        student_model=policy.student.model,
        sample_size=None,
    )
    return runs.select_related("dataset", "student").order_by("-finished_at", "-pk").first()


@dataclass(frozen=True)
class _Reference:
    """The other release in production, and its newest run over the same examples."""

    release: Release | None
    run: EvaluationRun | None

    @property
    def sha256(self) -> str:
        return self.release.manifest_sha256 if self.release else ""


def ruleset_judge(ruleset: Ruleset, policy: GatePolicy) -> GateVerdict | None:
    """One verdict, or None: there is no such run, or it has its verdict already, or things moved meanwhile."""
    run = newest_run(ruleset, policy)
    if run is None or run.finished_at is None:
        return None
    reference = _reference(ruleset, policy, run)
    before = GateVerdict.objects.filter(
        policy=policy,
        ruleset=ruleset,
        run_id=run.pk,
        reference_sha256=reference.sha256,
        reference_run_id=reference.run.pk if reference.run else None,
    )
    if before.exists():
        return None
    return _verdict_write(ruleset, policy, run, reference, _evidence(ruleset, policy, run, reference))


def _reference(ruleset: Ruleset, policy: GatePolicy, run: EvaluationRun) -> _Reference:
    served = current_release(ruleset.task, ChannelName.PRODUCTION) if policy.max_drop is not None else None
    if served is None or served.ruleset_id == ruleset.pk:
        return _Reference(None, None)
    other = newest_run(served.ruleset, policy)
    return _Reference(served, other if other and other.examples_sha256 == run.examples_sha256 else None)


type _Answers = list[tuple[str, str, str]]


def _answers(run: EvaluationRun) -> _Answers:
    """(gold, label or empty, outcome) of the first repetition, in the order of the examples."""
    rows = run.predictions.filter(repeat=0).order_by("example__position")
    return list(rows.values_list("gold", "label", "outcome"))


def _evidence(ruleset: Ruleset, policy: GatePolicy, run: EvaluationRun, reference: _Reference) -> Evidence:
    """The figures of the run, from its predictions and not from the figures it keeps."""
    answers = _answers(run)
    gold, said = [one[0] for one in answers], [one[1] or None for one in answers]
    tokens = prompt_tokens(policy.student, ruleset.prompt)
    compared: PairedComparison | None = None
    if reference.run is not None:
        old = [label or None for _gold, label, _outcome in _answers(reference.run)]
        compared = compare_runs(gold, old, said, seed=run.seed)
    return Evidence(
        metrics=score_run(gold, said, run.labels, seed=run.seed),
        unusable=sum(outcome in _UNUSABLE for _gold, _label, outcome in answers),
        tokens=tokens.tokens,
        tokens_by=tokens.model,
        has_reference=reference.release is not None,
        compared=compared,
    )


@database_refusals()
@transaction.atomic
def _verdict_write(
    ruleset: Ruleset, policy: GatePolicy, run: EvaluationRun, reference: _Reference, evidence: Evidence
) -> GateVerdict:
    assert policy.student is not None
    assert run.finished_at is not None
    task = Task.objects.select_for_update().get(pk=ruleset.task_id)
    results = [result_of(*threshold, evidence, policy.minimum_n) for threshold in policy.thresholds]
    passed = all(one["outcome"] == PASSED for one in results)
    data: dict[str, Json] = {
        "gates": policy.version,
        "passed": passed,
        "run": run.number,
        "manifest_sha256": ruleset.manifest_sha256,
        "dataset_sha256": policy.dataset_sha256,
        "student": run.student_model,
        "split": run.split,
        "n": evidence.metrics.n,
        "results": [
            {name: one[name] for name in ("gate", "label", "threshold", "outcome", "value")} for one in results
        ],
    }
    event = audit_record("gates.judged", actor=None, subject=ruleset, task_slug=task.slug, data=data)
    return GateVerdict.objects.create(
        task=task,
        policy=policy,
        ruleset=ruleset,
        manifest_sha256=ruleset.manifest_sha256,
        dataset_sha256=policy.dataset_sha256,
        split=run.split,
        student=policy.student,
        student_model=run.student_model,
        models_returned=run.student_name[:300],
        run_id=run.pk,
        run_number=run.number,
        measured_at=run.finished_at,
        n=evidence.metrics.n,
        reference_sha256=reference.sha256,
        reference_run_id=reference.run.pk if reference.run else None,
        results=results,
        passed=passed,
        event=event,
    )


def judge_execute(task_id: int, lease: Lease) -> JobResult:
    """After a run has finished: what it says about the gates of its task."""
    lease.check()
    task_judge(Task.objects.select_related("student").get(pk=task_id))
    return JobResult.DONE


def judge_failed(_task_id: int, _error: str) -> None:
    """Without a verdict nothing is shown, so nothing passes; the job says why, and the next look repeats it."""
