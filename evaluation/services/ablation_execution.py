"""What a worker does with an ablation: ask without each instruction in turn, compare, and tell its reviewers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from evaluation.ablation import Asked, ablation_figures
from evaluation.answers import parse_answer
from evaluation.models import (
    Ablation,
    AblationItem,
    AblationResult,
    EvaluationRun,
    Example,
    PredictionOutcome,
)
from evaluation.schemas import AblationFigures
from evaluation.services.asking import example_request
from evaluation.services.execution import AlreadyOver, cut_off_too_often, is_reply
from evaluation.services.writing import FLUSH_S, Cancelled, SliceOver, StopQuestion
from evaluation.transitions import ablation_move
from pld_app.audit import Json, audit_record
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, PutOff
from pld_app.model_edge import (
    BudgetExhausted,
    CallRequest,
    ChatBody,
    EndpointMisconfigured,
    ModelUnavailable,
    Outcome,
)
from pld_app.model_edge.ledger import RecordedCall, recorded_calls
from rules.manifest import prompt_without
from rules.models import InstructionImpact, RunState
from rules.services.impacts import impact_record
from rules.services.mining_budget import RunBudget

JOB_KIND = "ablation"
BATCH = 200


def call_scope(run: EvaluationRun) -> str:
    """The ledger's scope of leave-one-out questions: shared by every run asked under the same conditions.

    Within it prompt and input decide the question, so an answer is paid for once however often it is needed.
    """
    assert run.student is not None
    conditions = {
        "endpoint": run.student.base_url,
        "model": run.student_model,
        "template": run.template,
        "labels": list(run.labels),
        "abstention_label": run.abstention_label,
        "temperature": str(run.temperature),
        "seed": run.seed,
    }
    return f"ablation:{sha256_hex(canonical_json(conditions))[:16]}"


def ablation_execute(ablation_id: int, lease: Lease) -> JobResult:
    """Measure what has no result yet; a repeated call goes on where the last stopped."""
    try:
        ablation = _start(ablation_id, lease)
        _Measuring(ablation, lease).measure()
        ablation_finish(ablation_id, lease, RunState.SUCCEEDED)
    except AlreadyOver:
        return JobResult.DONE
    except SliceOver:
        return JobResult.AGAIN
    except Cancelled:
        ablation_finish(ablation_id, lease, RunState.CANCELLED)
        return JobResult.CANCELLED
    except BudgetExhausted as error:
        _pause(ablation_id, lease, str(error))
    except ModelUnavailable as error:
        if error.retry_after_s is not None:
            with transaction.atomic():
                lease.check()
                Ablation.objects.filter(pk=ablation_id).update(error=str(error))
            raise PutOff(timezone.now() + timedelta(seconds=error.retry_after_s), str(error)) from error
        ablation_finish(ablation_id, lease, RunState.FAILED, error=str(error))
    except (EndpointMisconfigured, InvalidInput) as error:
        ablation_finish(ablation_id, lease, RunState.FAILED, error=str(error))
    return JobResult.DONE


def ablation_failed(ablation_id: int, error: str) -> None:
    """The job was given up: say so on the ablation."""
    ablation_finish(ablation_id, None, RunState.FAILED, error=error)


@transaction.atomic
def ablation_finish(ablation_id: int, lease: Lease | None, state: RunState, *, error: str = "") -> None:
    """Close it with its one event; nothing happens to one that is closed. `lease` None: no worker holds it."""
    ablation = _locked(ablation_id, lease)
    if ablation.is_final:
        return
    ablation_move(ablation, state)
    ablation.error = error
    ablation.finished_at = timezone.now()
    ablation.save(update_fields=["state", "error", "finished_at"])
    data: dict[str, Json] = {
        "state": state.value,
        "error": error,
        "measured": AblationResult.objects.filter(item__ablation=ablation).count(),
        "calls_used": ablation.calls_used,
        "cost_used": str(ablation.cost_used),
    }
    audit_record("ablation.finished", actor=None, subject=ablation, task_slug=ablation.task.slug, data=data)


@transaction.atomic
def _pause(ablation_id: int, lease: Lease, why: str) -> None:
    """Stop for want of budget; it goes on where it stopped once it may spend more."""
    ablation = _locked(ablation_id, lease)
    if ablation.cancel_requested_at is not None:
        ablation_finish(ablation_id, lease, RunState.CANCELLED)
        return
    ablation_move(ablation, RunState.PAUSED)
    ablation.error = why
    ablation.save(update_fields=["state", "error"])
    data: dict[str, Json] = {"error": why, "calls_used": ablation.calls_used, "cost_used": str(ablation.cost_used)}
    audit_record("ablation.paused", actor=None, subject=ablation, task_slug=ablation.task.slug, data=data)


@transaction.atomic
def _start(ablation_id: int, lease: Lease) -> Ablation:
    ablation = _locked(ablation_id, lease)
    if ablation.is_final or ablation.state == RunState.PAUSED:
        raise AlreadyOver
    if ablation.cancel_requested_at is not None:
        raise Cancelled
    run = ablation.run
    if run.student is None or run.student.model != run.student_model:
        raise InvalidInput(_("The student endpoint now names another model. Evaluate the prompt with it first."))
    if ablation.state == RunState.QUEUED:
        ablation_move(ablation, RunState.RUNNING)
        ablation.started_at = ablation.started_at or timezone.now()
        ablation.save(update_fields=["state", "started_at"])
    return ablation


def _locked(ablation_id: int, lease: Lease | None) -> Ablation:
    related = ("task", "ruleset", "run__task", "run__student", "run__dataset")
    ablation = Ablation.objects.select_for_update(of=("self",)).select_related(*related).get(pk=ablation_id)
    if lease is not None:
        lease.check()
    return ablation


class _Measuring:
    """One worker's turn: a single stream of questions over all instructions that have no result yet.

    `of` is the run whose answers are compared with. Answers are kept by prompt, then input, until a prompt has all of
    them; what a kill takes from here is in the ledger.
    """

    def __init__(self, ablation: Ablation, lease: Lease) -> None:
        self.ablation = ablation
        self.lease = lease
        self.of = ablation.run
        self.asked = asked_of(self.of)
        self.inputs = {one.input_sha256: one.example_id for one in self.asked}
        self.stop = StopQuestion(ablation, lease, self._progress_if_due)
        items = list(ablation.items.select_related("instruction__task", "revision").order_by("position"))
        texts = [item.revision.text for item in items]
        ranked = sorted((item for item in items if item.rank is not None), key=lambda item: item.rank or 0)
        done = set(AblationResult.objects.filter(item__ablation=ablation).values_list("item_id", flat=True))
        self.open: dict[str, list[AblationItem]] = {}
        for item in ranked:
            if item.pk not in done:
                self.open.setdefault(_checked_prompt(self.of, texts, item), []).append(item)
        self.answers: dict[str, dict[str, str | None]] = {prompt: {} for prompt in self.open}
        self.unanswered: dict[str, int] = dict.fromkeys(self.open, 0)
        self.done = len(done & {item.pk for item in ranked}) * len(self.inputs)
        self._shown_at = 0.0

    def measure(self) -> None:
        """Raises Cancelled, SliceOver, LeaseLost, BudgetExhausted or ModelUnavailable when it ends early."""
        assert self.of.student is not None
        self._take_over()
        budget = RunBudget(self.ablation.pk, Ablation)
        found = recorded_calls(
            self.of.student,
            self._requests(),
            scope=call_scope(self.of),
            should_stop=self.stop.should_stop,
            budget=budget,
            run=str(self.ablation),
        )
        try:
            with closing(found):
                for recorded in found:
                    self._take(recorded)
        finally:
            budget.flush()
            self._progress()
        self.stop.check()

    def _take_over(self) -> None:
        """What an earlier ablation of the same run found needs no question at all."""
        same = AblationResult.objects.filter(item__ablation__run=self.of).select_related("item", "impact")
        known = {(row.item.prompt_sha256, row.item.revision_id): row for row in same.order_by("pk")}
        for prompt, items in list(self.open.items()):
            rows = [known.get((item.prompt_sha256, item.revision_id)) for item in items]
            if all(row is not None and row.impact is not None for row in rows):
                del self.open[prompt]
                for item, row in zip(items, rows, strict=True):
                    assert row is not None
                    self._write(item, AblationFigures.model_validate(row.figures), row.impact)
                self.done += len(items) * len(self.inputs)
        self._progress()

    def _requests(self) -> Iterator[CallRequest]:
        """Prompt by prompt, so that a server reuses its cache, with as few texts in memory as the look-ahead takes."""
        keys = list(self.inputs)
        for prompt in list(self.open):
            for start in range(0, len(keys), BATCH):
                part = keys[start : start + BATCH]
                examples = Example.objects.only("input").in_bulk([self.inputs[key] for key in part])
                for key in part:
                    yield example_request(self.of, key, examples[self.inputs[key]].input, prompt=prompt)

    def _take(self, recorded: RecordedCall) -> None:
        if recorded.is_new:
            self.lease.progressed()
        prompt = _prompt_of(recorded.request)
        if is_reply(recorded):
            said = parse_answer(recorded.text, self.of.labels, self.of.abstention_label) if recorded.ok else None
            self.answers[prompt][recorded.request.key] = said.label if said else None
        elif recorded.outcome is not Outcome.CANCELLED or cut_off_too_often(call_scope(self.of), recorded):
            self.unanswered[prompt] += 1
        else:
            return
        self.done += len(self.open[prompt])
        if len(self.answers[prompt]) + self.unanswered[prompt] == len(self.inputs):
            self._conclude(prompt)

    def _conclude(self, prompt: str) -> None:
        answers = self.answers.pop(prompt)
        items = self.open[prompt]
        figures = ablation_figures(
            self.asked, answers, self.of.labels, prompt_sha256=items[0].prompt_sha256, seed=self.of.seed
        )
        for item in items:
            self._write(item, figures, None)

    @transaction.atomic
    def _write(self, item: AblationItem, figures: AblationFigures, impact: InstructionImpact | None) -> None:
        self.lease.check()
        if impact is None and figures.paired is not None:
            impact = impact_record(impact_of_item(self.ablation, item, figures))
        AblationResult.objects.create(item=item, figures=figures.model_dump(mode="json"), impact=impact)

    def _progress_if_due(self) -> None:
        if time.monotonic() - self._shown_at > FLUSH_S:
            self._progress()

    def _progress(self) -> None:
        self._shown_at = time.monotonic()
        Ablation.objects.filter(pk=self.ablation.pk).update(done=min(self.done, self.ablation.total), error="")


def asked_of(run: EvaluationRun) -> list[Asked]:
    """The run's examples that got an answer, with it, in their order."""
    rows = run.predictions.filter(repeat=0).exclude(outcome=PredictionOutcome.NO_ANSWER).order_by("example_id")
    found = rows.values_list("example_id", "example__input_sha256", "gold", "label")
    return [Asked(example, sha256, gold, label or None) for example, sha256, gold, label in found]


