"""A reviewer's own instruction, written from the failures of a group."""

from evaluation.models import CaseRole, ResolutionGroup
from evaluation.services.proposing import examples_domain
from pld_app.models import User
from rules.models import Instruction
from rules.services.mining_flags import proposal_flags, task_vocabulary
from rules.services.proposals import CandidateText, candidate_write

# A card shows a few; the group's page holds all.
SHOWN = 12


def group_candidate_write(
    *, group: ResolutionGroup, reviewer: User, text: str, label: str, note: str = ""
) -> Instruction:
    """Send it into review with the group's closest failures of this label as what it rests on. Raises InvalidInput."""
    loop = group.round.loop
    failures = group.cases.exclude(role=CaseRole.RIGHT).filter(example__label=label).order_by("rank")
    examples = [case.example for case in failures.select_related("example__trace")[:SHOWN]]
    inputs = {example.external_id: example.input for example in examples}
    candidate = CandidateText(
        label=label,
        text=text,
        provenance={
            "loop": loop.number,
            "round": group.round.number,
            "group": group.number,
            "group_key": group.pk,
            "split": group.round.run.split,
            "cited": [example.external_id for example in examples],
        },
        flags=proposal_flags(text, inputs=inputs, known=task_vocabulary(loop.task), labels=loop.task.labels),
        traces=[example.trace_id for example in examples if example.trace_id is not None],
        topic=group.instruction.topic if group.instruction else "",
        domain=group.instruction.domain if group.instruction else examples_domain(loop.task, examples),
        support=len(examples),
    )
    return candidate_write(task=loop.task, reviewer=reviewer, candidate=candidate, note=note)
