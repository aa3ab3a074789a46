"""`manage.py evaluate TASK --kind KIND`: start an evaluation; --inline runs it here and prints its figures as JSON."""

import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from evaluation.models import Dataset, EvaluationRun, PromptKind
from evaluation.services.execution import JOB_KIND
from evaluation.services.runs import SPLITS, evaluation_run_create
from pld_app.errors import Refusal
from pld_app.jobs import job_execute
from pld_app.models import Job, ModelEndpoint
from rules.models import Release, Ruleset, RunState, Split, Task


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="slug of the task")
        parser.add_argument("--kind", choices=PromptKind.values, default=PromptKind.ZERO_SHOT.value)
        parser.add_argument("--ruleset", type=int, metavar="N", help="number of the ruleset, for --kind draft")
        parser.add_argument("--release", type=int, metavar="V", help="version of the release, for --kind release")
        parser.add_argument("--split", choices=[split.value for split in SPLITS], default=Split.VALIDATION.value)
        parser.add_argument("--sample", type=int, metavar="N", help="ask about N examples, each label in its share")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--k", type=int, help="examples shown (few_shot) or neighbours that vote (nearest)")
        parser.add_argument(
            "--dataset", type=int, metavar="N", help="number of the dataset; default: the traces as now"
        )
        parser.add_argument("--repeats", type=int, default=1, help="times to ask each example")
        parser.add_argument("--temperature", type=float, default=0.0)
        parser.add_argument("--student", metavar="SLUG", help="endpoint to ask; default: the task's student")
        parser.add_argument("--inline", action="store_true", help="run it in this process and print its figures")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run = _create(options)
        except Refusal as refusal:
            raise CommandError(str(refusal.user_message)) from refusal
        if not options["inline"]:
            self.stdout.write(f"{run.task.slug}: evaluation {run.number} is queued.")
            return
        run = _run_here(run)
        self.stdout.write(json.dumps(_report(run), sort_keys=True))
        if run.state != RunState.SUCCEEDED:
            raise CommandError(f"Evaluation {run.number} {run.get_state_display().lower()}: {run.error}")


def _create(options: dict[str, Any]) -> EvaluationRun:
    task = Task.objects.select_related("student").filter(slug=options["task"]).first()
    if task is None:
        raise CommandError(f"There is no task {options['task']}.")
    student = ModelEndpoint.objects.filter(slug=options["student"]).first()
    if options["student"] and student is None:
        raise CommandError(f"There is no endpoint {options['student']}.")
    return evaluation_run_create(
        task=task,
        user=None,
        kind=PromptKind(options["kind"]),
        split=Split(options["split"]),
        student=student,
        ruleset=Ruleset.objects.select_related("task").filter(task=task, number=options["ruleset"] or 0).first(),
        release=Release.objects.filter(task=task, version=options["release"] or 0).first(),
        k=options["k"],
        dataset=_dataset(task, options["dataset"]),
        repeats=options["repeats"],
        temperature=options["temperature"],
        sample_size=options["sample"],
        seed=options["seed"],
    )


def _dataset(task: Task, number: int | None) -> Dataset | None:
    if number is None:
        return None
    found = task.datasets.filter(number=number).first()
    if found is None:
        raise CommandError(f"There is no dataset {number}.")
    return found


def _run_here(run: EvaluationRun) -> EvaluationRun:
    """Carry the run through, slice by slice; a worker that was faster is waited for."""
    job = Job.objects.get(kind=JOB_KIND, subject_id=run.pk)
    while not run.is_final:
        job_execute(job_id=job.pk)
        run.refresh_from_db()
        job.refresh_from_db()
        if not run.is_final:
            time.sleep(min(5.0, max(0.2, (job.run_after - timezone.now()).total_seconds())))
    return run


def _report(run: EvaluationRun) -> dict[str, Any]:
    return {
        "task": run.task.slug,
        "run": run.number,
        "state": run.state,
        "error": run.error,
        "prompt": run.prompt_name,
        "prompt_sha256": run.prompt_sha256,
        "student": run.student_name,
        "endpoint": run.student.slug if run.student else "",
        "split": run.split,
        "n": run.n,
        "seed": run.seed,
        "seconds": (run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None,
        "figures": run.figures,
    }
