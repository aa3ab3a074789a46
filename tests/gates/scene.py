"""A task whose student's answers are known, its release in staging, and gates in force, in few words."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from evaluation.models import Dataset, EvaluationRun, PromptKind
from evaluation.services.datasets import dataset_from_traces
from evaluation.services.judging import task_judge
from pld_app.models import ModelEndpoint, Role, User
from rules.models import GateException, GatePolicy, Instruction, InstructionStatus, Release, Split, Task
from rules.services.gates import gate_exception_sign, gates_decide, gates_propose
from rules.services.publishing import release_create
from rules.services.rulesets import ruleset_create, ruleset_freeze
from tests.evaluation.scene import make_run, student, work
from tests.evaluation.worlds import world_instructions, world_traces
from tests.factories import make_proof, make_user, now
from tests.publishing import steps
from tests.scripted_student import World, scripted_student

WORLD = World.example()
N = 60


@contextmanager
def students_task(task: Task, world: World = WORLD, *, n: int = N) -> Iterator[list[tuple[str, str]]]:
    """The task with `n` test examples and a scripted student until the block ends; yields (text, gold label)."""
    examples = world_traces(task, world, n, split=Split.TEST)
    with scripted_student(world) as stub:
        student(stub.url, task)
        yield examples


def student_set(task: Task, **fields: Any) -> None:
    """Change the task's student endpoint past its page."""
    assert task.student_id is not None
    ModelEndpoint.objects.filter(pk=task.student_id).update(**fields)


def dataset_of(task: Task) -> Dataset:
    """The dataset of the traces as they are."""
    return task.datasets.order_by("-pk").first() or dataset_from_traces(task=task, user=None)


def released(task: Task, ana: User, sam: User, sue: User, texts: Sequence[str] = (), world: World = WORLD) -> Release:
    """A release in staging of these rules (all true ones without any), the only approved ones."""
    for old in Instruction.objects.filter(task=task, status=InstructionStatus.APPROVED):
        steps.reopen(old, ana)
    world_instructions(task, ana, world, texts)
    ruleset = ruleset_create(task=task, composer=ana)
    ruleset = ruleset_freeze(ruleset_id=ruleset.pk, editor=ana, version=ruleset.version)
    steps.sign(ruleset, sam)
    steps.sign(ruleset, sue)
    release = release_create(ruleset_id=ruleset.pk, signatory=sam)
    steps.publish(release, sam)
    return release


def evaluated(release: Release, **fields: Any) -> EvaluationRun:
    """A finished run of the release over the test split, and what the gates make of it."""
    run = run_of(release, **fields)
    task_judge(Task.objects.select_related("student").get(pk=release.task_id))
    return run


def run_of(release: Release, **fields: Any) -> EvaluationRun:
    """A finished run alone: nobody has judged it yet."""
    values: dict[str, Any] = {"kind": PromptKind.RELEASE, "release": release, "split": Split.TEST}
    task = Task.objects.select_related("student").get(pk=release.task_id)
    values["dataset"] = dataset_of(task)
    return work(make_run(task, **(values | fields)))


def admin(name: str) -> User:
    return User.objects.filter(username=name).first() or make_user(name, Role.ADMIN)


def proposed(task: Task, **points: Any) -> GatePolicy:
    """Proposed gates over the test split by the task's student."""
    proposer = admin("gates1")
    values: dict[str, Any] = {"student": task.student, "dataset_sha256": dataset_of(task).sha256, "split": Split.TEST}
    return gates_propose(
        task=task, actor=proposer, proof=make_proof(proposer), reason="For the test.", **(values | points)
    )


def gates(task: Task, **points: Any) -> GatePolicy:
    """Gates in force: proposed by one administrator, confirmed by another."""
    policy, second = proposed(task, **points), admin("gates2")
    gates_decide(policy_id=policy.pk, actor=second, verdict="confirmed", proof=make_proof(second))
    return policy


def excepted(release: Release, actor: User, *, days: float = 30, **fields: Any) -> GateException:
    """A signed exception from the gates in force."""
    newest = GatePolicy.objects.filter(task=release.task).order_by("-version").values_list("version", flat=True)
    values: dict[str, Any] = {
        "policy_version": newest[0],
        "meaning": "risk accepted",
        "reason": "The customer waits.",
        "expires_at": now() + timedelta(days=days),
        "proof": make_proof(actor),
    }
    return gate_exception_sign(release_id=release.pk, actor=actor, **(values | fields))
