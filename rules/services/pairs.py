"""Like rules that somebody compared and keeps side by side."""

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput
from pld_app.models import Role, User
from rules.exceptions import InvalidTransition, Stale
from rules.models import Instruction, KeptPair
from rules.services.refusals import database_refusals


def pair_keep(*, instruction_id: int, other_id: int, reviewer: User, version: int, other_version: int) -> KeptPair:
    """Say that both texts are needed: neither card suggests the other until one of the two is worded anew.

    It decides nothing. Refused where either changed since the person saw it.
    """
    require_role(reviewer, Role.REVIEWER)
    with database_refusals(), transaction.atomic():
        rows = Instruction.objects.select_for_update(of=("self",)).select_related("task").order_by("pk")
        found = {row.pk: row for row in rows.filter(pk__in=[instruction_id, other_id])}
        here, other = found.get(instruction_id), found.get(other_id)
        if here is None or other is None or here.current_revision_id is None or other.current_revision_id is None:
            raise InvalidInput(_("There is no such pair of instructions."))
        if (here.version, other.version) != (version, other_version):
            raise Stale
        first, second = sorted((here.current_revision_id, other.current_revision_id))
        if KeptPair.objects.filter(first=first, second=second).exists():
            raise InvalidTransition(_("Both are kept already."))
        data: dict[str, Json] = {"number": here.number, "version": here.version, "beside": other.number}
        event = audit_record("pair.kept", actor=reviewer, subject=here, data=data, task_slug=here.task.slug)
        return KeptPair.objects.create(first_id=first, second_id=second, instruction=here, actor=reviewer, event=event)
