"""The whole pipeline on 1,000 labelled cases against a stub: extract, embed, cluster, synthesize, then evaluate.

700 cases are mined (none carries an instruction), 300 evaluated: zero-shot, few-shot, nearest neighbours by embeddings,
and the distilled prompt, a draft of every candidate approved as it is. Without latency one worker carries the jobs out,
one after the other: there is nothing to wait for, and a second one would only cost its memory. With 300 ms there are
two, as many as the demo has on two cores: the baselines need nothing but the imported cases, so they are asked while
the first one mines.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tests.bench.machine import Figures, load, peak_mib, say
from tests.bench.processes import in_own_process, stub_endpoint

if TYPE_CHECKING:
    from evaluation.models import EvaluationRun
    from pld_app.models import ModelEndpoint, User
    from rules.models import Task

TRAIN, VALIDATION = 700, 300
QUICK = (60, 30)
CONCURRENCY = 32
WORKERS = {0.0: 1, 0.3: 2}  # by the stub's latency in seconds
SHOTS, NEIGHBOURS = 6, 5


def measure(*, quick: bool) -> Figures:
    """Once without latency, once with 300 ms; each in a process that does nothing else."""
    train, validation = QUICK if quick else (TRAIN, VALIDATION)
    found: Figures = {}
    for latency_s, workers in WORKERS.items():
        say(f"  {train + validation} cases, {latency_s} s a call, {workers} workers, load {load()[0]}")
        with stub_endpoint(latency_s) as url:
            one = in_own_process(
                "tests.bench.pipeline:run",
                name=f"p{round(latency_s * 1000)}",
                url=url,
                train=train,
                validation=validation,
                workers=workers,
            )
        calls = one["calls_by_stage"]
        assert isinstance(calls, dict)
        # The ideal: each stage sends its calls 32 at a time and waits for nothing else. One follows the other, which
        # says what the calls take; beside each other they can be below it.
        ideal = sum(math.ceil(count / CONCURRENCY) for count in calls.values()) * latency_s
        if ideal:
            one |= {"ideal_s": round(ideal, 2), "over_ideal_ratio": round(float(str(one["seconds_s"])) / ideal, 3)}
        found[f"latency_{round(latency_s * 1000)}ms"] = one
    return found


def run(*, name: str, url: str, train: int, validation: int, workers: int) -> Figures:
    """From the file to four evaluated runs, through the product's own services and jobs."""
    import random

    from evaluation.models import PromptKind
    from evaluation.services.execution import JOB_KIND as EVALUATION_JOB
    from evaluation.services.runs import evaluation_run_create
    from rules.models import InstructionStatus, MiningRun, RunState, Split
    from rules.schemas import MiningParameters
    from rules.services.mining import JOB_KIND as MINING_JOB
    from rules.services.mining import mining_run_create
    from rules.services.rulesets import ruleset_create
    from tests.bench.loading import import_lines, job_finish
    from tests.bench.processes import beside, itself
    from tests.factories import approve_directly
    from tests.scripted_student import World

    world = World.example()
    cases = world.examples(train + validation, seed=1)
    random.Random(1).shuffle(cases)
    task, ana, ben = _made(name, url)
    stages: dict[str, float] = {}
    shots = {PromptKind.FEW_SHOT: SHOTS, PromptKind.NEAREST: NEIGHBOURS}

    def asked(kind: PromptKind, **of: object) -> "EvaluationRun":
        return evaluation_run_create(task=task, user=None, kind=kind, split=Split.VALIDATION, k=shots.get(kind), **of)  # type: ignore[arg-type]  # its keywords

    with (beside if workers == 2 else itself)("tests.bench.pipeline:asked_worker") as other:
        started = last = time.monotonic()

        def stage(what: str) -> None:
            nonlocal last
            stages[what] = round(time.monotonic() - last, 2)
            last = time.monotonic()

        import_lines(task, _rows(cases, train))
        stage("import_s")
        baselines = [asked(kind) for kind in (PromptKind.ZERO_SHOT, PromptKind.FEW_SHOT, PromptKind.NEAREST)]
        other.go(runs=[one.pk for one in baselines])
        mined = mining_run_create(task=task, user=None, parameters=MiningParameters())
        job_finish(MINING_JOB, mined.pk)
        assert MiningRun.objects.get(pk=mined.pk).state == RunState.SUCCEEDED
        stage("mine_s")
        of_the_other = other.result()  # before the review, whose time does not count
        stage("baselines_left_s")
        paused = time.monotonic()
        for instruction in task.instructions.filter(status=InstructionStatus.PROPOSED):
            approve_directly(instruction, ben)
        draft = ruleset_create(task=task, composer=ana)
        review_s = time.monotonic() - paused
        last = time.monotonic()
        distilled = asked(PromptKind.DRAFT, ruleset=draft)
        job_finish(EVALUATION_JOB, distilled.pk)
        stage("draft_s")
        seconds = time.monotonic() - started - review_s
    for one in (*baselines, distilled):
        one.refresh_from_db()
        assert one.state == RunState.SUCCEEDED, one.error
    return {
        "workers": workers,
        "seconds_s": round(seconds, 2),
        "stages": stages,
        "baselines_s": of_the_other["seconds_s"],
        "calls_by_stage": _calls([task.teacher, task.embedder, task.student]),
        "instructions": draft.items.count(),
        "peak_rss_mib": round(peak_mib() + (float(str(of_the_other["peak_rss_mib"])) if workers == 2 else 0), 1),
    }


def _made(name: str, url: str) -> "tuple[Task, User, User]":
    """The task with an endpoint of each kind, its composer and its reviewer."""
    from pld_app.models import Domain, EndpointKind, Role
    from tests.factories import make_endpoint, make_task, make_user

    task = make_task(
        name,
        teacher=make_endpoint(url, slug=f"{name}-teacher", concurrency=CONCURRENCY),
        embedder=make_endpoint(url, slug=f"{name}-embedder", kind=EndpointKind.EMBEDDING, concurrency=CONCURRENCY),
        student=make_endpoint(url, slug=f"{name}-student", concurrency=CONCURRENCY),
    )
    ana, ben = (make_user(f"{name}-{who}", Role.REVIEWER, Domain.LEGAL) for who in ("ana", "ben"))
    return task, ana, ben


def asked_worker(*, runs: list[int]) -> Figures:
    """Carry out the jobs of these evaluation runs, one after the other."""
    from evaluation.services.execution import JOB_KIND
    from tests.bench.loading import job_finish

    started = time.monotonic()
    for run_id in runs:
        job_finish(JOB_KIND, run_id)
    return {"seconds_s": round(time.monotonic() - started, 2), "peak_rss_mib": peak_mib()}


def _calls(endpoints: "Sequence[ModelEndpoint | None]") -> dict[str, int]:
    """Answered calls by purpose and run."""
    from pld_app.models import ModelCall

    found = ModelCall.objects.filter(outcome=ModelCall.OK, endpoint__in=endpoints).values_list("purpose", "scope")
    return dict(Counter(f"{purpose} {scope}".strip() for purpose, scope in found))


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
