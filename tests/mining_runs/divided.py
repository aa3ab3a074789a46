"""A run whose extraction is divided between two teacher endpoints, for its tests and its benchmark."""

from typing import Any

from pld_app import jobs
from rules.models import MiningRun, Task
from rules.schemas import MiningParameters
from rules.services.mining import mining_run_create
from tests.factories import make_endpoint, make_task, make_trace

TRACES = 12


def divided_task(first: str, second: str, *, traces: int = TRACES, concurrency: int = 8) -> Task:
    """A task whose traces all wait for the teacher, at two endpoints."""
    endpoints = [
        make_endpoint(url, slug=f"teacher-{n}", concurrency=concurrency) for n, url in enumerate((first, second), 1)
    ]
    task = make_task(teacher=endpoints[0], second_teacher=endpoints[1])
    _unexplained(task, traces)
    return task


def one_endpoint_task(url: str, *, traces: int = TRACES, slug: str = "nda", **endpoint: Any) -> Task:
    """A task whose traces all wait for its one teacher."""
    task = make_task(slug, teacher=make_endpoint(url, slug=f"teacher-of-{slug}", **endpoint))
    _unexplained(task, traces)
    return task


def _unexplained(task: Task, traces: int) -> None:
    for n in range(traces):
        make_trace(task, instruction="", input={"clause": f"Clause number {n} on copies.", "question": "Copies?"})


def started(task: Task, **parameters: Any) -> MiningRun:
    return mining_run_create(task=task, user=None, parameters=MiningParameters.model_validate(parameters))


def is_final(run: MiningRun) -> bool:
    """Whether the run has ended; sends hints that are due, as beat would."""
    jobs.jobs_sweep()
    return MiningRun.objects.get(pk=run.pk).is_final
