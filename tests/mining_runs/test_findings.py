"""Conflicts, groups a teacher left out, and suspect labels, from traces to rows."""

import json

import pytest
from django.db import IntegrityError, transaction

from rules.models import (
    Conflict,
    ConflictExample,
    Evidence,
    Instruction,
    InstructionOrigin,
    MiningRun,
    RunMatch,
    Suspect,
    Task,
)
from tests.factories import make_endpoint, make_instruction, make_task, make_trace
from tests.mining_runs.test_stages import filled_task, mined
from tests.stub_server import Plan, StubRequest, completion, good_reply, stub_server

pytestmark = pytest.mark.django_db

CONDITIONS = (
    "archive tapes outlive the deletion of working documents",
    "a solicitor holds one sealed original for disputes",
    "backup media rotate automatically every quarter",
)


def three_conditions() -> Task:
    """One label, one topic, three conditions that share no word."""
    task = filled_task()
    for words in CONDITIONS:
        for n in range(3):
            make_trace(task, label="Unclear", instruction=f"If {words} in case {n}, then label Unclear.", metadata={})
    return task


def only_the_first(request: StubRequest) -> str | Plan:
    """A teacher that rests every instruction on one rule, whatever it was given."""
    if request.path.endswith("/embeddings"):
        return good_reply(request)
    data = json.loads(request.body["messages"][-1]["content"])
    return Plan(completion(json.dumps({"instruction": f"Teacher: {data['rules'][0]['rule']}", "cited": [1]})))


def test_what_a_teacher_leaves_out_becomes_candidates_of_its_own() -> None:
    task = three_conditions()
    with stub_server(only_the_first) as stub:
        task.teacher = make_endpoint(stub.url)
        task.save()
        # One topic of all: each of the three conditions lies in the same cluster.
        run = mined(task, resolution=0.01)
    found = Instruction.objects.filter(run=run, label="Unclear")
    cited = Evidence.objects.filter(instruction__in=found, is_cited=True).values_list("trace__instruction", flat=True)
    for words in CONDITIONS:
        assert any(words in text for text in cited), words
    origins = [one.origin for one in found]
    assert origins[0] == InstructionOrigin.TEACHER
    assert set(origins[1:]) == {InstructionOrigin.UNCOVERED}
    assert run.figures["uncovered"] == Instruction.objects.filter(run=run, origin=InstructionOrigin.UNCOVERED).count()
    assert sum(one.support for one in Instruction.objects.filter(run=run)) == task.traces.count()


def test_a_group_too_small_for_the_guarantee_is_still_a_candidate_and_says_so() -> None:
    task = filled_task()
    make_trace(task, label="Unclear", instruction="If the recipient keeps archival copies abroad, then label Unclear.")
    run = mined(task)
    small = Instruction.objects.get(run=run, label="Unclear")
    assert small.provenance["small_group"] is True
    assert run.figures["small_groups"] == 1
    assert not Instruction.objects.filter(run=run, label="Compliant", provenance__has_key="small_group").exists()


def conflicting_task() -> Task:
    task = make_task()
    same = "the recipient returns or destroys all copies at the discloser's request"
    for n in range(6):
        make_trace(task, label="Breach", instruction=f"If {same} in case {n}, then label Breach.")
        make_trace(task, label="Compliant", instruction=f"If {same} in matter {n}, then label Compliant.")
        for label, verb in (("Breach", "contains an"), ("Unclear", "contains no")):
            text = f"If the agreement {verb} indemnity for lost profits of kind {n}, then label {label}."
            make_trace(task, label=label, instruction=text)
    return task


def test_the_same_condition_under_two_labels_is_a_conflict_and_the_opposite_one_a_boundary() -> None:
    run = mined(conflicting_task())
    conflict = Conflict.objects.get(run=run, kind="conflict")
    assert {conflict.first.label, conflict.second.label} == {"Breach", "Compliant"}
    assert conflict.same_pairs > 0
    example = conflict.examples.all()[0]
    assert "returns or destroys" in example.first_trace.instruction
    assert example.first_trace.label == conflict.first.label
    assert example.second_trace.label == conflict.second.label
    boundary = Conflict.objects.get(run=run, kind="boundary")
    assert {boundary.first.label, boundary.second.label} == {"Breach", "Unclear"}
    assert (run.figures["conflicts"], run.figures["boundaries"]) == (1, 1)


