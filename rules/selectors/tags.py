"""Tags of a task and of its instructions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from django.utils.translation import gettext as _

from rules.models import Instruction, InstructionTag, Task


def tags_of_task(task: Task) -> list[str]:
    """Every tag in use in the task, in the order of the alphabet."""
    found = InstructionTag.objects.filter(instruction__task=task).order_by("name")
    return list(found.values_list("name", flat=True).distinct())


def tags_of(rows: Iterable[Instruction]) -> dict[int, list[str]]:
    """The tags of each of these instructions, by its id."""
    found: dict[int, list[str]] = defaultdict(list)
    tags = InstructionTag.objects.filter(instruction__in=[row.pk for row in rows]).order_by("name")
    for pk, name in tags.values_list("instruction", "name"):
        found[pk].append(name)
    return dict(found)


def tag_reasons(rows: Sequence[Instruction], name: str, *, takes_off: bool) -> dict[int, str]:
    """Why putting this tag on each row, or taking it off, would change nothing; the others are left out."""
    tagged = InstructionTag.objects.filter(instruction__in=[row.pk for row in rows], name=name)
    has = set(tagged.values_list("instruction", flat=True))
    if takes_off:
        return {row.pk: _("It has no such tag.") for row in rows if row.pk not in has}
    return {row.pk: _("It has this tag already.") for row in rows if row.pk in has}
