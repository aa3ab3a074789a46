"""Mining again: what stands is matched, what people worked on is left alone, and every card can say what changed."""

import re

import pytest

from pld_app.models import User
from rules.models import Instruction, InstructionStatus, MatchKind, MiningRun, RunMatch, Split, Task
from tests.factories import make_trace
from tests.mining_runs.test_stages import LABELS, TOPICS, filled_task, mined
from tests.review.conftest import approve, edit, reject

pytestmark = pytest.mark.django_db


def counts(run: MiningRun) -> dict[str, int]:
    """The kinds that occur, from the rows, and the same as the run's figures say."""
    found = {
        kind.value: RunMatch.objects.filter(run=run, kind=kind).count()
        for kind in MatchKind
        if RunMatch.objects.filter(run=run, kind=kind).exists()
    }
    assert found == {kind: n for kind, n in run.figures["matches"].items() if n}
    return found


def state(instruction: Instruction) -> list[object]:
    return list(Instruction.objects.filter(pk=instruction.pk).values())


def of_topic(task: Task, words: str, label: str) -> Instruction:
    rows = Instruction.objects.filter(task=task, label=label, current_revision__text__contains=words)
    return rows.exclude(status=InstructionStatus.SUPERSEDED).get()


def add_traces(task: Task, topic: str, label: str, count: int) -> None:
    for n in range(count):
        text = f"If {TOPICS[topic]} under variant {90 + n} of {topic}, then label {label}; wording aside."
        make_trace(task, label=label, instruction=text, metadata={"domain": "legal", "yardstick": topic})


def test_a_first_run_is_all_new() -> None:
    run = mined(filled_task())
    assert counts(run) == {"new": len(TOPICS) * len(LABELS)}
    assert run.figures["written"] == run.figures["candidates"] == Instruction.objects.count()


def test_the_same_traces_again_change_nothing_at_all(ana: User, ben: User) -> None:
    task = filled_task()
    first = mined(task)
    one, two, three, *_ = Instruction.objects.filter(task=task)
    approve(one, ana)
    reject(two, ana, reason="unclear")
    edit(three, ben, text="If copies are kept for good, then label Breach.")
    before = list(Instruction.objects.values())
    second = mined(task)
    assert counts(second) == {"unchanged": first.figures["candidates"]}
    assert (second.figures["written"], second.figures["superseded"]) == (0, 0)
    assert list(Instruction.objects.values()) == before
    assert not RunMatch.objects.exclude(proposed_text="").exists()


def test_more_traces_change_the_evidence_and_no_decided_row(ana: User) -> None:
    task = filled_task()
    mined(task)
    decided = of_topic(task, TOPICS["oral"], "Compliant")
    approve(decided, ana)
    kept, evidence = state(decided), list(decided.evidence.values())
    waiting = of_topic(task, TOPICS["copies"], "Compliant")
    # The most central text must stay the most central one, so that the draft reads the same: repeat it.
    for topic in ("oral", "copies"):
        text = of_topic(task, TOPICS[topic], "Compliant").provenance["cited"][0]
        central = task.traces.get(external_id=text)
        for _ in range(3):
            make_trace(task, label="Compliant", instruction=central.instruction, metadata=central.metadata)
    run = mined(task)
    assert counts(run)["evidence"] >= 2
    match = RunMatch.objects.get(run=run, instruction=decided)
    assert (match.kind, match.traces_before, match.traces_after, match.shared) == ("evidence", 6, 9, 6)
    assert state(decided) == kept
    assert list(decided.evidence.values()) == evidence
    waiting.refresh_from_db()
    assert (waiting.support, waiting.run, waiting.status) == (9, run, InstructionStatus.PROPOSED)
    assert waiting.evidence.filter(role="supporting").count() == 9


