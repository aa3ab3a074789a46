"""Leaving one instruction out: the figures are those a world computes by hand, and what is known is not asked again."""

import threading
import time
from decimal import Decimal

import pytest
from sklearn.metrics import f1_score

from evaluation.ablation import Asked, ablation_figures
from evaluation.models import Ablation, AblationOrder, AblationResult, EvaluationRun, PromptKind
from evaluation.schemas import AblationFigures
from evaluation.services.ablation_execution import JOB_KIND
from evaluation.services.ablations import (
    AblationChoice,
    ablation_cancel,
    ablation_create,
    ablation_plan,
    ablation_raise,
)
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.jobs import job_execute
from pld_app.models import AuditEvent, Job, User
from rules.exceptions import InvalidTransition
from rules.manifest import prompt_compile, prompt_without
from rules.models import Conflict, ConflictKind, Instruction, InstructionImpact, MiningRun, Ruleset, RunState, Task
from rules.selectors.impacts import impact_of
from rules.services.rulesets import ruleset_item_move
from tests.evaluation.scene import make_run, student, work
from tests.evaluation.worlds import world_instructions, world_traces
from tests.factories import approve_directly, audit_actions
from tests.publishing import steps
from tests.scripted_student import World, rule_text, scripted_student
from tests.stub_server import StubServer

pytestmark = pytest.mark.django_db

WORLD = World.example()
N = 40


def evaluated(
    task: Task, ana: User, ben: User, stub: StubServer, world: World = WORLD, **fields: object
) -> EvaluationRun:
    """A finished run of a draft of the world's true rules over N examples."""
    world_traces(task, world, N, seed=5)
    world_instructions(task, ben, world)
    student(stub.url, task, **fields)
    return work(make_run(task, kind=PromptKind.DRAFT, ruleset=steps.again_draft(task, ana)))


def ablated(run: EvaluationRun, user: User, **choice: object) -> Ablation:
    """An ablation of the run after one delivery of its job to a worker."""
    values: dict[str, object] = {"max_calls": 10_000} | choice
    plan = AblationChoice(**values)  # type: ignore[arg-type]  # named fields of it
    made = ablation_create(run=run, user=user, choice=plan, confirmed=ablation_plan(run, plan).digest)
    return worked(made)


def worked(ablation: Ablation) -> Ablation:
    job = Job.objects.filter(kind=JOB_KIND, subject_id=ablation.pk).latest("pk")
    job_execute(job_id=job.pk)
    ablation.refresh_from_db()
    return ablation


def figures(ablation: Ablation) -> dict[int, AblationFigures]:
    """By position of the instruction that was left out."""
    rows = AblationResult.objects.filter(item__ablation=ablation).select_related("item")
    return {row.item.position: AblationFigures.model_validate(row.figures) for row in rows}


def test_each_figure_is_the_one_computed_by_hand(task: Task, ada: User, ana: User, ben: User) -> None:
    with scripted_student(WORLD) as stub:
        run = evaluated(task, ana, ben, stub)
        before = len(stub.requests)
        ablation = ablated(run, ada)
        asked = len(stub.requests) - before
    texts = WORLD.instructions
    assert (ablation.state, ablation.done, ablation.total) == (RunState.SUCCEEDED, N * len(texts), N * len(texts))
    assert asked == N * len(texts) == ablation.calls_used
    examples = WORLD.examples(N, seed=5)
    inputs, gold = [text for text, _gold in examples], [label for _text, label in examples]
    found = figures(ablation)
    assert sorted(found) == list(range(1, len(texts) + 1))
    seen: set[tuple[int, int]] = set()
    for place in range(len(texts)):
        without = prompt_compile(task.preamble, task.labels, texts[:place] + texts[place + 1 :], task.output_contract)
        old, new = WORLD.answers(run.prompt, inputs), WORLD.answers(without, inputs)
        pairs = list(zip(gold, old, new, strict=True))
        one = found[place + 1]
        assert one.paired is not None
        assert one.flipped == sum(a != b for _g, a, b in pairs)
        assert one.paired.fixed == sum(a != g == b for g, a, b in pairs)
        assert one.paired.broken == sum(a == g != b for g, a, b in pairs)
        change = WORLD.macro_f1(without, examples) - WORLD.macro_f1(run.prompt, examples)
        assert one.paired.macro_f1_change == pytest.approx(change, abs=1e-12)
        assert one.paired.macro_f1_change_interval.low <= change <= one.paired.macro_f1_change_interval.high
        assert (one.paired.n, one.missing) == (N, 0)
        after = f1_score(gold, new, labels=list(task.labels), average=None, zero_division=0)
        assert [label.after.f1 for label in one.labels] == pytest.approx(list(after))
        assert [label.given_after for label in one.labels] == [new.count(label) for label in task.labels]
        assert [(flip.gold, flip.before, flip.after) for flip in one.flips] == [p for p in pairs if p[1] != p[2]]
        seen.add((one.paired.fixed, one.paired.broken))
    assert len(seen) > 3, "instructions that matter and such that do not"


