"""Whose work an instruction is: a named reviewer's or a pool's, and who does it while somebody is away."""

from datetime import date

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import Domain, Role, User
from rules.exceptions import InvalidTransition
from rules.models import Absence, Assignment, Instruction, Task
from rules.selectors.bulk import assignment_reasons
from rules.services.batches import BulkDone, Shown, demand_some, finished, locked_rows
from rules.services.refusals import database_refusals


def assignment_set(
    *, instruction_id: int, by: User, person: User | None = None, pool: str = "", due_on: date | None = None
) -> Assignment:
    """Give an open instruction to one reviewer or to the pool of a domain, with a due date or none.

    An administrator may, and a reviewer where the instruction is of their own domain or of none. It directs work: who
    may decide does not change, and a running claim stays. Refuses anything but one active reviewer or one pool.
    """
    if (person is None) == (not pool) or (pool and pool not in Domain.values):
        raise InvalidInput(_("Choose one reviewer or one pool."))
    if person is not None and (not person.is_active or person.role != Role.REVIEWER):
        raise InvalidInput(_("Work is assigned to reviewers whose account is open."))
    with database_refusals(), transaction.atomic():
        row = _assignable(instruction_id, by)
        facts: dict[str, Json] = {"to": str(person) if person else "", "pool": pool}
        facts["due_on"] = due_on.isoformat() if due_on else ""
        event = audit_record(
            "instruction.assigned", actor=by, subject=row, data=_facts(row, facts), task_slug=row.task.slug
        )
        values = {"person": person, "pool": pool, "due_on": due_on, "by": by, "at": event.at, "event": event}
        assignment, _made = Assignment.objects.update_or_create(instruction=row, defaults=values)
    return assignment


def assignment_clear(*, instruction_id: int, by: User) -> None:
    """Make an instruction nobody's in particular again."""
    with transaction.atomic():
        row = _assignable(instruction_id, by)
        deleted, _kinds = Assignment.objects.filter(instruction=row).delete()
        if not deleted:
            raise InvalidTransition(_("This instruction is not assigned. Reload to see what happened."))
        audit_record("instruction.unassigned", actor=by, subject=row, data=_facts(row, {}), task_slug=row.task.slug)


def batch_assign(
    *, task: Task, by: User, shown: Shown, person: User | None = None, pool: str = "", due_on: date | None = None
) -> BulkDone:
    """Give each of these to one reviewer or pool, or with neither to nobody in particular, each as its own act.

    Those that cannot be or are so already are left as they are; NothingDone where that is all of them.
    """
    require_role(by, Role.REVIEWER, Role.ADMIN)
    demand_some(shown)
    with database_refusals(), transaction.atomic():
        rows = locked_rows(task, shown)
        reasons = assignment_reasons(by, rows, person=person, pool=pool, due_on=due_on)
        done = finished(rows, shown, reasons)
        for row in rows:
            if row.pk in reasons:
                continue
            if person is None and not pool:
                assignment_clear(instruction_id=row.pk, by=by)
            else:
                assignment_set(instruction_id=row.pk, by=by, person=person, pool=pool, due_on=due_on)
    return done


def _assignable(instruction_id: int, by: User) -> Instruction:
    row = Instruction.objects.select_for_update(of=("self",)).select_related("task").get(pk=instruction_id)
    is_of_pool = by.role == Role.REVIEWER and row.domain in {by.domain, ""}
    if not by.is_active or not (by.role == Role.ADMIN or is_of_pool):
        raise NotAllowed(_("Administrators assign work, and reviewers that of their own domain."))
    if not row.is_open:
        raise InvalidTransition(_("This instruction is already decided: there is nothing to assign."))
    return row


def _facts(row: Instruction, more: dict[str, Json]) -> dict[str, Json]:
    return {"number": row.number, "version": row.version, **{key: value for key, value in more.items() if value}}


@transaction.atomic
def absence_set(*, person: User, by: User, starts_on: date, ends_on: date, deputy: User | None = None) -> Absence:
    """Say on which days a reviewer is away. Then their work is the deputy's, or without one that of anybody.

    Nothing is assigned anew: it comes back by itself when they do. Oneself or an administrator may.
    """
    _demand_own_or_admin(person, by)
    if deputy is not None and (not deputy.is_active or deputy.role != Role.REVIEWER):
        raise InvalidInput(_("The deputy must be a reviewer whose account is open."))
    absence = Absence.objects.filter(person=person).first() or Absence(person=person)
    absence.starts_on, absence.ends_on, absence.deputy = starts_on, ends_on, deputy
    _clean(absence)
    absence.save()
    data: dict[str, Json] = {"from": starts_on.isoformat(), "until": ends_on.isoformat()}
    audit_record("absence.set", actor=by, subject=person, data=data | ({"deputy": str(deputy)} if deputy else {}))
    return absence


def _clean(absence: Absence) -> None:
    try:
        absence.full_clean()
    except ValidationError as error:
        raise InvalidInput(" ".join(error.messages)) from error


@transaction.atomic
def absence_end(*, person: User, by: User) -> None:
    """The person is back: their work is theirs again."""
    _demand_own_or_admin(person, by)
    deleted, _kinds = Absence.objects.filter(person=person).delete()
    if deleted:
        audit_record("absence.ended", actor=by, subject=person)


def _demand_own_or_admin(person: User, by: User) -> None:
    if not by.is_active or not (by.role == Role.ADMIN or (by.role == Role.REVIEWER and by.pk == person.pk)):
        raise NotAllowed(_("Only the person and an administrator may say when somebody is away."))
    if person.role != Role.REVIEWER:
        raise InvalidInput(_("Only a reviewer's work is handed on."))
