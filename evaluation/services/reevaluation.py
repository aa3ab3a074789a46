"""Asking a release again: by a person, the command line, the API, a schedule, or since something changed.

One rule of money for all of them: what costs something starts only within the budget that an administrator confirmed.
"""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import structlog
from django.db import transaction
from django.db.models import Max, Sum
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from evaluation.models import (
    Cause,
    Dataset,
    DatasetState,
    EvaluationRun,
    PromptKind,
    Reevaluation,
    ReevaluationPlan,
)
from evaluation.services.input_templates import require_admin
from evaluation.services.judging import task_judge
from evaluation.services.runs import Conditions, PromptChoice, look_ahead, run_create, run_estimate, run_planned
from pld_app.accounts import require_role
from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, Refusal
from pld_app.models import ModelCall, ModelEndpoint, Notification, Role, User
from pld_app.notifications import kind_register, notify
from rules.exceptions import Stale
from rules.models import ChannelName, Release, RulesetStatus, Split, Task
from rules.selectors.gates import gates_in_force
from rules.selectors.publishing import current_release
from rules.services.refusals import database_refusals

BUDGET_DAYS = 30
log = structlog.get_logger(__name__)

kind_register(
    "reevaluation.refused",
    label=gettext_lazy("A re-evaluation could not start"),
    text=gettext_lazy("%(release)s of %(task)s was to be evaluated again: %(why)s"),
)


@dataclass(frozen=True)
class Target:
    """What a re-evaluation asks: over which examples, and whom."""

    student: ModelEndpoint
    dataset: Dataset
    split: Split


def plan_of(task: Task) -> ReevaluationPlan | None:
    return task.reevaluation_plans.order_by("-version").first()


@database_refusals()
@transaction.atomic
def plan_set(
    *,
    task: Task,
    actor: User,
    split: str,
    budget: Decimal,
    every_hours: int | None = None,
    on_change: bool = False,
    expected: int | None = None,
) -> ReevaluationPlan:
    """Confirm when production is asked again and what that may cost in 30 days. Raises Stale after another version."""
    require_role(actor, Role.ADMIN)
    Task.objects.select_for_update(no_key=True).get(pk=task.pk)
    standing = plan_of(task)
    version = standing.version if standing else 0
    if expected is not None and expected != version:
        raise Stale(_("The plan changed since you opened this page. Look at it and repeat."))
    plan = ReevaluationPlan(
        task=task,
        version=version + 1,
        split=split,
        every_hours=every_hours,
        on_change=on_change,
        budget=budget,
        author=actor,
    )
    plan.full_clean(exclude=["event"])
    plan.event = audit_record(
        "reevaluation.planned",
        actor=actor,
        subject=task,
        task_slug=task.slug,
        data={
            "version": plan.version,
            "split": split,
            "every_hours": every_hours,
            "on_change": on_change,
            "budget": str(budget),
        },
    )
    plan.save()
    return plan


def targets(task: Task, plan: ReevaluationPlan | None) -> list[Target]:
    """What the gates in force ask for, and the newest dataset if that is another one. Raises InvalidInput for none."""
    policy = gates_in_force(task)
    frozen = task.datasets.filter(state=DatasetState.FROZEN)
    newest = frozen.order_by("-pk").first()
    wanted: list[Target] = []
    if policy is not None and policy.has_gates and policy.student is not None:
        split, student = Split(policy.split), policy.student
        pinned = frozen.filter(sha256=policy.dataset_sha256).order_by("-pk").first()
        wanted += [Target(student, pinned, split)] if pinned else []
        if newest is not None and newest.sha256 != policy.dataset_sha256 and newest.size(split):
            wanted.append(Target(student, newest, split))
    elif task.student is not None and newest is not None:
        split = Split(plan.split) if plan else Split.TEST
        wanted = [Target(task.student, newest, split)]
    if not wanted:
        text = _("There is nothing to ask: choose a student in the task's settings and freeze a dataset first.")
        raise InvalidInput(text)
    return wanted


def spent(task: Task) -> Decimal:
    """What re-evaluations of the last 30 days came to by the ledger; for open ones the most they could."""
    since = timezone.now() - timedelta(days=BUDGET_DAYS)
    rows = Reevaluation.objects.filter(release__task=task, created_at__gt=since, estimate__gt=0).select_related("run")
    closed = [scope for one in rows if one.closed_at is not None for scope in one.run.call_scopes]
    paid = ModelCall.objects.filter(scope__in=closed).aggregate(cost=Sum("cost", default=Decimal(0)))["cost"]
    return sum((one.estimate for one in rows if one.closed_at is None), Decimal(paid))


def reevaluation_estimate(release: Release, target: Target) -> Decimal:
    """The most one re-evaluation can cost: replies at full length, no retries."""
    choice, conditions = _asked(release, target)
    run = run_planned(release.task, choice, target.student, conditions)
    return run_estimate(release.task, run, look_ahead(release.task, conditions)).cost


def _asked(release: Release, target: Target) -> tuple[PromptChoice, Conditions]:
    return PromptChoice(kind=PromptKind.RELEASE, release=release), Conditions(
        split=target.split, dataset=target.dataset
    )


