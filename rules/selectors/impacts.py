"""What leaving an instruction out did to a student's answers, and whether that still holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from rules.hooks import dataset_now
from rules.models import Instruction, InstructionImpact, Ruleset, RulesetItem, RulesetStatus, Task
from rules.suggestions import Measured

CHANGED: dict[str, str | Promise] = {
    "text": gettext_lazy("Measured on an earlier text"),
    "ruleset": gettext_lazy("Measured in an earlier ruleset"),
    "dataset": gettext_lazy("Measured on an earlier dataset"),
    "model": gettext_lazy("Measured with another student"),
}


@dataclass(frozen=True)
class Standing:
    """What measurements of a task are held against: its newest ruleset, student model and dataset, as they are now."""

    ruleset: Ruleset | None
    model: str
    dataset_sha256: str | None

    def changed_since(self, impact: InstructionImpact, revision_id: int | None) -> list[str]:
        """Keys of CHANGED that apply; `revision_id` is that of the instruction's present text.

        What an old measurement does not say is not held against it.
        """
        found = {
            "text": impact.revision_id != revision_id,
            "ruleset": bool(impact.prompt_sha256) and not self._is_prompt(impact),
            "dataset": bool(impact.dataset_sha256)
            and self.dataset_sha256 is not None
            and impact.dataset_sha256 != self.dataset_sha256,
            "model": bool(impact.model) and impact.model != self.model,
        }
        return [key for key, is_so in found.items() if is_so]

    def _is_prompt(self, impact: InstructionImpact) -> bool:
        """Whether the ruleset still makes the prompt that was measured; a draft says so by its version."""
        if self.ruleset is None:
            return False
        if self.ruleset.prompt_sha256:
            return self.ruleset.prompt_sha256 == impact.prompt_sha256
        return (self.ruleset.pk, self.ruleset.version) == (impact.ruleset_id, impact.ruleset_version)


def standing_of(task: Task, ruleset: Ruleset | None = None) -> Standing:
    """How things are; `ruleset`: hold measurements against this one instead of the newest."""
    rulesets = task.rulesets.exclude(status=RulesetStatus.WITHDRAWN).only("version", "prompt_sha256")
    return Standing(
        ruleset=ruleset or rulesets.first(),
        model=task.student.model if task.student else "",
        dataset_sha256=dataset_now(task),
    )


def impact_of(instruction: Instruction) -> tuple[InstructionImpact | None, list[str]]:
    """The newest measurement, with the words for what has changed since."""
    impact = InstructionImpact.objects.filter(instruction=instruction).first()
    if impact is None:
        return None, []
    changed = standing_of(instruction.task).changed_since(impact, instruction.current_revision_id)
    return impact, [str(CHANGED[key]) for key in changed]


def measured_lines(ruleset: Ruleset, items: Sequence[RulesetItem]) -> dict[int, Measured]:
    """The newest measurement of each text of a draft by instruction number, as suggestions look at them."""
    of_revision = {item.revision_id: item for item in items}
    rows = InstructionImpact.objects.filter(revision__in=of_revision).order_by("pk")
    newest = {row.revision_id: row for row in rows}
    if not newest:
        return {}
    standing = standing_of(ruleset.task, ruleset)
    found = {}
    for revision_id, row in newest.items():
        changed = standing.changed_since(row, revision_id)
        found[of_revision[revision_id].instruction.number] = Measured(
            flipped=row.flipped,
            fixed=row.fixed or 0,
            broken=row.broken or 0,
            n=row.n,
            student=row.student,
            split=row.split,
            stale=", ".join(_lower_first(str(CHANGED[key])) for key in changed),
        )
    return found


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
