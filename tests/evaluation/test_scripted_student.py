"""The scripted student does what its prompt says, and the product reports of it exactly what is known to be true."""

import pytest

from evaluation.answers import render_user_message
from evaluation.models import EvaluationRun, PromptKind
from evaluation.schemas import RunFigures
from pld_app.models import User
from rules.manifest import prompt_compile
from rules.models import Task
from tests.evaluation.scene import make_run, student, work
from tests.evaluation.worlds import world_instructions, world_traces
from tests.publishing import steps
from tests.scripted_student import World, otherwise_text, rule_text, rules_in, scripted_student, shots_in

WORLD = World.example()


def prompt_of(instructions: list[str]) -> str:
    return prompt_compile("You check clauses.", WORLD.labels, instructions, "Answer as JSON.")


def test_with_every_true_rule_nothing_is_wrong_and_with_none_the_habit_speaks() -> None:
    examples = WORLD.examples(200, seed=3)
    assert WORLD.macro_f1(prompt_of(WORLD.instructions), examples) == 1.0
    assert set(WORLD.answers("", [text for text, _ in examples])) == {WORLD.habit}
    every = [WORLD.macro_f1(prompt_of(WORLD.instructions[:n]), examples) for n in range(1, 10)]
    assert every[0] < 0.5
    assert every[-1] == 1.0


def test_instructions_are_read_wherever_they_stand_in_a_line_and_the_first_decides() -> None:
    prompt = prompt_of(
        [
            "Note: " + rule_text("Archive", "Breach", unless="personal data") + " Always.",
            rule_text("archive", "Compliant"),
            "Something else entirely.",
            otherwise_text("Unclear"),
        ]
    )
    assert [(rule.word, rule.unless, rule.label) for rule in rules_in(prompt)] == [
        ("Archive", "personal data", "Breach"),
        ("archive", "", "Compliant"),
        ("", "", "Unclear"),
    ]
    texts = ["The archive is kept.", "An archive of personal data.", "Nothing."]
    assert WORLD.answers(prompt, texts) == ["Breach", "Compliant", "Unclear"]


def test_shots_are_read_as_the_product_writes_them() -> None:
    assert shots_in('p\n\n## Examples\nInput: {"a": "x"}\nAnswer: {"label": "Breach"}\n\n## Answer\nc\n') == {
        '{"a": "x"}': "Breach"
    }


def test_noise_is_the_same_each_time_and_near_its_rate() -> None:
    world = World.example(error_rate=0.2, malformed_rate=0.1)
    texts = [text for text, _gold in world.examples(2_000, seed=1)]
    prompt = prompt_of(world.instructions)
    said = world.answers(prompt, texts)
    assert said == world.answers(prompt, texts, seed=9)
    wrong = sum(label not in {None, world.gold(text)} for label, text in zip(said, texts, strict=True))
    assert 0.17 < wrong / 2_000 < 0.23
    assert 0.08 < said.count(None) / 2_000 < 0.12
    by_seed = World.example(error_rate=0.2, noisy_by_seed=True)
    assert by_seed.answers(prompt, texts, seed=1) != by_seed.answers(prompt, texts, seed=2)


@pytest.mark.django_db
def test_the_product_asks_as_the_world_expects(task: Task) -> None:
    (text, _gold), *_ = WORLD.examples(1)
    values = {"clause": text, "question": "May copies be kept?"}
    assert render_user_message(task.input_fields, values) == WORLD.message(text)


@pytest.mark.django_db
def test_known_figures_before_and_after_distilling_are_reported_exactly(task: Task, ana: User, ben: User) -> None:
    examples = world_traces(task, WORLD, 60, seed=5)
    world_instructions(task, ben, WORLD, WORLD.instructions[:6])
    draft = steps.again_draft(task, ana)
    with scripted_student(WORLD) as stub:
        student(stub.url, task)
        before = work(make_run(task))
        after = work(make_run(task, kind=PromptKind.DRAFT, ruleset=draft))
    for run in (before, after):
        assert macro_f1(run) == pytest.approx(WORLD.macro_f1(run.prompt, examples), abs=1e-12)
    assert macro_f1(before) < macro_f1(after)


def macro_f1(run: EvaluationRun) -> float:
    return RunFigures.model_validate(run.figures).metrics.macro_f1
