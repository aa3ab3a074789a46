"""Check items: made from real instructions, like these in everything but their text, published never."""

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Max
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, WrongState
from pld_app.models import AuditEvent, Role, User
from rules import perturbations
from rules.models import (
    Assignment,
    Instruction,
    InstructionStatus,
    InstructionTag,
    Revision,
    RunMatch,
    Seed,
    SeedKind,
    Task,
    Verdict,
)
from rules.selectors.review_policy import policy_of
from rules.services.assignments import assignment_set
from rules.services.mining_similar import similar_refresh
from rules.services.refusals import database_refusals
from rules.services.seed_twins import evidence_copy, evidence_fields, match_copy
from rules.services.tags import batch_tag

# Two good ones among ten: a reviewer who rejects everything must not look careful.
GOOD_SHARE = 0.2
MAKE_MAX = 50


@dataclass(frozen=True, slots=True)
class _Made:
    text: str
    explanation: str
    twin: Instruction


def seed_make(*, task: Task, admin: User, source_number: int, kind: SeedKind) -> Seed:
    """Make one check item out of instruction `source_number`. Refuses where that kind does not apply to its text."""
    source = Instruction.objects.filter(task=task, number=source_number, is_seeded=False).first()
    if source is None:
        raise InvalidInput(_("There is no such instruction in this task."))
    (made,) = _make(task, admin, [(source, kind)])
    return made


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
        made = [_write(task, source, kind, event) for source, kind in chosen]
        for seed in made:
            _sort_like(seed.twin, seed.instruction, admin)
    # Slow at thousands, so after the commit: the nearest rules stand on every other card, too.
    similar_refresh(task)
    return made


def _sort_like(twin: Instruction, row: Instruction, admin: User) -> None:
    """The twin's tags and assignment are this one's too: without them among others that have them it stands out."""
    for tag in InstructionTag.objects.filter(instruction=twin):
        batch_tag(task=row.task, by=admin, shown={row.number: row.version}, name=tag.name)
    given = Assignment.objects.filter(instruction=twin).select_related("person").first()
    person = given.person if given else None
    if given is None or (person is not None and (not person.is_active or person.role != Role.REVIEWER)):
        return
    assignment_set(instruction_id=row.pk, by=admin, person=person, pool=given.pool, due_on=given.due_on)


def _write(task: Task, source: Instruction, kind: SeedKind, event: AuditEvent) -> Seed:
    made = _perturbed(task, source, kind)
    if made is None:
        raise InvalidInput(_("This kind of change does not apply to that text. Choose another."))
    twin = made.twin
    row = Instruction.objects.create(
        task=task,
        number=_free_number(task),
        is_seeded=True,
        # All else is that of its twin, so that nothing but its text tells it from the others.
        label=twin.label,
        domain=twin.domain,
        origin=twin.origin,
        created_at=twin.created_at,
        # Every run that found a candidate nobody has touched again has counted one up.
        version=twin.version if twin.status == InstructionStatus.PROPOSED else 1,
        **evidence_fields(twin, made.text),
    )
    row.current_revision = Revision.objects.create(
        instruction=row, number=1, text=made.text, text_sha256=sha256_hex(made.text), created_at=twin.created_at
    )
    row.save(update_fields=["current_revision"])
    evidence_copy(twin, row)
    for match in RunMatch.objects.filter(instruction=twin):
        match_copy(match, row)
    expected = Verdict.APPROVE if kind == SeedKind.GOOD else Verdict.REJECT
    return Seed.objects.create(
        instruction=row,
        source=source,
        evidence_of=twin if twin.pk != source.pk else None,
        kind=kind,
        expected=expected,
        explanation=made.explanation[:300],
        event=event,
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
        return _Made(revision.text, "Left as it was approved.", source) if is_sure else None
    found, twin = None, source
    if kind in _BY_TEXT:
        found = _BY_TEXT[kind](revision.text)
    elif kind == SeedKind.UNSUPPORTED:
        found = _of_another_topic(task, source)
    elif source.status == InstructionStatus.APPROVED:
        # Over the evidence of a rule of that other label: supporting traces of another label than the rule's would
        # betray it before anybody has read a word.
        sibling = _of_another_label(task, source)
        if sibling is not None:
            twin = sibling
            found = perturbations.label_contradicted(revision.text, source.label, twin.label)
    if found is None or _is_known(task, found[0]):
        return None
    return _Made(found[0], found[1], twin)


def _of_another_label(task: Task, source: Instruction) -> Instruction | None:
    """An instruction of the same topic that leads to another label."""
    rows = Instruction.objects.filter(task=task, topic=source.topic, is_seeded=False, current_revision__isnull=False)
    rows = rows.exclude(label=source.label).exclude(status=InstructionStatus.SUPERSEDED)
    return rows.select_related("current_revision").order_by("number").first()


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
