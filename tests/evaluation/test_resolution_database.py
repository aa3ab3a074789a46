"""What is always true of loops and of what they propose: attacked through the ORM and by SQL, past every service."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from evaluation.models import EvaluationRun, ResolutionCase, ResolutionGroup, ResolutionLoop, ResolutionRound
from pld_app.models import User
from rules.models import Instruction, Ruleset, Split, Task, TextProposal
from tests.evaluation.loops import answer_all, make_group, make_loop, make_proposal, make_round, propose
from tests.evaluation.scene import examples, make_run, student
from tests.factories import make_instruction, make_task, make_trace, text_row
from tests.publishing import steps

pytestmark = pytest.mark.django_db


def refused(attack: Callable[[], Any], words: str) -> None:
    with pytest.raises((DatabaseError, IntegrityError), match=words), transaction.atomic():
        attack()


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(statement)


@pytest.fixture
def ruleset(task: Task, ana: User) -> Ruleset:
    return steps.draft(task, ana)


@pytest.fixture
def approved(ruleset: Ruleset) -> Instruction:
    return ruleset.items.get(position=1).instruction


@pytest.fixture
def run(task: Task) -> EvaluationRun:
    examples(task, 3)
    make_trace(task, split=Split.TEST, label="Breach")
    student("http://127.0.0.1:9/v1", task)
    return make_run(task)


@pytest.fixture
def loop(run: EvaluationRun, ruleset: Ruleset) -> ResolutionLoop:
    return make_loop(run, ruleset)


@pytest.fixture
def measured(loop: ResolutionLoop, run: EvaluationRun, approved: Instruction) -> ResolutionRound:
    answer_all(run)
    return make_round(loop, run, approved)


class TestLoops:
    def test_what_one_asks_never_changes_and_it_is_not_deleted(self, loop: ResolutionLoop) -> None:
        row = ResolutionLoop.objects.filter(pk=loop.pk)
        changes: list[dict[str, Any]] = [
            {"max_rounds": 9},
            {"student_model": "x"},
            {"resolver_model": "x"},
            {"seed": 3},
        ]
        for change in [*changes, {"is_automatic": True}, {"estimate": {}}]:
            refused(lambda change=change: row.update(**change), "never changes")  # type: ignore[misc]  # bound now
        refused(lambda: row.update(state="queued"), "cannot become")
        refused(lambda: row.update(state="stopped"), "stops_for_a_reason")
        refused(lambda: sql("DELETE FROM evaluation_resolutionloop"), "append-only")

    def test_one_that_is_over_stays_so(self, loop: ResolutionLoop) -> None:
        row = ResolutionLoop.objects.filter(pk=loop.pk)
        row.update(state="cancelled", finished_at=timezone.now())
        refused(lambda: row.update(state="running"), "cannot become")
        refused(lambda: row.update(error="other"), "is over never changes")

    def test_ruleset_and_dataset_are_of_its_task_and_one_is_open(
        self, loop: ResolutionLoop, run: EvaluationRun, ana: User
    ) -> None:
        foreign = steps.draft(make_task("other"), ana)
        refused(lambda: make_loop(run, loop.ruleset, number=2), "resolution_loop_one_open")
        ResolutionLoop.objects.filter(pk=loop.pk).update(state="cancelled")
        refused(lambda: make_loop(run, foreign), "ruleset and a frozen dataset of its task")


class TestRounds:
    def test_one_measures_its_prompt_on_validation(
        self, loop: ResolutionLoop, run: EvaluationRun, approved: Instruction, measured: ResolutionRound
    ) -> None:
        refused(lambda: make_round(loop, run, approved), "follow each other")
        ResolutionRound.objects.filter(pk=measured.pk).update(state="over")
        refused(
            lambda: ResolutionRound.objects.create(loop=loop, number=2, run=run, items=[], prompt_sha256="0" * 64),
            "measures its prompt on validation",
        )
        row = ResolutionRound.objects.filter(pk=measured.pk)
        refused(lambda: row.update(state="waiting"), "cannot become")
        refused(lambda: row.update(items=[]), "never changes")
        refused(lambda: sql("DELETE FROM evaluation_resolutionround"), "append-only")

    def test_a_case_is_an_answer_of_its_round_and_never_of_the_test_split(
        self, measured: ResolutionRound, approved: Instruction
    ) -> None:
        group = make_group(measured, approved)
        case = group.cases.first()
        assert case
        unseen = measured.run.dataset.examples.get(split=Split.TEST)
        values = {"group": group, "role": "wide", "basis": "words", "score": 0.5, "rank": 9}
        refused(
            lambda: ResolutionCase.objects.create(example=unseen, said="", **values),
            "answer of its round on validation",
        )
        other = ResolutionGroup.objects.create(round=measured, number=2, label="Breach", failures=1, successes=0)
        for wrong in ({"said": "Breach"}, {"said": "", "role": "right"}):
            given = values | {"group": other, "example": case.example} | wrong
            refused(lambda given=given: ResolutionCase.objects.create(**given), "answer of its round")  # type: ignore[misc]
        refused(lambda: ResolutionCase.objects.update(score=0.9), "append-only")
        refused(lambda: sql("DELETE FROM evaluation_resolutioncase"), "append-only")

    def test_a_group_gets_its_outcome_once_and_only_its_own(
        self, task: Task, measured: ResolutionRound, approved: Instruction
    ) -> None:
        group = make_group(measured, approved)
        foreign = make_proposal(make_instruction(task, "If it rains, then label Unclear."))
        row = ResolutionGroup.objects.filter(pk=group.pk)
        refused(lambda: row.update(outcome="proposed", proposal=foreign), "one for its text")
        refused(lambda: row.update(outcome="added", candidate=approved), "one of its task")
        refused(lambda: row.update(outcome="proposed"), "outcome_has_its_row")
        refused(lambda: row.update(failures=9), "never changes")
        propose(group, make_proposal(approved))
        refused(lambda: row.update(note="other"), "never changes")
        refused(
            lambda: ResolutionGroup.objects.create(round=measured, number=2, label="x", failures=1, successes=0),
            "made of a measurement",
        )
        refused(lambda: sql("DELETE FROM evaluation_resolutiongroup"), "append-only")


class TestProposals:
    def test_one_is_compared_with_the_text_that_stands(self, task: Task, approved: Instruction) -> None:
        other = make_instruction(task, "If it rains, then label Unclear.")
        refused(lambda: make_proposal(approved, base=text_row(other)), "compared with the text that stands")
        refused(lambda: make_proposal(approved, text_row(approved).text), "has had this text already")
        refused(lambda: make_proposal(approved, text_sha256="0" * 64), "not that of the text")
        make_proposal(approved)
        refused(lambda: make_proposal(approved), "text_proposal_once")

    def test_it_never_changes_and_is_dismissed_once_by_a_reviewer(
        self, approved: Instruction, ana: User, ada: User
    ) -> None:
        row = TextProposal.objects.filter(pk=make_proposal(approved).pk)
        for change in ({"text": "x"}, {"loop": 7}, {"reason": "y"}, {"flags": [1]}):
            refused(lambda change=change: row.update(**change), "never changes")  # type: ignore[misc]  # bound now
        refused(lambda: row.update(dismissed_at=timezone.now(), dismissed_by=ada), "only an active reviewer")
        assert row.update(dismissed_at=timezone.now(), dismissed_by=ana) == 1
        refused(lambda: row.update(dismissed_at=None, dismissed_by=None), "dismissed once")
        refused(lambda: sql("DELETE FROM rules_textproposal"), "append-only")

    def test_it_changes_nothing_of_its_instruction(self, approved: Instruction) -> None:
        before = Instruction.objects.values().get(pk=approved.pk)
        make_proposal(approved)
        assert Instruction.objects.values().get(pk=approved.pk) == before
