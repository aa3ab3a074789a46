"""The texts that stand for a loop: approved ones, in the order of its ruleset, compiled as a release would be."""

from dataclasses import dataclass

from django.db.models import QuerySet
from django.utils.translation import gettext as _

from evaluation.models import ResolutionLoop
from pld_app.errors import InvalidInput
from rules.models import Instruction, InstructionOrigin, InstructionStatus, RulesetItem
from rules.selectors.rulesets import ruleset_compile


@dataclass(frozen=True)
class Standing:
    """`items` are (instruction, revision) keys in the order of the prompt."""

    items: tuple[tuple[int, int], ...]
    prompt: str
    prompt_sha256: str


def standing_texts(loop: ResolutionLoop) -> Standing:
    """What the student is asked with in the next round. Raises InvalidInput when nothing is approved.

    Of the ruleset's instructions those that are approved now, each with the text approved now; then, by number, what
    came of this loop, is approved, and is not in the ruleset yet. Nothing that is still in review, whatever it is.
    """
    placed = list(loop.ruleset.items.order_by("position").values_list("instruction_id", flat=True))
    approved = _approved(loop).in_bulk()
    added = _approved(loop).filter(
        provenance__loop=loop.number, origin__in=[InstructionOrigin.RESOLUTION, InstructionOrigin.PERSON]
    )
    keys = [key for key in placed if key in approved]
    keys += [key for key in added.order_by("number").values_list("pk", flat=True) if key not in set(placed)]
    if not keys:
        raise InvalidInput(_("No instruction of this ruleset is approved any more, so there is nothing to measure."))
    items = [_item(loop, place, approved[key]) for place, key in enumerate(keys, 1)]
    try:
        compiled = ruleset_compile(loop.ruleset, items)
    except ValueError as error:
        raise InvalidInput(_("The standing texts cannot be compiled: %(why)s.") % {"why": error}) from error
    pairs = tuple((item.instruction_id, item.revision_id) for item in items)
    return Standing(pairs, compiled.prompt, compiled.prompt_sha256)


def _approved(loop: ResolutionLoop) -> QuerySet[Instruction]:
    rows = Instruction.objects.filter(task=loop.task_id, status=InstructionStatus.APPROVED, is_seeded=False)
    return rows.select_related("run", "approved_revision__author")


def _item(loop: ResolutionLoop, place: int, instruction: Instruction) -> RulesetItem:
    """An item as it would be in a draft that was brought up to date; it is never saved."""
    return RulesetItem(
        ruleset=loop.ruleset, position=place, instruction=instruction, revision=instruction.approved_revision
    )