@database_refusals()
@transaction.atomic
def reevaluation_start(
    *, release: Release, cause: Cause, user: User | None = None, target: Target | None = None, said_by: str = ""
) -> Reevaluation:
    """Ask a release again; while the same is open already, that one is returned and nothing is started.

    `user` None: the command line, the API (`said_by` names its token) or the schedule. `target` None: the first of
    `targets`. Raises InvalidInput when it costs something and the budget does not hold it, or nothing can be asked.
    """
    require_admin(user)
    task = Task.objects.select_for_update(of=("self",), no_key=True).select_related("student").get(pk=release.task_id)
    plan = plan_of(task)
    target = target or targets(task, plan)[0]
    if release.ruleset.status != RulesetStatus.SIGNED:
        raise InvalidInput(_("The ruleset of this release was withdrawn, so it is not evaluated again."))
    waiting = Reevaluation.objects.filter(
        release=release, dataset=target.dataset, split=target.split, student=target.student, closed_at=None
    ).first()
    if waiting is not None:
        return waiting
    estimate = reevaluation_estimate(release, target)
    _require_budget(task, plan, estimate)
    choice, conditions = _asked(release, target)
    run = run_create(task, user, choice, target.student, conditions, group=None)
    event = audit_record(
        "release.reevaluated",
        actor=user,
        subject=release,
        task_slug=task.slug,
        data={
            "run": run.number,
            "cause": str(cause),
            "student": run.student_model,
            "dataset_sha256": target.dataset.sha256,
            "split": str(target.split),
            "estimate": str(estimate),
            "plan": plan.version if plan else None,
            "said_by": said_by,
        },
    )
    return Reevaluation.objects.create(
        release=release,
        dataset=target.dataset,
        split=target.split,
        student=target.student,
        student_model=run.student_model,
        run=run,
        cause=cause,
        estimate=estimate.quantize(Decimal("0.000001")),
        plan=plan,
        created_by=user,
        event=event,
    )


def _require_budget(task: Task, plan: ReevaluationPlan | None, estimate: Decimal) -> None:
    if not estimate:
        return
    if plan is None or not plan.budget:
        text = _("It may cost %(cost)s, and no budget was confirmed. An administrator confirms one on the page Drift.")
        raise InvalidInput(text % {"cost": f"{estimate:.2f}"})
    left = plan.budget - spent(task)
    if estimate > left:
        text = _(
            "It may cost %(cost)s, and %(left)s of the budget of %(budget)s for 30 days is left. Wait, or confirm more."
        )
        raise InvalidInput(text % {"cost": f"{estimate:.2f}", "left": f"{left:.2f}", "budget": plan.budget})


def tasks_follow() -> None:
    """What beat asks for each minute: start what is due, judge what has finished, and record what stands against it."""
    for task in Task.objects.select_related("student").order_by("pk"):
        try:
            task_follow(task)
        except Exception:  # the worker's outer edge: what is wrong with one task must not stop the others
            log.exception("reevaluation.follow_failed", task=task.slug)


def task_follow(task: Task) -> list[Reevaluation]:
    """Start the re-evaluations of a task that are due; a refusal is told to the administrators once a day."""
    started = []
    plan, release = plan_of(task), current_release(task, ChannelName.PRODUCTION)
    if plan is not None and release is not None and (plan.on_change or plan.every_hours):
        release.task = task
        try:
            for target in targets(task, plan):
                cause = _due(release, target, plan)
                if cause is not None:
                    started.append(reevaluation_start(release=release, cause=cause, target=target))
        except Refusal as refusal:
            _refused_tell(release, str(refusal.user_message))
    if gates_in_force(task) is not None or release is not None:
        task_judge(task)
    return started


def _due(release: Release, target: Target, plan: ReevaluationPlan) -> Cause | None:
    """Why it is due, by the newest run of this release over the whole split, whatever became of it."""
    whole = EvaluationRun.objects.filter(kind=PromptKind.RELEASE, release=release, sample_size=None, split=target.split)
    of_target = whole.filter(dataset=target.dataset, student=target.student)
    newest = of_target.filter(student_model=target.student.model).aggregate(at=Max("created_at"))["at"]
    if newest is None:
        if not plan.on_change:
            return Cause.SCHEDULE if plan.every_hours else None
        if of_target.exists():
            return Cause.MODEL
        return Cause.DATASET if whole.exists() else Cause.RELEASE
    if plan.every_hours and timezone.now() - newest >= timedelta(hours=plan.every_hours):
        return Cause.SCHEDULE
    return None


def _refused_tell(release: Release, why: str) -> None:
    log.warning("reevaluation.refused", release=str(release), task=release.task.slug, why=why)
    url = f"/tasks/{release.task.slug}/evaluation/drift/"
    recent = Notification.objects.filter(
        kind="reevaluation.refused", url=url, at__gt=timezone.now() - timedelta(days=1)
    )
    if recent.exists():
        return
    with transaction.atomic():
        admins = User.objects.filter(role=Role.ADMIN, is_active=True)
        notify(admins, "reevaluation.refused", url=url, release=str(release), task=release.task.name, why=why)
