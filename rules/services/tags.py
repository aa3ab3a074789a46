"""Tags: words people put on instructions to find them again, each time on record."""

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput
from pld_app.models import Role, User
from rules.hidden_text import hidden_in
from rules.models import Instruction, InstructionTag, Task
from rules.selectors.bulk import Reasons
from rules.selectors.tags import tag_reasons
from rules.services.batches import BulkDone, Shown, demand_some, finished, locked_rows
from rules.services.refusals import database_refusals

TAG_MAX_CHARS = 30


def tag_name(name: str) -> str:
    """A tag as it is stored: single spaces, at most 30 visible characters."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= TAG_MAX_CHARS:
        raise InvalidInput(_("A tag has 1 to %(most)d characters.") % {"most": TAG_MAX_CHARS})
    if hidden_in(name):
        raise InvalidInput(_("There are invisible characters in it. Type the tag anew."))
    return name


def batch_tag(*, task: Task, by: User, shown: Shown, name: str) -> BulkDone:
    """Put a tag on each of these that has it not yet, decided or open."""
    return _each(task, by, shown, tag_name(name), takes_off=False)


def batch_untag(*, task: Task, by: User, shown: Shown, name: str) -> BulkDone:
    """Take a tag off each of these that has it."""
    return _each(task, by, shown, tag_name(name), takes_off=True)


def _each(task: Task, by: User, shown: Shown, name: str, *, takes_off: bool) -> BulkDone:
    require_role(by, Role.REVIEWER, Role.ADMIN)
    demand_some(shown)
    with database_refusals(), transaction.atomic():
        rows = locked_rows(task, shown)
        reasons: Reasons = tag_reasons(rows, name, takes_off=takes_off)
        changed = [row for row in rows if row.pk not in reasons]
        done = finished(rows, shown, reasons)
        if takes_off:
            InstructionTag.objects.filter(instruction__in=changed, name=name).delete()
        else:
            InstructionTag.objects.bulk_create(InstructionTag(instruction=row, name=name, by=by) for row in changed)
        for row in changed:
            _recorded(row, by, name, takes_off=takes_off)
    return done


def _recorded(row: Instruction, by: User, name: str, *, takes_off: bool) -> None:
    data: dict[str, Json] = {"number": row.number, "version": row.version, "tag": name}
    action = "instruction.untagged" if takes_off else "instruction.tagged"
    audit_record(action, actor=by, subject=row, data=data, task_slug=row.task.slug)
