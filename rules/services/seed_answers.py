"""What reviewers answer to check items, and the alarm when they miss too many."""

from django.urls import reverse
from django.utils.translation import gettext_lazy

from pld_app.audit import Json, audit_record
from pld_app.models import AuditEvent, Role, User
from pld_app.notifications import kind_register, notify
from rules.models import DecisionKind, PauseReason, ReasonCode, Revision, Seed, SeedAlarm, SeedAnswer, Verdict

kind_register(
    "review.alarm",
    label=gettext_lazy("A reviewer missed check items"),
    text=gettext_lazy(
        "%(name)s missed %(wrong)s of ten check items in %(task)s. Talk, and look at that session again."
    ),
)
BLOCK = 10
ALARM_WRONG = 2


def seed_answered(*, revision: Revision, reviewer: User, kind: str, reason: str, event: AuditEvent) -> None:
    """Keep a reviewer's first answer to a check item, in the transaction of their judgement, and raise the alarm.

    A wrong item is caught by rejecting it, sending it back or wording it anew. A right one is missed by rejecting it,
    unless as a duplicate, which it is. Deferring answers nothing.
    """
    seed = Seed.objects.filter(instruction=revision.instruction_id).select_related("instruction__task").first()
    if seed is None or revision.number != 1:
        return  # reworded by a reviewer, its answer is no longer known
    is_right = _is_right(seed, kind, reason)
    if is_right is None or SeedAnswer.objects.filter(seed=seed, user=reviewer).exists():
        return
    SeedAnswer.objects.create(seed=seed, user=reviewer, kind=kind, is_right=is_right, event=event)
    task = seed.instruction.task
    given = SeedAnswer.objects.filter(user=reviewer, seed__instruction__task=task)
    answers = list(given.values_list("is_right", flat=True))
    block = (len(answers) - 1) // BLOCK + 1
    wrong = answers[(block - 1) * BLOCK :].count(False)
    alarms = SeedAlarm.objects.filter(user=reviewer, task=task)
    if wrong < ALARM_WRONG or alarms.filter(block=block).exists():
        return
    data: dict[str, Json] = {"reviewer": reviewer.username, "block": block, "wrong": wrong}
    raised = audit_record("seed_alarm.raised", actor=None, subject=reviewer, task_slug=task.slug, data=data)
    SeedAlarm.objects.create(user=reviewer, task=task, block=block, event=raised)
    leads = User.objects.filter(role=Role.ADMIN, is_active=True)
    url = reverse("review-quality", args=[task.slug])
    notify(leads, "review.alarm", url=url, name=str(reviewer), task=task.name, wrong=str(wrong))
    if alarms.filter(block=block - 1).exists():
        from rules.services.attention import pause_open  # noqa: PLC0415  # attention asks for the answer, this for the pause

        pause_open(task=task, user=reviewer, reason=PauseReason.SEEDS)


def _is_right(seed: Seed, kind: str, reason: str) -> bool | None:
    if kind in {DecisionKind.DEFER, DecisionKind.REOPEN}:
        return None
    if seed.expected == Verdict.REJECT:
        return kind != DecisionKind.APPROVE
    if kind == DecisionKind.EDIT or (kind == DecisionKind.REJECT and reason == ReasonCode.DUPLICATE):
        return None
    return kind == DecisionKind.APPROVE
