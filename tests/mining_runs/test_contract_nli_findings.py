"""What mining must find in the real Contract-NLI traces besides topics: known conflicts, and no group left uncited."""

from collections import Counter
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.base import ContentFile

from pld_app.jobs import job_execute
from pld_app.models import Job
from rules.models import Conflict, ConflictExample, Evidence, Instruction, InstructionOrigin, MiningRun, Suspect
from rules.schemas import MiningParameters
from rules.services.imports import import_create
from rules.services.mining import mining_run_create
from tests.converters.contractnli import TASK_FIELDS, converted_lines
from tests.factories import make_task

TRACES: Path = settings.BASE_DIR.parent / "shared" / "data" / "contractnli" / "traces.jsonl"
FIRST_PAGE = 25

# The contradictions of the gold labels that the data's own README names: the question, the two labels, and a word that
# each of the two traces shown beside each other has to speak of.
KNOWN = [
    ("nda-20", "Contradiction", "cop", "NotMentioned", "cop"),
    ("nda-17", "Contradiction", "necessity", "NotMentioned", "except as needed"),
    ("nda-17", "Entailment", "except as necessary", "NotMentioned", "consent"),
    ("nda-17", "Contradiction", "necessity", "Entailment", "except as necessary"),
    ("nda-16", "Entailment", "request", "NotMentioned", "request"),
    ("nda-7", "Entailment", "representatives", "NotMentioned", "undefined 'representatives'"),
]


def mined_traces() -> MiningRun:
    task = make_task("contract-nli", **TASK_FIELDS)
    upload = ContentFile(b"".join(converted_lines(TRACES, split="train")), name="traces.jsonl")
    made = import_create(task=task, upload=upload, file_name="traces.jsonl", user=None)
    job_execute(job_id=Job.objects.get(kind="trace_import", subject_id=made.pk).pk)
    run = mining_run_create(task=task, user=None, parameters=MiningParameters())
    job_execute(job_id=Job.objects.get(kind="mining_run", subject_id=run.pk).pk)
    run.refresh_from_db()
    return run


@pytest.mark.slow
@pytest.mark.django_db
@pytest.mark.skipif(not TRACES.exists(), reason="the Contract-NLI traces are not beside the project (../shared/data)")
def test_known_conflicts_are_on_the_first_page_and_every_group_is_cited() -> None:
    run = mined_traces()
    places = [place_of(run, *known) for known in KNOWN]
    assert all(places), dict(zip(KNOWN, places, strict=True))
    assert_every_group_is_cited(run)
    assert 0 < Suspect.objects.filter(run=run).count() <= 50
    # What a reviewer has to read grows by what would have vanished, and hardly more.
    assert Instruction.objects.filter(run=run, origin=InstructionOrigin.UNCOVERED).count() <= 10


def place_of(run: MiningRun, question: str, one: str, one_says: str, other: str, other_says: str) -> int:
    """The place among the strongest 25 of a conflict that shows such a pair; 0 if there is none."""
    first_page = list(Conflict.objects.filter(run=run, kind="conflict")[:FIRST_PAGE])
    for place, conflict in enumerate(first_page, 1):
        for example in conflict.examples.select_related("first_trace", "second_trace"):
            if shows(example, question, {one: one_says, other: other_says}):
                return place
    return 0


def shows(example: ConflictExample, question: str, said: dict[str, str]) -> bool:
    traces = (example.first_trace, example.second_trace)
    if {trace.label for trace in traces} != set(said):
        return False
    return all(
        trace.metadata["yardstick"] == question and said[trace.label] in trace.instruction.lower() for trace in traces
    )


def assert_every_group_is_cited(run: MiningRun) -> None:
    traces = [(trace.metadata["yardstick"], trace.label) for trace in run.task.traces.all()]
    groups = {group for group, size in Counter(traces).items() if size >= 6}
    cited = {
        (evidence.trace.metadata["yardstick"], evidence.trace.label)
        for evidence in Evidence.objects.filter(instruction__run=run, is_cited=True).select_related(
            "trace", "instruction"
        )
        if evidence.trace.label == evidence.instruction.label
    }
    assert len(groups) == 38  # 51 would be all; 9 never occur in the 61 agreements, 4 in fewer than 6
    assert not groups - cited