def test_reviewers_are_told_what_was_measured(task: Task, ada: User, ana: User, ben: User) -> None:
    with scripted_student(WORLD) as stub:
        run = evaluated(task, ana, ben, stub)
        ablation = ablated(run, ada)
    found = figures(ablation)
    for item in ablation.items.all():
        impact = InstructionImpact.objects.get(instruction=item.instruction)
        one = found[item.position].paired
        assert one is not None
        assert (impact.flipped, impact.fixed, impact.broken, impact.n) == (
            found[item.position].flipped,
            one.fixed,
            one.broken,
            N,
        )
        assert (impact.student, impact.model, impact.split) == ("stub-1", run.student_model, "validation")
        assert (impact.revision, impact.prompt_sha256) == (item.revision, run.prompt_sha256)
        assert audit_actions(item.instruction)[-1] == "impact.measured"
        assert impact_of(item.instruction)[1] == []
    assert audit_actions(ablation) == ["ablation.started", "ablation.finished"]


class TestStale:
    """What has changed since a measurement is said beside it."""

    @pytest.fixture
    def measured(self, task: Task, ada: User, ana: User, ben: User) -> Instruction:
        with scripted_student(WORLD) as stub:
            ablation = ablated(evaluated(task, ana, ben, stub), ada, picked=(1,))
        return ablation.items.get(position=1).instruction

    def test_a_new_text(self, measured: Instruction, ana: User) -> None:
        measured.current_revision_id = -1  # as an edit leaves it
        assert impact_of(measured)[1] == ["Measured on an earlier text"]

    def test_another_ruleset(self, task: Task, measured: Instruction, ana: User) -> None:
        steps.again_draft(task, ana)
        assert impact_of(measured)[1] == ["Measured in an earlier ruleset"]

    def test_a_change_of_the_draft(self, task: Task, measured: Instruction) -> None:
        Ruleset.objects.filter(task=task).update(version=99)
        assert impact_of(measured)[1] == ["Measured in an earlier ruleset"]

    def test_another_dataset(self, task: Task, measured: Instruction) -> None:
        world_traces(task, WORLD, 3, seed=9)
        make_run(task)
        assert impact_of(measured)[1] == ["Measured on an earlier dataset"]

    def test_another_model(self, task: Task, measured: Instruction) -> None:
        assert task.student is not None
        task.student.model = "another"
        task.student.save()
        measured.refresh_from_db()
        assert impact_of(measured)[1] == ["Measured with another student"]


class TestWhatIsKnown:
    def test_the_same_again_asks_nobody(self, task: Task, ada: User, ana: User, ben: User) -> None:
        world = World.example(malformed_rate=0.1, error_rate=0.1)
        with scripted_student(world) as stub:
            run = evaluated(task, ana, ben, stub, world)
            first = ablated(run, ada)
            asked = len(stub.requests)
            again = ablated(run, ada)
            assert len(stub.requests) == asked
        assert (again.state, again.done, again.calls_used) == (RunState.SUCCEEDED, again.total, 0)
        assert figures(again) == figures(first)
        assert InstructionImpact.objects.count() == len(world.instructions), "told once"

    def test_a_new_run_of_the_same_prompt_asks_nobody(self, task: Task, ada: User, ana: User, ben: User) -> None:
        with scripted_student(WORLD) as stub:
            run = evaluated(task, ana, ben, stub)
            ablated(run, ada)
            second = work(make_run(task, kind=PromptKind.DRAFT, ruleset=run.ruleset))
            asked = len(stub.requests)
            plan = ablation_plan(second, AblationChoice(max_calls=10_000))
            assert (plan.calls, plan.recorded) == (0, N * len(WORLD.instructions))
            again = ablated(second, ada)
            assert len(stub.requests) == asked
        assert again.state == RunState.SUCCEEDED

    def test_after_one_change_only_the_prompt_without_that_text_is_the_same(
        self, task: Task, ada: User, ana: User, ben: User
    ) -> None:
        texts = list(WORLD.instructions)
        with scripted_student(WORLD) as stub:
            run = evaluated(task, ana, ben, stub)
            ablated(run, ada)
            one = task.instructions.get(current_revision__text=texts[3])
            steps.reopen(one, ana)
            steps.edit(one, ana, rule_text("written consent", "Breach"))
            approve_directly(one, ben)
            second = work(make_run(task, kind=PromptKind.DRAFT, ruleset=steps.again_draft(task, ana)))
            asked = len(stub.requests)
            plan = ablation_plan(second, AblationChoice(max_calls=10_000))
            again = ablated(second, ada)
            assert len(stub.requests) - asked == plan.calls == N * (len(texts) - 1)
        known = {item.row.instruction_id: item.recorded for item in plan.items}
        assert known[one.pk] == N
        assert sum(known.values()) == N
        assert again.state == RunState.SUCCEEDED