def test_a_draft_whose_quotations_all_stand_is_not_reworded_by_more_of_the_same() -> None:
    task = filled_task()
    mined(task)
    before = {row.pk: row.current_revision_id for row in Instruction.objects.filter(task=task)}
    for topic in TOPICS:
        add_traces(task, topic, "Compliant", 5)
    run = mined(task)
    assert counts(run) == {"evidence": 6}  # the three other ones are contradicted by more traces than before
    assert {row.pk: row.current_revision_id for row in Instruction.objects.filter(task=task)} == before
    for row in Instruction.objects.filter(task=task, label="Compliant"):
        assert row.support == 11
        cited = row.evidence.filter(is_cited=True)
        assert {one.trace.external_id for one in cited} == set(row.provenance["cited"])
        text = row.current_revision.text if row.current_revision else ""
        assert all(re.findall(r"variant \d+", one.trace.instruction)[0] in text for one in cited)


def test_a_reworded_rule_is_proposed_beside_what_people_decided_and_replaces_what_nobody_touched(ana: User) -> None:
    task = filled_task()
    mined(task)
    decided = of_topic(task, TOPICS["term"], "Compliant")
    untouched = of_topic(task, TOPICS["term"], "Breach")
    approve(decided, ana)
    kept = state(decided)
    for trace in task.traces.filter(instruction__contains=TOPICS["term"]):
        trace.instruction = trace.instruction.replace("for years", "for a number of years")
        trace.save()
    run = mined(task)
    assert counts(run) == {"reworded": 2, "unchanged": 4}
    match = RunMatch.objects.get(run=run, instruction=decided)
    assert "for a number of years" in match.proposed_text
    assert state(decided) == kept
    untouched.refresh_from_db()
    assert untouched.status == InstructionStatus.SUPERSEDED
    fresh = RunMatch.objects.get(run=run, kind=MatchKind.REWORDED, replaces=untouched)
    assert fresh.instruction.status == InstructionStatus.PROPOSED
    assert fresh.proposed_text == ""
    assert run.figures["written"] == run.figures["superseded"] == 1


def test_a_group_that_vanished_is_no_longer_supported(ana: User) -> None:
    task = filled_task()
    mined(task)
    decided = of_topic(task, TOPICS["oral"], "Breach")
    untouched = of_topic(task, TOPICS["oral"], "Compliant")
    approve(decided, ana)
    kept = state(decided)
    task.traces.filter(instruction__contains=TOPICS["oral"]).update(split=Split.TEST)
    run = mined(task)
    assert counts(run)["lost"] == 2
    assert RunMatch.objects.get(run=run, instruction=decided).kind == MatchKind.LOST
    assert state(decided) == kept
    untouched.refresh_from_db()
    assert untouched.status == InstructionStatus.SUPERSEDED


def test_a_new_group_is_new_and_leaves_the_rest(ana: User) -> None:
    task = filled_task()
    mined(task)
    approve(of_topic(task, TOPICS["oral"], "Breach"), ana)
    condition = "a solicitation of staff by competitors is restrained under covenants"
    for n in range(6):
        make_trace(
            task,
            label="Unclear",
            instruction=f"If {condition} in form {n}, then label Unclear.",
            metadata={"domain": "legal", "yardstick": "staff"},
        )
    run = mined(task)
    assert counts(run) == {"new": 1, "unchanged": 6}
    assert Instruction.objects.get(run=run).label == "Unclear"


def test_another_wording_of_every_trace_finds_every_instruction_again(ana: User) -> None:
    """As another teacher would write: no text is the same, only the traces are."""
    task = filled_task()
    mined(task)
    for instruction in Instruction.objects.filter(task=task):
        approve(instruction, ana)
    kept = list(Instruction.objects.values())
    words = {"keeps": "retains", "disclosed": "revealed", "survive": "outlast", "then label": "answer"}
    for trace in task.traces.all():
        for old, new in words.items():
            trace.instruction = trace.instruction.replace(old, new)
        trace.save()
    run = mined(task)
    assert counts(run) == {"reworded": len(kept)}
    assert list(Instruction.objects.values()) == kept
    for match in RunMatch.objects.filter(run=run):
        assert match.shared == match.traces_before == match.traces_after
