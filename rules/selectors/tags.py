"""Tags of a task and of its instructions."""

from collections.abc import Sequence

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef
from django.utils.translation import gettext as _

from rules.models import Instruction, InstructionTag, Task


def tags_of_task(task: Task) -> list[str]:
    """Every tag in use in the task, in the order of the alphabet."""
    found = InstructionTag.objects.filter(instruction__task=task).order_by("name")
    return list(found.values_list("name", flat=True).distinct())


def tag_names() -> ArraySubquery:
    """The tags of each row of a query of instructions, to annotate it with as `tag_names`."""
    return ArraySubquery(InstructionTag.objects.filter(instruction=OuterRef("pk")).order_by("name").values("name"))


def tags_of(instruction: Instruction) -> list[str]:
    """The tags of an instruction that was asked for with `tag_names`."""
    # An annotation has no place on the model.
    found: list[str] = getattr(instruction, "tag_names", [])
    return found


def tag_reasons(rows: Sequence[Instruction], name: str, *, takes_off: bool) -> dict[int, str]:
    """Why putting this tag on each row, or taking it off, would change nothing; the others are left out."""
    tagged = InstructionTag.objects.filter(instruction__in=[row.pk for row in rows], name=name)
    has = set(tagged.values_list("instruction", flat=True))
    if takes_off:
        return {row.pk: _("It has no such tag.") for row in rows if row.pk not in has}
    return {row.pk: _("It has this tag already.") for row in rows if row.pk in has}