def test_conflicts_of_a_second_run_name_the_instructions_that_stand() -> None:
    task = conflicting_task()
    first, second = mined(task), mined(task)
    pairs = [set(Conflict.objects.filter(run=run).values_list("first", "second")) for run in (first, second)]
    assert pairs[0] == pairs[1] != set()


def test_a_label_that_all_its_neighbours_contradict_is_suspect() -> None:
    task = filled_task(per_group=12)
    odd = make_trace(
        task,
        label="Unclear",
        instruction="If the recipient keeps archival copies of the returned documents under variant 3 of copies, "
        "then label Unclear; wording aside.",
    )
    task.traces.filter(label="Breach").delete()
    run = mined(task)
    suspect = Suspect.objects.get(run=run)
    assert suspect.trace == odd
    assert suspect.neighbour.label == "Compliant"
    assert "archival copies" in suspect.neighbour.instruction
    assert (suspect.others, suspect.looked_at) == (10, 10)


# Each constraint of these rows, broken.


@pytest.fixture
def run_and_two(task: Task) -> tuple[MiningRun, Instruction, Instruction]:
    run = MiningRun.objects.create(task=task, number=1)
    return run, make_instruction(task), make_instruction(task, "If x, then label Breach.", label="Breach")


def refused(make: object, name: str) -> None:
    assert callable(make)
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        make()


def test_the_database_refuses_odd_conflicts(run_and_two: tuple[MiningRun, Instruction, Instruction]) -> None:
    run, one, two = run_and_two
    values = {"run": run, "kind": "conflict", "strength": 0.5, "same_pairs": 1, "opposed_pairs": 0}

    def make(**more: object) -> Conflict:
        return Conflict.objects.create(**(values | {"first": one, "second": two} | more))

    kept = make()
    refused(make, "conflict_once")
    refused(lambda: make(first=two, second=one), "conflict_first_before_second")
    refused(lambda: make(first=one, second=one), "conflict_first_before_second")
    kept.delete()
    refused(lambda: make(kind="odd"), "conflict_kind_known")
    refused(lambda: make(strength=1.5), "conflict_strength_range")
    trace = make_trace(run.task)
    example = {"conflict": make(), "rank": 1, "first_trace": trace, "second_trace": trace, "similarity": 0.5}
    ConflictExample.objects.create(**example)
    refused(lambda: ConflictExample.objects.create(**example), "conflict_example_rank")


def test_the_database_refuses_odd_matches(run_and_two: tuple[MiningRun, Instruction, Instruction]) -> None:
    run, one, two = run_and_two
    RunMatch.objects.create(run=run, instruction=one, kind="new")
    refused(lambda: RunMatch.objects.create(run=run, instruction=one, kind="lost"), "run_match_once")
    refused(lambda: RunMatch.objects.create(run=run, instruction=two, kind="odd"), "run_match_kind_known")
    refused(
        lambda: RunMatch.objects.create(run=run, instruction=two, kind="lost", proposed_text="x"),
        "run_match_proposes_if_reworded",
    )
    when = run.created_at
    refused(
        lambda: RunMatch.objects.create(run=run, instruction=two, kind="lost", dismissed_at=when),
        "run_match_dismissed_by_someone",
    )


def test_the_database_refuses_odd_suspects(task: Task) -> None:
    run, trace = MiningRun.objects.create(task=task, number=1), make_trace(task)
    values = {"neighbour": make_trace(task), "others": 9, "looked_at": 10, "similarity": 0.5}
    Suspect.objects.create(run=run, rank=1, trace=trace, **values)
    refused(lambda: Suspect.objects.create(run=run, rank=1, trace=make_trace(task), **values), "suspect_rank")
    refused(lambda: Suspect.objects.create(run=run, rank=2, trace=trace, **values), "suspect_once")


def test_the_smallest_group_can_be_chosen() -> None:
    task = filled_task()
    run = mined(task, min_group=4)
    small = Instruction.objects.filter(run=run, provenance__small_group=True)
    # The three groups of 3 traces, not those of 6.
    assert [(one.label, one.support) for one in small] == [("Breach", 3)] * 3
    assert run.figures["small_groups"] == 3
