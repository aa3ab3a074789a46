"""A scripted student's world as rows: its examples as traces, its rules as approved instructions."""

from collections.abc import Sequence

from pld_app.models import User
from rules.models import Instruction, Split, Task, Trace
from tests.factories import approve_directly, make_instruction, make_trace
from tests.scripted_student import World


def world_traces(
    task: Task, world: World, count: int, *, split: Split = Split.VALIDATION, seed: int = 0
) -> list[tuple[str, str]]:
    """`count` examples as traces of a split; the (text, gold label) pairs, as `World.macro_f1` takes them."""
    made = world.examples(count, seed=seed)
    for text, gold in made:
        world_trace(task, text, gold, split=split)
    return made


def world_trace(task: Task, text: str, gold: str, *, split: Split = Split.VALIDATION) -> Trace:
    values = dict.fromkeys(task.input_fields, "May copies be kept?") | {task.input_fields[0]: text}
    return make_trace(task, split=split, label=gold, input=values)


def world_instructions(task: Task, reviewer: User, world: World, texts: Sequence[str] = ()) -> list[Instruction]:
    """These texts (all true rules without any given) as instructions that this reviewer approved, in this order."""
    return [
        approve_directly(make_instruction(task, text, label=_label(world, text)), reviewer)
        for text in texts or world.instructions
    ]


def _label(world: World, text: str) -> str:
    return next(label for label in world.labels if text.rstrip(".").endswith(f"label {label}"))