def _checked_prompt(run: EvaluationRun, texts: Sequence[str], item: AblationItem) -> str:
    """The prompt without this instruction. Raises InvalidInput if it is not the one that was planned."""
    prompt = prompt_without(run.prompt, texts, item.position - 1)
    if sha256_hex(prompt) != item.prompt_sha256:
        raise InvalidInput(_("The prompt of this run no longer matches its hash, so nothing was asked."))
    return prompt


def _prompt_of(request: CallRequest) -> str:
    assert isinstance(request.body, ChatBody)
    return request.body.messages[0].content


def impact_of_item(ablation: Ablation, item: AblationItem, figures: AblationFigures) -> InstructionImpact:
    """The measurement as its instruction's reviewers are told of it, not saved."""
    paired, run = figures.paired, ablation.run
    assert paired is not None
    return InstructionImpact(
        instruction=item.instruction,
        revision=item.revision,
        flipped=figures.flipped,
        fixed=paired.fixed,
        broken=paired.broken,
        n=paired.n,
        macro_f1_change=paired.macro_f1_change,
        low=paired.macro_f1_change_interval.low,
        high=paired.macro_f1_change_interval.high,
        student=run.student_name,
        model=run.student_model,
        split=run.split,
        dataset_sha256=run.dataset.sha256,
        ruleset=ablation.ruleset,
        ruleset_version=ablation.ruleset_version,
        prompt_sha256=run.prompt_sha256,
        source=f"Ablation {ablation.number}",
    )