class TestWhatFitsTheBudget:
    def test_most_support_first(self, task: Task, ada: User, ana: User, ben: User) -> None:
        with scripted_student(WORLD) as stub:
            run = evaluated(task, ana, ben, stub)
            supports = [3, 9, 1, 7, 5, 8, 2, 6, 4]
            for one, support in zip(task.instructions.order_by("number"), supports, strict=True):
                Instruction.objects.filter(pk=one.pk).update(support=support)
            asked = len(stub.requests)
            ablation = ablated(run, ada, max_calls=3 * N + 5)
            assert len(stub.requests) - asked == 3 * N
        ranked = ablation.items.filter(rank__isnull=False).order_by("rank")
        assert [item.instruction.support for item in ranked] == [9, 8, 7]
        assert ablation.items.filter(rank__isnull=True).count() == 6
        assert AuditEvent.objects.get(action="ablation.started").data["not_measured"] == 6

    def test_conflicting_ones_first(self, task: Task, ada: User, ana: User, ben: User) -> None:
        with scripted_student(WORLD) as stub:
            run = evaluated(task, ana, ben, stub)
        mined = MiningRun.objects.create(task=task, number=1, state=RunState.SUCCEEDED)
        rows = list(task.instructions.order_by("pk"))
        Conflict.objects.create(
            run=mined,
            first=rows[4],
            second=rows[6],
            kind=ConflictKind.CONFLICT,
            strength=1,
            same_pairs=1,
            opposed_pairs=0,
        )
        plan = ablation_plan(run, AblationChoice(order=AblationOrder.CONFLICT, max_calls=2 * N))
        assert {item.row.instruction_id for item in plan.measured} == {rows[4].pk, rows[6].pk}

    def test_only_what_a_person_chose(self, task: Task, ada: User, ana: User, ben: User) -> None:
        with scripted_student(WORLD) as stub:
            run = evaluated(task, ana, ben, stub)
            ablation = ablated(run, ada, picked=(7, 2))
        chosen = ablation.items.filter(rank__isnull=False).order_by("rank")
        assert [item.instruction.number for item in chosen] == [7, 2]
        assert ablation.order == AblationOrder.PICKED
        with pytest.raises(InvalidInput, match="#99"):
            ablation_plan(run, AblationChoice(picked=(99,), max_calls=100))

    def test_less_than_one_is_refused(self, task: Task, ana: User, ben: User) -> None:
        with scripted_student(WORLD) as stub:
            run = evaluated(task, ana, ben, stub)
        with pytest.raises(InvalidInput, match=f"takes {N} calls"):
            ablation_plan(run, AblationChoice(max_calls=N - 1))

    def test_money_bounds_it_too(self, task: Task, ada: User, ana: User, ben: User) -> None:
        with scripted_student(WORLD) as stub:
            run = evaluated(task, ana, ben, stub, price_in=Decimal(1), price_out=Decimal(10))
        choice = AblationChoice(max_calls=1000, max_cost=Decimal("0.01"))
        plan = ablation_plan(run, choice)
        assert plan.cost > Decimal("0.01")
        with pytest.raises(InvalidInput, match="may cost"):
            ablation_create(run=run, user=ada, choice=choice, confirmed=plan.digest)


def test_used_up_it_pauses_and_a_higher_budget_lets_it_go_on(task: Task, ada: User, ana: User, ben: User) -> None:
    with scripted_student(WORLD) as stub:
        run = evaluated(task, ana, ben, stub)
        choice = AblationChoice(picked=(1, 2), max_calls=2 * N)
        made = ablation_create(run=run, user=ada, choice=choice, confirmed=None)
        # As after a worker that was killed with calls of unknown end: they count as made.
        Ablation.objects.filter(pk=made.pk).update(calls_used=N)
        asked = len(stub.requests)
        ablation = worked(made)
        assert (ablation.state, len(stub.requests) - asked, ablation.calls_used) == (RunState.PAUSED, N, 2 * N)
        assert f"{2 * N} calls" in ablation.error
        assert list(figures(ablation)) == [1]
        with pytest.raises(InvalidInput, match=f"{2 * N} calls"):
            ablation_raise(ablation_id=ablation.pk, user=ada, max_calls=2 * N, max_cost=None)
        ablation = worked(ablation_raise(ablation_id=ablation.pk, user=ada, max_calls=3 * N, max_cost=None))
        assert (ablation.state, len(stub.requests) - asked) == (RunState.SUCCEEDED, 2 * N)
    assert sorted(figures(ablation)) == [1, 2]
    assert audit_actions(ablation) == [
        "ablation.started",
        "ablation.paused",
        "ablation.budget_raised",
        "ablation.finished",
    ]


