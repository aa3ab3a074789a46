"""The whole pipeline on 1,000 labelled cases against a stub: extract, embed, cluster, synthesize, then evaluate.

700 cases are mined (none carries an instruction), 300 evaluated: zero-shot, few-shot, nearest neighbours by embeddings,
and the distilled prompt, a draft of every candidate approved as it is.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence

from tests.bench.machine import Figures, load, peak_mib, say
from tests.bench.processes import in_own_process, stub_endpoint

TRAIN, VALIDATION = 700, 300
QUICK = (60, 30)
CONCURRENCY = 32
LATENCIES_S = (0.0, 0.3)
SHOTS, NEIGHBOURS = 6, 5


def measure(*, quick: bool) -> Figures:
    """Once without latency, once with 300 ms; each in a process that does nothing else."""
    train, validation = QUICK if quick else (TRAIN, VALIDATION)
    found: Figures = {}
    for latency_s in LATENCIES_S:
        say(f"  {train + validation} cases, {latency_s} s a call, {CONCURRENCY} at a time, load {load()[0]}")
        with stub_endpoint(latency_s) as url:
            one = in_own_process("tests.bench.pipeline:run", url=url, train=train, validation=validation)
        calls = one["calls_by_stage"]
        assert isinstance(calls, dict)
        # The ideal: each stage sends its calls 32 at a time and waits for nothing else. Stages follow each other.
        ideal = sum(math.ceil(count / CONCURRENCY) for count in calls.values()) * latency_s
        ratio = {"ideal_s": round(ideal, 2), "over_ideal_ratio": round(float(str(one["seconds_s"])) / ideal, 3)}
        found[f"latency_{round(latency_s * 1000)}ms"] = one | (ratio if latency_s else {})
    return found


def run(*, url: str, train: int, validation: int) -> Figures:
    """From the file to four evaluated runs, through the product's own services and jobs."""
    import random

    from evaluation.models import PromptKind
    from evaluation.services.execution import JOB_KIND as EVALUATION_JOB
    from evaluation.services.runs import evaluation_run_create
    from pld_app.models import Domain, EndpointKind, ModelCall, Role
    from rules.models import InstructionStatus, RunState, Split
    from rules.schemas import MiningParameters
    from rules.services.mining import JOB_KIND as MINING_JOB
    from rules.services.mining import mining_run_create
    from rules.services.rulesets import ruleset_create
    from tests.bench.loading import import_lines, job_finish
    from tests.factories import approve_directly, make_endpoint, make_task, make_user
    from tests.scripted_student import World

    world = World.example()
    cases = world.examples(train + validation, seed=1)
    random.Random(1).shuffle(cases)
    teacher = make_endpoint(url, slug="teacher", concurrency=CONCURRENCY)
    embedder = make_endpoint(url, slug="embedder", kind=EndpointKind.EMBEDDING, concurrency=CONCURRENCY)
    student = make_endpoint(url, slug="student", concurrency=CONCURRENCY)
    task = make_task("pipeline", teacher=teacher, embedder=embedder, student=student)
    ana, ben = make_user("ana", Role.REVIEWER, Domain.LEGAL), make_user("ben", Role.REVIEWER, Domain.LEGAL)

    stages: dict[str, float] = {}
    started = last = time.monotonic()

    def stage(name: str) -> None:
        nonlocal last
        stages[name] = round(time.monotonic() - last, 2)
        last = time.monotonic()

    import_lines(task, _rows(cases, train))
    stage("import_s")
    mined = mining_run_create(task=task, user=None, parameters=MiningParameters())
    job_finish(MINING_JOB, mined.pk)
    mined.refresh_from_db()
    assert mined.state == RunState.SUCCEEDED, mined.error
    stage("mine_s")
    paused = time.monotonic()
    for instruction in task.instructions.filter(status=InstructionStatus.PROPOSED):
        approve_directly(instruction, ben)
    draft = ruleset_create(task=task, composer=ana)
    review_s = time.monotonic() - paused
    last = time.monotonic()
    kinds = (
        (PromptKind.ZERO_SHOT, {}),
        (PromptKind.FEW_SHOT, {"k": SHOTS}),
        (PromptKind.NEAREST, {"k": NEIGHBOURS}),
        (PromptKind.DRAFT, {"ruleset": draft}),
    )
    for kind, more in kinds:
        made = evaluation_run_create(task=task, user=None, kind=kind, split=Split.VALIDATION, **more)  # type: ignore[arg-type]  # one dict of several kinds
        job_finish(EVALUATION_JOB, made.pk)
        made.refresh_from_db()
        assert made.state == RunState.SUCCEEDED, made.error
        stage(f"{kind}_s")
    seconds = time.monotonic() - started - review_s
    calls: dict[str, int] = {}
    for purpose, scope in ModelCall.objects.filter(outcome="ok").values_list("purpose", "scope"):
        name = f"{purpose} {scope}".strip()
        calls[name] = calls.get(name, 0) + 1
    return {
        "seconds_s": round(seconds, 2),
        "stages": stages,
        "calls_by_stage": calls,
        "instructions": draft.items.count(),
        "peak_rss_mib": peak_mib(),
    }


def _rows(cases: Sequence[tuple[str, str]], train: int) -> Iterator[bytes]:
    """The cases as `trace.v1` without instructions; the first `train` are to be mined."""
    for number, (text, label) in enumerate(cases):
        row = {
            "id": f"c-{number}",
            "input": {"clause": text, "question": "May copies be kept?"},
            "label": label,
            "split": "train" if number < train else "validation",
        }
        yield json.dumps(row).encode() + b"\n"
