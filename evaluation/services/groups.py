"""Comparisons: prompts and students over the same examples, estimated as a whole and confirmed by a person once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from evaluation.models import NEED_STUDENT, EvaluationRun, RunGroup
from evaluation.services.datasets import dataset_current
from evaluation.services.input_templates import require_admin
from evaluation.services.runs import (
    Conditions,
    PromptChoice,
    RunEstimate,
    look_ahead,
    run_create,
    run_estimate,
    run_planned,
)
from pld_app.audit import Json, audit_record
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.errors import InvalidInput
from pld_app.models import ModelEndpoint, User
from rules.models import Release, Task

MOST_RUNS = 24


@dataclass(frozen=True)
class Planned:
    """One run of a comparison before it is made; `student` is None where none is asked."""

    name: str
    choice: PromptChoice
    student: ModelEndpoint | None
    estimate: RunEstimate


@dataclass(frozen=True)
class Matrix:
    """All runs of a comparison. `digest` stands for what a person confirms: the runs, their examples and the most they
    can cost."""

    planned: tuple[Planned, ...]
    digest: str

    @property
    def examples(self) -> int:
        return self.planned[0].estimate.examples

    @property
    def calls(self) -> int:
        return sum(one.estimate.calls for one in self.planned)

    @property
    def tokens(self) -> int:
        return sum(one.estimate.tokens for one in self.planned)

    @property
    def cost(self) -> Decimal:
        return sum((one.estimate.cost for one in self.planned), Decimal(0))


def group_estimate(
    *, task: Task, prompts: Sequence[PromptChoice], students: Sequence[ModelEndpoint], conditions: Conditions
) -> Matrix:
    """Count what a comparison would take, without writing or asking anything. Raises InvalidInput."""
    pairs = _pairs(prompts, students)
    ahead = look_ahead(task, conditions)
    group = RunGroup(task=task, split=conditions.split, release=_release(prompts))
    planned, said = [], []
    for choice, student in pairs:
        run = run_planned(task, choice, student, conditions, group=group)
        estimate = run_estimate(task, run, ahead)
        planned.append(Planned(run.prompt_name, choice, student, estimate))
        said.append(
            [run.prompt_name, sha256_hex(run.prompt), run.student_model, student.pk if student else 0, estimate.calls]
        )
    whole = [said, ahead.examples, str(sum((one.estimate.cost for one in planned), Decimal(0)))]
    return Matrix(tuple(planned), sha256_hex(canonical_json(whole)))


@transaction.atomic
def group_create(
    *,
    task: Task,
    user: User | None,
    prompts: Sequence[PromptChoice],
    students: Sequence[ModelEndpoint],
    conditions: Conditions,
    confirmed: str,
) -> RunGroup:
    """Queue every run of a comparison, all or none. `confirmed` is the digest of the estimate that was shown.

    Raises InvalidInput when it is another one by now, or for what cannot be evaluated.
    """
    require_admin(user)
    matrix = group_estimate(task=task, prompts=prompts, students=students, conditions=conditions)
    if matrix.digest != confirmed:
        raise InvalidInput(_("What this takes has changed since it was estimated. Look at the new estimate first."))
    dataset = conditions.dataset or dataset_current(task, user)
    conditions = replace(conditions, dataset=dataset)
    # Numbers have no gaps and no doubles: one comparison at a time is numbered.
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    group = RunGroup.objects.create(
        task=task,
        number=1 + (task.run_groups.aggregate(last=Max("number"))["last"] or 0),
        dataset=dataset,
        split=conditions.split,
        release=_release(prompts),
        estimate={"calls": matrix.calls, "tokens": matrix.tokens, "cost": str(matrix.cost), "digest": matrix.digest},
        created_by=user,
    )
    runs = [run_create(task, user, one.choice, one.student, conditions, group=group) for one in matrix.planned]
    audit_record("comparison.started", actor=user, subject=group, task_slug=task.slug, data=_event(group, runs))
    return group


def _event(group: RunGroup, runs: Sequence[EvaluationRun]) -> dict[str, Json]:
    numbers: list[Json] = [run.number for run in runs]
    return {"runs": numbers, "split": group.split, "dataset": group.dataset.number, "estimate": group.estimate}


def _pairs(
    prompts: Sequence[PromptChoice], students: Sequence[ModelEndpoint]
) -> list[tuple[PromptChoice, ModelEndpoint | None]]:
    """Each prompt with each student; once where no student is asked."""
    pairs: list[tuple[PromptChoice, ModelEndpoint | None]] = []
    for choice in prompts:
        asked: Sequence[ModelEndpoint | None] = students if choice.kind in NEED_STUDENT else [None]
        pairs += [(choice, student) for student in asked]
    if not pairs:
        raise InvalidInput(_("Choose at least one prompt, and a student for each that needs one."))
    if len(pairs) > MOST_RUNS:
        raise InvalidInput(
            _("This makes %(n)d runs; a comparison holds %(most)d.") % {"n": len(pairs), "most": MOST_RUNS}
        )
    return pairs


def _release(prompts: Sequence[PromptChoice]) -> Release | None:
    """The newest release among the prompts: what the comparison is about."""
    found = [choice.release for choice in prompts if choice.release is not None]
    return max(found, key=lambda release: release.version, default=None)