def test_what_is_confirmed_is_what_was_shown(task: Task, ada: User, ana: User, ben: User) -> None:
    with scripted_student(WORLD) as stub:
        run = evaluated(task, ana, ben, stub)
    choice = AblationChoice(max_calls=10_000)
    with pytest.raises(InvalidInput, match="has changed since"):
        ablation_create(run=run, user=ada, choice=choice, confirmed="0" * 64)
    for user in (ana, ben):
        with pytest.raises(NotAllowed):
            ablation_create(run=run, user=user, choice=choice, confirmed=None)
    first = ablation_create(run=run, user=ada, choice=choice, confirmed=None)
    with pytest.raises(InvalidTransition, match="is under way"):
        ablation_create(run=run, user=ada, choice=choice, confirmed=None)
    ablation_cancel(ablation_id=first.pk, user=ada)
    first.refresh_from_db()
    assert first.state == RunState.CANCELLED
    assert not Ablation.objects.exclude(pk=first.pk).exists()


def test_what_cannot_be_ablated_is_refused_in_words(task: Task, ana: User, ben: User) -> None:
    with scripted_student(WORLD) as stub:
        run = evaluated(task, ana, ben, stub)
        baseline = work(make_run(task))
    choice = AblationChoice(max_calls=10_000)
    with pytest.raises(InvalidInput, match="finished run of a ruleset"):
        ablation_plan(baseline, choice)
    assert run.ruleset is not None
    item = run.ruleset.items.first()
    assert item is not None
    ruleset_item_move(ruleset_id=run.ruleset.pk, item_id=item.pk, to=3, editor=ana, version=run.ruleset.version)
    with pytest.raises(InvalidInput, match="has changed since run 1"):
        ablation_plan(run, choice)


@pytest.mark.django_db(transaction=True)
def test_cancelled_it_stops_within_two_seconds_and_keeps_what_it_measured(
    task: Task, ada: User, ana: User, ben: User
) -> None:
    with scripted_student(WORLD) as stub:
        run = evaluated(task, ana, ben, stub)
        stub.latency_s = 0.05
        made = ablation_create(run=run, user=ada, choice=AblationChoice(max_calls=10_000), confirmed=None)
        worker = threading.Thread(target=_work_elsewhere, args=(made,))
        worker.start()
        while not AblationResult.objects.exists():
            time.sleep(0.05)
        ablation_cancel(ablation_id=made.pk, user=ada)
        cancelled = time.monotonic()
        worker.join()
        assert time.monotonic() - cancelled < 2
    made.refresh_from_db()
    assert made.state == RunState.CANCELLED
    assert 0 < len(figures(made)) < len(WORLD.instructions)
    assert InstructionImpact.objects.count() == len(figures(made))


def _work_elsewhere(ablation: Ablation) -> None:
    from django.db import connection

    try:
        job_execute(job_id=Job.objects.get(kind=JOB_KIND, subject_id=ablation.pk).pk)
    finally:
        connection.close()


def test_an_outage_is_not_called_a_wrong_answer() -> None:
    asked = [Asked(n, f"{n}", "A", "A") for n in range(4)]
    half = ablation_figures(asked, {"0": "A", "1": "B"}, ["A", "B"], prompt_sha256="p", seed=0)
    assert half.paired is not None
    assert (half.missing, half.flipped, half.paired.n, half.paired.broken) == (2, 1, 2, 1)
    most = ablation_figures(asked, {"0": "B"}, ["A", "B"], prompt_sha256="p", seed=0)
    assert (most.missing, most.flipped, most.paired) == (3, 0, None)


def test_a_prompt_keeps_its_bytes_around_what_is_left_out() -> None:
    texts = ["One.", "Two\nlines.", "Three."]
    frame = "## Instructions\n1. One.\n"
    whole = prompt_compile(frame, ["A", "B"], texts, frame)
    for place in range(3):
        rest = texts[:place] + texts[place + 1 :]
        assert prompt_without(whole, texts, place) == prompt_compile(frame, ["A", "B"], rest, frame)
    assert prompt_without(prompt_compile("p", ["A"], ["One."], "c"), ["One."], 0) == prompt_compile("p", ["A"], [], "c")
    with pytest.raises(ValueError, match="these instructions once"):
        prompt_without(whole, ["One."], 0)
