"""What leaving an instruction out did, written down for its reviewers by whoever measured it."""

from django.db import transaction

from pld_app.audit import Json, audit_record
from rules.models import InstructionImpact


@transaction.atomic
def impact_record(impact: InstructionImpact) -> InstructionImpact:
    """Keep a measurement, with its event. Raises ValidationError for figures that do not add up."""
    impact.full_clean(exclude={"low", "high", "macro_f1_change"})
    impact.save(force_insert=True)
    instruction = impact.instruction
    data: dict[str, Json] = {
        "revision": impact.revision.number,
        "flipped": impact.flipped,
        "fixed": impact.fixed,
        "broken": impact.broken,
        "n": impact.n,
        "student": impact.student,
        "split": impact.split,
        "prompt_sha256": impact.prompt_sha256,
        "source": impact.source,
    }
    audit_record("impact.measured", actor=None, subject=instruction, task_slug=instruction.task.slug, data=data)
    return impact
