"""Check items: made from real instructions, answered like any other card, published never."""

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Max
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, WrongState
from pld_app.models import AuditEvent, Role, User
from pld_app.notifications import kind_register, notify
from rules import perturbations
from rules.models import (
    DecisionKind,
    Evidence,
    Instruction,
    InstructionStatus,
    MatchKind,
    PauseReason,
    ReasonCode,
    Revision,
    RunMatch,
    Seed,
    SeedAlarm,
    SeedAnswer,
    SeedKind,
    Task,
    Verdict,
)
from rules.selectors.review_policy import policy_of
from rules.services.refusals import database_refusals

kind_register(
    "review.alarm",
    label=gettext_lazy("A reviewer missed check items"),
    text=gettext_lazy(
        "%(name)s missed %(wrong)s of ten check items in %(task)s. Talk, and look at that session again."
    ),
)
BLOCK = 10
ALARM_WRONG = 2
# Two good ones among ten: a reviewer who rejects everything must not look careful.
GOOD_SHARE = 0.2
MAKE_MAX = 50


@dataclass(frozen=True, slots=True)
class _Made:
    text: str
    explanation: str
    label: str


def seed_make(*, task: Task, admin: User, source_number: int, kind: SeedKind) -> Seed:
    """Make one check item out of instruction `source_number`. Refuses where that kind does not apply to its text."""
    source = Instruction.objects.filter(task=task, number=source_number, is_seeded=False).first()
    if source is None:
        raise InvalidInput(_("There is no such instruction in this task."))
    return _make(task, admin, [(source, kind)])[0]


def seeds_make(*, task: Task, admin: User, count: int) -> list[Seed]:
    """Make `count` check items from instructions drawn at random, about one in five of them left right.

    Good ones and contradicting ones rest on approved instructions, the others on any with a text. Fewer are made where
    the texts do not allow more; none at all is refused.
    """
    if not 1 <= count <= MAKE_MAX:
        raise InvalidInput(_("Make between 1 and %(most)d at a time.") % {"most": MAKE_MAX})
    pool = list(
        Instruction.objects.filter(task=task, is_seeded=False, current_revision__isnull=False)
        .exclude(status__in=[InstructionStatus.SUPERSEDED, InstructionStatus.REJECTED])
        .exclude(pk__in=Seed.objects.values("source"))
        .select_related("current_revision")
    )
    draw = random.SystemRandom()
    draw.shuffle(pool)
    wanted = [SeedKind.GOOD] * round(count * GOOD_SHARE)
    bad = [kind for kind in SeedKind if kind != SeedKind.GOOD]
    wanted += [bad[place % len(bad)] for place in range(count - len(wanted))]
    chosen: list[tuple[Instruction, SeedKind]] = []
    for kind in wanted:
        # Where this kind fits no text that is left, the next one does.
        for fits in (kind, *bad):
            source = next((one for one in pool if _perturbed(task, one, fits) is not None), None)
            if source is not None:
                pool.remove(source)
                chosen.append((source, fits))
                break
    if not chosen:
        raise InvalidInput(
            _("No instruction of this task lends itself to a check item yet. Mine or approve some first.")
        )
    return _make(task, admin, chosen)


def _make(task: Task, admin: User, chosen: list[tuple[Instruction, SeedKind]]) -> list[Seed]:
    require_role(admin, Role.ADMIN)
    with database_refusals(), transaction.atomic():
        # One at a time per task: the numbers are handed out here.
        Task.objects.select_for_update().get(pk=task.pk)
        numbers: list[Json] = [one.number for one, _kind in chosen]
        data: dict[str, Json] = {"count": len(chosen), "sources": numbers, "kinds": [str(kind) for _s, kind in chosen]}
        event = audit_record("seeds.made", actor=admin, subject=task, task_slug=task.slug, data=data)
        return [_write(task, source, kind, event) for source, kind in chosen]


def _write(task: Task, source: Instruction, kind: SeedKind, event: AuditEvent) -> Seed:
    made = _perturbed(task, source, kind)
    if made is None:
        raise InvalidInput(_("This kind of change does not apply to that text. Choose another."))
    row = Instruction.objects.create(
        task=task,
        number=_free_number(task),
        is_seeded=True,
        label=made.label,
        # Everything else is that of its source, so that nothing but its text tells it from the others.
        created_at=source.created_at,
        **{name: getattr(source, name) for name in _COPIED},
    )
    row.current_revision = Revision.objects.create(
        instruction=row, number=1, text=made.text, text_sha256=sha256_hex(made.text), created_at=source.created_at
    )
    row.save(update_fields=["current_revision"])
    evidence = Evidence.objects.filter(instruction=source)
    Evidence.objects.bulk_create(
        Evidence(instruction=row, trace_id=one.trace_id, role=one.role, rank=one.rank, is_cited=one.is_cited)
        for one in evidence
    )
    match = RunMatch.objects.filter(instruction=source, run=source.run_id).first()
    if match is not None:
        RunMatch.objects.create(run=match.run, instruction=row, kind=MatchKind.NEW, traces_after=match.traces_after)
    expected = Verdict.APPROVE if kind == SeedKind.GOOD else Verdict.REJECT
    return Seed.objects.create(
        instruction=row, source=source, kind=kind, expected=expected, explanation=made.explanation[:300], event=event
    )


