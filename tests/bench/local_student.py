"""Contract-NLI on the local student: zero-shot, few-shot and distilled, 150 validation examples each.

Not among the benchmarks that run by default: it takes about as long as all the others together. The draft holds every
candidate that mining proposes, approved as it is: what a person would have made of it is not measured here.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

from pld_app.devstack import paths
from pld_app.devstack.ports import free_port
from tests.bench.machine import Figures, load, say
from tests.bench.processes import in_own_process

SAMPLE = 150
SHOTS = 6


def measure(*, quick: bool) -> Figures:
    """Seconds and figures of each run, with the load of the machine around it. Needs the data of Contract-NLI."""
    in_own_process("tests.bench.local_student:prepared")
    sample = 6 if quick else SAMPLE
    found: Figures = {}
    with _student() as url:
        for kind in ("zero_shot", "few_shot", "draft"):
            before = load()
            say(f"  {kind}: {sample} examples, load {before[0]}")
            found[kind] = in_own_process("tests.bench.local_student:evaluated", url=url, kind=kind, sample=sample)
            say(f"  {kind}: {found[kind]}")
    return found


@contextmanager
def _student() -> Iterator[str]:
    """The product's own local student in a process of its own; yields its base URL once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "evaluation.student_server", "--port", str(port)]
    with subprocess.Popen(command, cwd=paths.ROOT, stdout=sys.stderr) as process:
        try:
            deadline = time.monotonic() + 120
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the local student did not start")
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as response:
            return bool(response.status == 200)
    except (URLError, TimeoutError):
        return False


def prepared() -> Figures:
    """Import the traces and validation examples, mine, approve every candidate, and compose them as a draft."""
    from pld_app.models import Domain, Role
    from rules.models import InstructionStatus
    from rules.schemas import MiningParameters
    from rules.services.mining import JOB_KIND, mining_run_create
    from rules.services.rulesets import ruleset_create
    from tests.bench.loading import import_lines, job_finish
    from tests.converters import contractnli
    from tests.factories import approve_directly, make_task, make_user

    task = make_task("contract-nli", **contractnli.TASK_FIELDS)
    import_lines(task, contractnli.converted_lines(contractnli.DATA / "traces.jsonl", split="train"))
    import_lines(task, contractnli.converted_lines(contractnli.DATA / "validation.jsonl", split="validation"))
    run = mining_run_create(task=task, user=None, parameters=MiningParameters())
    job_finish(JOB_KIND, run.pk)
    ana, ben = make_user("ana", Role.REVIEWER, Domain.LEGAL), make_user("ben", Role.REVIEWER, Domain.LEGAL)
    for instruction in task.instructions.filter(status=InstructionStatus.PROPOSED):
        approve_directly(instruction, ben)
    draft = ruleset_create(task=task, composer=ana)
    return {"instructions": draft.items.count()}


def evaluated(*, url: str, kind: str, sample: int) -> Figures:
    """One run over a sample of the validation split, and what it reported."""
    from evaluation.models import PromptKind
    from evaluation.schemas import RunFigures
    from evaluation.services.execution import JOB_KIND
    from evaluation.services.runs import evaluation_run_create
    from pld_app.models import ModelEndpoint
    from rules.manifest import token_estimate
    from rules.models import RunState, Split, Task
    from tests.bench.loading import job_finish
    from tests.factories import make_endpoint

    task = Task.objects.get(slug="contract-nli")
    endpoint = ModelEndpoint.objects.filter(slug="local").first() or make_endpoint(
        url, slug="local", model="SmolLM2-135M-Instruct", concurrency=2, timeout_s=120
    )
    started = time.monotonic()
    run = evaluation_run_create(
        task=task,
        user=None,
        kind=PromptKind(kind),
        split=Split.VALIDATION,
        student=endpoint,
        ruleset=task.rulesets.first() if kind == PromptKind.DRAFT else None,
        k=SHOTS if kind == PromptKind.FEW_SHOT else None,
        sample_size=sample,
    )
    job_finish(JOB_KIND, run.pk)
    seconds = time.monotonic() - started
    run.refresh_from_db()
    assert run.state == RunState.SUCCEEDED, run.error
    figures = RunFigures.model_validate(run.figures)
    metrics, calls = figures.metrics, figures.calls
    return {
        "n": figures.n,
        "seconds_s": round(seconds, 1),
        "macro_f1": round(metrics.macro_f1, 3),
        "macro_f1_interval": [round(metrics.macro_f1_interval.low, 3), round(metrics.macro_f1_interval.high, 3)],
        "accuracy": round(metrics.accuracy, 3),
        "malformed": figures.malformed,
        "no_answer": figures.no_answer,
        "prompt_tokens_estimate": token_estimate(run.prompt),
        "prompt_tokens": calls.prompt_tokens,
        "cached_tokens": calls.cached_tokens,
        "latency_p50_ms": calls.latency_p50_ms,
        "latency_p95_ms": calls.latency_p95_ms,
        "student": run.student_name,
        "load_after": load(),
    }
