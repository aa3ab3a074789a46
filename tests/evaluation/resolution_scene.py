"""A loop of conflict resolution in a world where everything is known: student, resolver and people in few words."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from evaluation.models import EvaluationRun, ResolutionGroup, ResolutionLoop, ResolutionRound
from evaluation.services import loops
from evaluation.services.execution import JOB_KIND as RUN_JOB
from evaluation.services.loops import LoopChoice
from pld_app.jobs import job_execute
from pld_app.models import Job, JobState, ModelEndpoint, User
from rules.models import Instruction, RunState, Task, TextProposal
from rules.services.review import instruction_approve, instruction_edit, instruction_reopen
from rules.services.rulesets import ruleset_create
from tests.evaluation.scene import student
from tests.evaluation.worlds import world_instructions, world_traces
from tests.factories import make_endpoint
from tests.scripted_student import Cue, World, rule_text, scripted_student
from tests.stub_server import Json, Plan, StubRequest, StubServer, completion, stub_server

# The last cue has no rule yet, and the first rule lacks its exception: one round mends both.
CUES = (
    Cue("archive", "Compliant", unless="personal data"),
    Cue("personal data", "Breach"),
    Cue("written consent", "Compliant"),
    Cue("reasonable time", "Unclear"),
    Cue("industry practice", "Unclear"),
)
TOO_WIDE = rule_text("archive", "Compliant")
MENDED = CUES[0].instruction
MISSING = CUES[-1].instruction


def the_world(**changes: Any) -> World:
    """Five cues; whatever holds none of them is Compliant, which is also what the student says by habit."""
    values: dict[str, Any] = {"cues": CUES, "rest_label": "Compliant", "habit": "Compliant"}
    return World.example(**(values | changes))


def question_of(request: StubRequest) -> Json:
    """The question as the resolver reads it."""
    found: Json = json.loads(str(request.messages[-1]["content"]))
    return found


def reply(question: Json, action: str, *, label: str = "", text: str = "", cited: list[str] | None = None) -> Json:
    wrong = [one["id"] for one in question["examples"] if not one["right"]]
    named = wrong if cited is None else cited
    return {
        "item": question["item"],
        "reason": "The condition is too wide.",
        "action": action,
        "label": label,
        "instruction": text,
        "cited": [] if action == "keep" else named,
    }


def knowing(world: World) -> Callable[[Json], Json]:
    """A resolver that knows what is true: it mends the rule of the cue that the first wrong example holds."""

    def resolve(question: Json) -> Json:
        wrong = [one for one in question["examples"] if not one["right"]]
        standing = question["instruction"]
        for one in wrong:
            text = one["input"][world.fields[0]]
            cue = next(
                (cue for cue in world.cues if cue.word in text and not (cue.unless and cue.unless in text)), None
            )
            if standing is None and cue is not None:
                same = [other["id"] for other in wrong if cue.word in other["input"][world.fields[0]]]
                return reply(question, "add", label=cue.label, text=cue.instruction, cited=same)
        if standing is not None:
            own = next((cue for cue in world.cues if f'"{cue.word}"' in standing["text"]), None)
            if own is not None and own.instruction != standing["text"]:
                return reply(question, "revise", label=own.label, text=own.instruction)
        return reply(question, "keep")

    return resolve


@contextmanager
def resolving(resolve: Callable[[Json], Json | Plan | str]) -> Iterator[StubServer]:
    """A resolver that answers each question as told: with a reply, a Plan, or a behaviour of the stub by name."""

    def behave(request: StubRequest) -> Plan | str:
        said = resolve(question_of(request))
        return said if isinstance(said, Plan | str) else Plan(completion(json.dumps(said)))

    with stub_server(behave) as stub:
        yield stub


@dataclass
class Scene:
    """A task in a world, with its reviewers, and endpoints that serve both roles."""

    task: Task
    world: World
    ana: User
    ben: User
    examples: list[tuple[str, str]]
    student: ModelEndpoint
    resolver: ModelEndpoint
    asked_student: StubServer
    asked_resolver: StubServer

    def loop(self, user: User | None = None, **fields: Any) -> ResolutionLoop:
        """A loop from a new draft of all that is approved."""
        values: dict[str, Any] = {
            "ruleset": ruleset_create(task=self.task, composer=self.ana),
            "resolver": self.resolver,
        }
        choice = LoopChoice(**(values | fields))
        confirmed = loops.loop_estimate(task=self.task, choice=choice).digest
        return loops.loop_create(task=self.task, user=user, choice=choice, confirmed=confirmed)

    def macro_f1(self, prompt: str) -> float:
        return self.world.macro_f1(prompt, self.examples)


@contextmanager
def scene_in(
    task: Task, ana: User, ben: User, *, resolve: Callable[[Json], Any] | None = None, count: int = 60, **changes: Any
) -> Iterator[Scene]:
    """The world above with the rules it begins from; `resolve` None: the resolver that knows what is true."""
    world = the_world(**changes)
    examples = world_traces(task, world, count)
    texts = [TOO_WIDE, *(cue.instruction for cue in CUES[1:-1])]
    world_instructions(task, ben, world, texts)
    with scripted_student(world) as served, resolving(resolve or knowing(world)) as resolver:
        yield Scene(
            task=task,
            world=world,
            ana=ana,
            ben=ben,
            examples=examples,
            student=student(served.url, task, price_in=1, price_out=1),
            resolver=make_endpoint(resolver.url, slug="resolver", model="resolver-1", price_in=2, price_out=2),
            asked_student=served,
            asked_resolver=resolver,
        )


def turn(loop: ResolutionLoop) -> ResolutionLoop:
    """All that workers do until the loop needs people or is over, in this process."""
    for _ in range(20):
        for job in Job.objects.filter(kind=loops.JOB_KIND, subject_id=loop.pk, state=JobState.QUEUED):
            Job.objects.filter(pk=job.pk).update(run_after=timezone.now() - timedelta(seconds=1))
            job_execute(job_id=job.pk)
        loop.refresh_from_db()
        open_runs = EvaluationRun.objects.filter(state__in=[RunState.QUEUED, RunState.RUNNING])
        if not loop.is_moving and not open_runs.exists():
            break
        for run in open_runs:
            job_execute(job_id=Job.objects.get(kind=RUN_JOB, subject_id=run.pk).pk)
    return loop


def take(proposal: TextProposal, writer: User, approver: User) -> None:
    """A reviewer takes the proposed text over as an edit; another approves it."""
    row = proposal.instruction
    row.refresh_from_db()
    if not row.is_open:
        note = "As conflict resolution proposes."
        instruction_reopen(instruction_id=row.pk, reviewer=writer, version=row.version, note=note)
        row.refresh_from_db()
    instruction_edit(instruction_id=row.pk, reviewer=writer, version=row.version, text=proposal.text)
    approve(row, approver)


def approve(row: Instruction, reviewer: User) -> None:
    row.refresh_from_db()
    instruction_approve(instruction_id=row.pk, reviewer=reviewer, version=row.version)


def decide_all(loop: ResolutionLoop, writer: User, approver: User) -> None:
    """People take everything the newest round proposes."""
    for group in round_of(loop).groups.select_related("proposal__instruction", "candidate"):
        if group.proposal is not None:
            take(group.proposal, writer, approver)
        if group.candidate is not None:
            approve(group.candidate, approver)


def round_of(loop: ResolutionLoop) -> ResolutionRound:
    """The newest round."""
    return loop.rounds.order_by("-number")[0]


def group_of(loop: ResolutionLoop, text: str) -> ResolutionGroup:
    """The newest round's group of the instruction with this text."""
    return round_of(loop).groups.get(revision__text=text)