_COPIED = (
    "run",
    "cluster",
    "topic",
    "domain",
    "origin",
    "provenance",
    "flags",
    "support",
    "contradictions",
)
_BY_TEXT: dict[SeedKind, Callable[[str], tuple[str, str] | None]] = {
    SeedKind.POLARITY: perturbations.polarity_flipped,
    SeedKind.THRESHOLD: perturbations.threshold_altered,
    SeedKind.SCOPE: perturbations.scope_widened,
}


def _perturbed(task: Task, source: Instruction, kind: SeedKind) -> _Made | None:
    """What this kind makes of the source's present text; None where it does not apply or the text is there already."""
    revision = source.current_revision
    if revision is None:
        return None
    if kind == SeedKind.GOOD:
        is_sure = source.status == InstructionStatus.APPROVED
        return _Made(revision.text, "Left as it was approved.", source.label) if is_sure else None
    found, label = None, source.label
    if kind in _BY_TEXT:
        found = _BY_TEXT[kind](revision.text)
    elif kind == SeedKind.UNSUPPORTED:
        found = _of_another_topic(task, source)
    elif source.status == InstructionStatus.APPROVED:
        label = next((one for one in task.labels if one != source.label), source.label)
        found = perturbations.label_contradicted(revision.text, source.label, label)
    if found is None or _is_known(task, found[0]):
        return None
    return _Made(found[0], found[1], label)


def _of_another_topic(task: Task, source: Instruction) -> tuple[str, str] | None:
    """Words of a rule of another topic and the same label, over evidence that does not show them."""
    rows = Instruction.objects.filter(task=task, label=source.label, is_seeded=False, current_revision__isnull=False)
    other = rows.exclude(topic=source.topic).exclude(status=InstructionStatus.SUPERSEDED)
    found = other.select_related("current_revision").order_by("number").first()
    if found is None or found.current_revision is None:
        return None
    wider = perturbations.scope_widened(found.current_revision.text)
    text = wider[0] if wider else f"{found.current_revision.text.rstrip('.')}, in every such case."
    return text, f"Its words are of #{found.number}, another topic; its evidence is of #{source.number}."


def _is_known(task: Task, text: str) -> bool:
    """A wrong text must not be one that somebody may approve elsewhere: the database keeps it out of every ruleset."""
    return Revision.objects.filter(instruction__task=task, text_sha256=sha256_hex(text)).exists()


def _free_number(task: Task) -> int:
    """A number that a mining run left free on purpose, else the next one."""
    taken = set(Instruction.objects.filter(task=task).values_list("number", flat=True))
    free = sorted(set(range(1, max(taken, default=0))) - taken)
    return secrets.choice(free) if free else max(taken, default=0) + 1


def numbers_with_gaps(task: Task, count: int) -> list[int]:
    """Numbers for `count` new instructions, with as many left free among them as the policy wants check items.

    A check item takes one of those later: by its number alone it cannot be told from the others.
    """
    last = Instruction.objects.filter(task=task).aggregate(last=Max("number"))["last"] or 0
    percent = policy_of(task).seed_percent
    spare = -(-count * percent // 100) if percent else 0
    places = range(last + 1, last + count + spare + 1)
    return sorted(random.SystemRandom().sample(places, count)) if spare else list(places)


def seed_retire(*, task: Task, seed_id: int, admin: User) -> None:
    """Take a check item out of the queues; what was answered stays."""
    require_role(admin, Role.ADMIN)
    with database_refusals(), transaction.atomic():
        row = Instruction.objects.select_for_update().get(seed__pk=seed_id, task=task)
        if row.status == InstructionStatus.SUPERSEDED:
            raise WrongState(_("This check item has been retired already."))
        audit_record("seed.retired", actor=admin, subject=task, task_slug=task.slug, data={"number": row.number})
        row.status, row.waiting = InstructionStatus.SUPERSEDED, ""
        row.version += 1
        row.save(update_fields=["status", "waiting", "version"])


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
