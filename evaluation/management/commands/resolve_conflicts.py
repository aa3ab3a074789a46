"""`manage.py resolve_conflicts TASK --ruleset N`: begin a loop of conflict resolution, or let one go on.

It measures, groups and proposes; what is proposed waits for reviewers. `--next` begins the next round of the open loop
once they have decided. With --inline the work is done here, until people are needed, and the state printed as JSON.
"""

import json
import time
from argparse import ArgumentParser
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from evaluation.models import LoopState, ResolutionLoop
from evaluation.selectors.loops import Course, loop_course
from evaluation.services.execution import JOB_KIND as RUN_JOB
from evaluation.services.loops import JOB_KIND, LoopChoice, loop_create, loop_next, open_rows
from pld_app.errors import Refusal
from pld_app.jobs import job_execute
from pld_app.models import Job, JobState, ModelEndpoint
from rules.models import Task


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="slug of the task")
        parser.add_argument("--ruleset", type=int, metavar="N", help="number of the ruleset to begin from")
        parser.add_argument("--dataset", type=int, metavar="N", help="number of the dataset; default: the traces")
        parser.add_argument("--student", metavar="SLUG", help="endpoint to measure; default: the task's student")
        parser.add_argument("--resolver", metavar="SLUG", help="endpoint that proposes; default: people mend by hand")
        parser.add_argument("--rounds", type=int, default=2, help="rounds that propose, at most")
        parser.add_argument("--sample", type=int, metavar="N", help="measure on N examples, each label in its share")
        parser.add_argument("--automatic", action="store_true", help="begin each round once people have decided")
        parser.add_argument("--max-calls", type=int, metavar="N", help="of student and resolver over all rounds")
        parser.add_argument("--max-cost", type=Decimal, metavar="MONEY")
        parser.add_argument("--next", action="store_true", help="begin the next round of the loop that waits")
        parser.add_argument("--inline", action="store_true", help="do the work in this process and print the state")

    def handle(self, *args: Any, **options: Any) -> None:
        task = Task.objects.select_related("student").filter(slug=options["task"]).first()
        if task is None:
            raise CommandError(f"There is no task {options['task']}.")
        try:
            loop = _next(task) if options["next"] else loop_create(task=task, user=None, choice=_choice(task, options))
        except Refusal as refusal:
            raise CommandError(str(refusal.user_message)) from refusal
        if not options["inline"]:
            self.stdout.write(f"{task.slug}: loop {loop.number} is queued.")
            return
        _work(loop)
        self.stdout.write(json.dumps(_report(loop), sort_keys=True))
        if loop.state == LoopState.FAILED:
            raise CommandError(f"Loop {loop.number} failed: {loop.error}")


def _next(task: Task) -> ResolutionLoop:
    loop = task.resolution_loops.filter(state=LoopState.WAITING).first()
    if loop is None:
        raise CommandError("No loop of this task waits for people.")
    return loop_next(loop_id=loop.pk, user=None)


def _choice(task: Task, options: dict[str, Any]) -> LoopChoice:
    ruleset = task.rulesets.select_related("task").filter(number=options["ruleset"] or 0).first()
    if ruleset is None:
        raise CommandError("Name a ruleset of this task with --ruleset.")
    dataset = task.datasets.filter(number=options["dataset"]).first() if options["dataset"] else None
    if options["dataset"] and dataset is None:
        raise CommandError(f"There is no dataset {options['dataset']}.")
    return LoopChoice(
        ruleset=ruleset,
        dataset=dataset,
        student=_endpoint(options["student"]),
        resolver=_endpoint(options["resolver"]),
        sample_size=options["sample"],
        max_rounds=options["rounds"],
        is_automatic=options["automatic"],
        max_calls=options["max_calls"],
        max_cost=options["max_cost"],
    )


def _endpoint(slug: str | None) -> ModelEndpoint | None:
    found = ModelEndpoint.objects.filter(slug=slug).first() if slug else None
    if slug and found is None:
        raise CommandError(f"There is no endpoint {slug}.")
    return found


def _work(loop: ResolutionLoop) -> None:
    """Carry it through until people are needed; a worker that was faster is waited for."""
    while loop.is_moving:
        jobs = Job.objects.filter(kind=JOB_KIND, subject_id=loop.pk, state=JobState.QUEUED)
        runs = Job.objects.filter(
            kind=RUN_JOB, subject_id__in=loop.rounds.values("run"), state=JobState.QUEUED, run_after__lte=timezone.now()
        )
        due = list(jobs.filter(run_after__lte=timezone.now())) + list(runs)
        for job in due:
            job_execute(job_id=job.pk)
        loop.refresh_from_db()
        if not due:
            time.sleep(0.2)


def _report(loop: ResolutionLoop) -> dict[str, Any]:
    course: Course = loop_course(loop)
    newest = course.rounds[-1].round if course.rounds else None
    return {
        "task": loop.task.slug,
        "loop": loop.number,
        "state": loop.state,
        "stop_reason": loop.stop_reason,
        "error": loop.error,
        "student": loop.student_model,
        "resolver": loop.resolver_model,
        "split": "validation",
        "waiting": open_rows(newest) if newest else 0,
        "calls_used": loop.calls_used,
        "cost_used": str(loop.cost_used),
        "rounds": [
            {
                "round": row.round.number,
                "run": row.round.run.number,
                "n": row.figures.n if row.figures else None,
                "macro_f1": row.figures.metrics.macro_f1 if row.figures else None,
                "groups": row.groups,
            }
            for row in course.rounds
        ],
    }
